"""Look for the largest batch size that fits in memory, when fit or an evaluation starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.callbacks.callback import Callback
from fulgurite.states import TrainerFn
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class BatchSizeFinder(Callback):
    """Finds a batch size as `Tuner.scale_batch_size` does, and goes on with it.

    The module or its data module makes the loaders, with `batch_size=self.batch_size`. To search at other moments,
    call `scale_batch_size` from a hook of a subclass.

    Args:
        mode: "power" doubles until memory runs out; "binsearch" then closes in on the largest that fits.
        steps_per_trial: optimizer steps, or batches of an evaluation, to try each size with.
        init_val: the first size.
        max_trials: how many sizes at most to try.
        batch_arg_name: the attribute or hyper-parameter that holds the batch size.
        margin: in mode "binsearch", take so much less than was found.
        max_val: the largest size to try.
    """

    SUPPORTED_MODES = ("power", "binsearch")
    _tunes = True

    def __init__(
        self,
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> None:
        mode = mode.lower()
        if mode not in self.SUPPORTED_MODES:
            raise MisconfigurationException(
                f"mode={mode!r} is not one of {', '.join(map(repr, self.SUPPORTED_MODES))}."
            )
        self._mode, self._steps_per_trial, self._init_val = mode, steps_per_trial, init_val
        self._max_trials, self._batch_arg_name = max_trials, batch_arg_name
        self._margin, self._max_val = margin, max_val
        self.optimal_batch_size: int | None = init_val

    def scale_batch_size(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Search now; what was found is `optimal_batch_size`."""
        self.optimal_batch_size = trainer._tuner._find_batch_size(
            pl_module,
            self._batch_arg_name,
            mode=self._mode,
            steps_per_trial=self._steps_per_trial,
            init_val=self._init_val,
            max_trials=self._max_trials,
            margin=self._margin,
            max_val=self._max_val,
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scale_batch_size(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:  # within fit the size was found when it started
            self.scale_batch_size(trainer, pl_module)

    on_test_start = on_predict_start = on_fit_start
