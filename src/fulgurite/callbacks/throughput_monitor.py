"""Logs how many batches, samples and items a second are worked through."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.monitoring import no_logger

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class _Done(NamedTuple):
    """Totals at one moment, the time without validations."""

    time: float
    batches: int
    samples: int
    lengths: int
    flops: float


class ThroughputMonitor(Callback):
    """Log totals, and rates over the last `window_size` batches, under `train/`, `validate/`, `test/` and `predict/`.

    Example::

        monitor = ThroughputMonitor(batch_size_fn=lambda batch: batch.size(0), length_fn=lambda batch: batch.numel())
        Trainer(log_every_n_steps=10, callbacks=[monitor])

    `length_fn` counts items such as tokens. A module with `flops_per_batch` has its arithmetic measured too, and with
    `available_flops` as a part of what the device can do.
    """

    def __init__(
        self,
        batch_size_fn: Callable[[Any], int],
        length_fn: Callable[[Any], int] | None = None,
        *,
        window_size: int = 100,
        available_flops: float | None = None,
        separator: str = "/",
    ) -> None:
        super().__init__()
        if window_size < 2:
            raise ValueError(f"window_size={window_size} must be at least 2 batches, for a rate is between two.")
        self.batch_size_fn = batch_size_fn
        self.length_fn = length_fn
        self.window_size = window_size
        self.available_flops = available_flops
        self.separator = separator
        self._windows: dict[str, deque[_Done]] = {}
        self._started: dict[str, float] = {}
        self._validation_began = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not trainer.loggers:
            raise no_logger("ThroughputMonitor")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("train")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._add(trainer, pl_module, "train", batch)
        every = trainer.log_every_n_steps
        stepped = trainer.batches_that_stepped
        if every and stepped and stepped % every == 0:
            self._log(trainer, "train", stepped - 1, {"epoch": trainer.current_epoch})

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_began = time.perf_counter()
        if not trainer.sanity_checking:
            self._start("validate")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        self._evaluated(trainer, pl_module, "validate", batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "train" in self._started:  # what validation took is no time of training
            self._started["train"] += time.perf_counter() - self._validation_began

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        self._evaluated(trainer, pl_module, "test", batch)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("predict")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        self._evaluated(trainer, pl_module, "predict", batch)

    def _start(self, stage: str) -> None:
        self._windows[stage] = deque(maxlen=self.window_size)
        self._started[stage] = time.perf_counter()

    def _evaluated(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        if trainer.sanity_checking:
            return
        self._add(trainer, pl_module, stage, batch)
        batches = self._windows[stage][-1].batches
        if trainer.log_every_n_steps and batches % trainer.log_every_n_steps == 0:
            self._log(trainer, stage, batches, {})

    def _add(self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any) -> None:
        window = self._windows[stage]
        before = window[-1] if window else _Done(0.0, 0, 0, 0, 0.0)
        flops = getattr(pl_module, "flops_per_batch", 0.0)
        window.append(
            _Done(
                time.perf_counter() - self._started[stage],
                before.batches + 1,
                before.samples + self.batch_size_fn(batch),
                before.lengths + (self.length_fn(batch) if self.length_fn is not None else 0),
                before.flops + (flops() if callable(flops) else flops),
            )
        )

    def _log(self, trainer: Trainer, stage: str, step: int, extra: dict[str, float]) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()  # a rate needs work that is done, not work that is queued
        metrics = {f"{stage}{self.separator}{name}": value for name, value in self._metrics(stage).items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics | extra, step=step)

    def _metrics(self, stage: str) -> dict[str, float]:
        window = self._windows[stage]
        last, first = window[-1], window[0]
        metrics: dict[str, float] = {"time": last.time, "batches": last.batches, "samples": last.samples}
        if self.length_fn is not None:
            metrics["lengths"] = last.lengths
        if len(window) < self.window_size:
            return metrics
        seconds, device = last.time - first.time, f"device{self.separator}"
        metrics[f"{device}batches_per_sec"] = (last.batches - first.batches) / seconds
        metrics[f"{device}samples_per_sec"] = (last.samples - first.samples) / seconds
        if self.length_fn is not None:
            metrics[f"{device}items_per_sec"] = (last.lengths - first.lengths) / seconds
        if last.flops:
            rate = (last.flops - first.flops) / seconds
            metrics[f"{device}flops_per_sec"] = rate
            if self.available_flops:
                metrics[f"{device}mfu"] = rate / self.available_flops
        return metrics
