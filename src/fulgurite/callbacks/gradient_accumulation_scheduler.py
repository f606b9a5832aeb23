"""Changes over how many batches gradients are accumulated, by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class GradientAccumulationScheduler(Callback):
    """Accumulate over `scheduling[epoch]` batches from that epoch on.

    Example::

        Trainer(callbacks=[GradientAccumulationScheduler({0: 8, 4: 4, 8: 1})])
    """

    def __init__(self, scheduling: dict[int, int]) -> None:
        super().__init__()
        if not scheduling:
            raise TypeError("GradientAccumulationScheduler({}): give at least one epoch, e.g. {0: 4}.")
        for epoch, factor in scheduling.items():
            if not isinstance(epoch, int) or epoch < 0:
                raise MisconfigurationException(
                    f"scheduling={scheduling}: epoch {epoch!r} must be a whole number from 0 on."
                )
            if not isinstance(factor, int) or factor < 1:
                raise MisconfigurationException(
                    f"scheduling={scheduling}: {factor!r} batches must be a whole number from 1 on."
                )
        self.scheduling = {0: 1, **scheduling}
        self.epochs = sorted(self.scheduling)
        self._ours = 1  # what this callback set last

    def going_to_accumulate_grad_batches(self) -> bool:
        """Whether any epoch accumulates."""
        return any(factor > 1 for factor in self.scheduling.values())

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        """The factor of an epoch: the one set last before or at it."""
        return self.scheduling[max(e for e in self.epochs if e <= epoch)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not pl_module.automatic_optimization:
            raise RuntimeError(
                "GradientAccumulationScheduler does nothing under manual optimization, where you decide when to step. "
                "Remove the callback."
            )
        if trainer.accumulate_grad_batches not in (1, self._ours):
            raise ValueError(
                f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) and GradientAccumulationScheduler "
                "both set the window. Leave the trainer's at 1, or remove the callback."
            )
        self._set_window(trainer)  # a run resumed in mid-epoch starts no epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_window(trainer)

    def _set_window(self, trainer: Trainer) -> None:
        self._ours = trainer.accumulate_grad_batches = self.get_accumulate_grad_batches(trainer.current_epoch)
