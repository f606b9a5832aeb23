"""Look for a learning rate when fit starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer
    from fulgurite.tuner.lr_finder import _LRFinder


class LearningRateFinder(Callback):
    """Finds a learning rate before the first step, as `Tuner.lr_find` does, and trains with it.

    To search at other moments, call `lr_find` from a hook of a subclass::

        class AtMilestones(LearningRateFinder):
            def on_fit_start(self, trainer, pl_module): ...

            def on_train_epoch_start(self, trainer, pl_module):
                if trainer.current_epoch in (0, 10, 20):
                    self.lr_find(trainer, pl_module)

    Args:
        min_lr: the first rate.
        max_lr: the last rate.
        num_training_steps: how many steps from the one to the other.
        mode: "exponential" or "linear" growth.
        early_stop_threshold: stop when the loss is so many times the smallest; None: never.
        update_attr: write the suggestion to the module's `lr` or `learning_rate` and train with it.
        attr_name: write it to this name instead.
    """

    SUPPORTED_MODES = ("linear", "exponential")
    _tunes = True

    def __init__(
        self,
        min_lr: float = 1e-08,
        max_lr: float = 1,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> None:
        mode = mode.lower()
        if mode not in self.SUPPORTED_MODES:
            raise MisconfigurationException(
                f"mode={mode!r} is not one of {', '.join(map(repr, self.SUPPORTED_MODES))}."
            )
        self._min_lr, self._max_lr, self._num_training_steps = min_lr, max_lr, num_training_steps
        self._mode, self._early_stop_threshold = mode, early_stop_threshold
        self._update_attr, self._attr_name = update_attr, attr_name
        self.optimal_lr: _LRFinder | None = None

    def lr_find(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Search now; what was found is `optimal_lr`."""
        self.optimal_lr = trainer._tuner._find_rate(
            pl_module,
            (self._mode, self._min_lr, self._max_lr, self._num_training_steps),
            self._early_stop_threshold,
            self._attr_name if self._update_attr else None,
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.lr_find(trainer, pl_module)
