"""Logs what the device reports: memory of a GPU, load of the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.monitoring import no_logger
from fulgurite.machine.accelerators import _psutil, cpu_stats

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class DeviceStatsMonitor(Callback):
    """Log device statistics before and after each batch that the loggers are due at.

    Example::

        Trainer(callbacks=[DeviceStatsMonitor(cpu_stats=True, filter_keys={"cpu_percent"})])

    `cpu_stats` adds the processor's to a GPU's, False leaves them out on CPU too; `filter_keys` keeps only these names.
    """

    def __init__(self, cpu_stats: bool | None = None, filter_keys: set[str] | None = None) -> None:
        super().__init__()
        self._cpu_stats = cpu_stats
        self._filter_keys = filter_keys

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not trainer.loggers:
            raise no_logger("DeviceStatsMonitor")
        if self._reads_cpu(trainer):
            _psutil()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._log(trainer, "on_train_batch_start")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._log(trainer, "on_train_batch_end")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._log(trainer, "on_validation_batch_start", batch_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._log(trainer, "on_validation_batch_end", batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._log(trainer, "on_test_batch_start", batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._log(trainer, "on_test_batch_end", batch_idx)

    def _reads_cpu(self, trainer: Trainer) -> bool:
        return trainer.strategy.root_device.type == "cpu" if self._cpu_stats is None else self._cpu_stats

    def _log(self, trainer: Trainer, hook: str, evaluated: int | None = None) -> None:
        every, step = trainer.log_every_n_steps, trainer.batches_that_stepped
        if hook != "on_train_batch_start" and (run := trainer._run) is not None and run.training:
            # the step of the batch that is done has been counted already
            step -= run.progress.batch > 0 and run.steps_after(run.progress.batch)
        due = every and ((step if evaluated is None else evaluated) + 1) % every == 0
        if not (due or trainer.should_stop):
            return
        device = trainer.strategy.root_device
        stats = {} if device.type == "cpu" else trainer.accelerator.get_device_stats(device)
        if self._reads_cpu(trainer):
            stats = {**stats, **cpu_stats()}
        if self._filter_keys is not None:
            stats = {name: value for name, value in stats.items() if name in self._filter_keys}
        for logger in trainer.loggers:
            prefix = f"{type(self).__qualname__}.{hook}{logger.group_separator}"
            logger.log_metrics({prefix + name: v for name, v in stats.items()}, step=step)
