"""What training cost: answers learned from and CPU seconds, validation left out."""

from __future__ import annotations

import time
from typing import Any

import fulgurite as pl


class TrainingClock(pl.Callback):
    """Counts the epochs, answers and CPU seconds of this process; what a resumed run did before is not in them."""

    def __init__(self) -> None:
        self.epochs = 0
        self.interactions = 0
        self.cpu_seconds = 0.0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.interactions += batch["n"]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.cpu_seconds += time.process_time() - self._since

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.cpu_seconds += time.process_time() - self._since
        self.epochs += 1
