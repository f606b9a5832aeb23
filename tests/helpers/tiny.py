"""The smallest module that trains, and a fit without anything around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from fulgurite import LightningModule, Trainer
from fulgurite.callbacks import Checkpoint, ModelSummary, ProgressBar

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "num_sanity_val_steps": 0,
}


class Tiny(LightningModule):
    """Logs `val_loss` from the given sequence, `train_loss` by step and `train_mean` by epoch."""

    def __init__(self, val_losses: Sequence[float] = (5, 3, 4, 2, 6, 1, 7, 8, 9, 10)) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.val_losses, self.validations = list(val_losses), 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_mean", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", torch.tensor(float(self.val_losses[self.validations % len(self.val_losses)])))

    def on_validation_epoch_end(self) -> None:
        self.validations += not self.trainer.sanity_checking

    def test_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("test_loss", self.layer(batch).pow(2).mean())

    def predict_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        return self.layer(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data(batches: int = 4) -> DataLoader[Any]:
    return DataLoader(torch.randn(batches * 2, 4, generator=torch.Generator().manual_seed(1)), batch_size=2)


def fit(*callbacks: Any, model: LightningModule | None = None, ckpt_path: Any = None, **flags: Any) -> Trainer:
    """Train `model` on four batches an epoch, one validation batch."""
    flags.setdefault("enable_checkpointing", any(isinstance(callback, Checkpoint) for callback in callbacks))
    flags.setdefault("enable_model_summary", any(isinstance(callback, ModelSummary) for callback in callbacks))
    flags.setdefault("enable_progress_bar", any(isinstance(callback, ProgressBar) for callback in callbacks))
    trainer = Trainer(**{**QUIET, "max_epochs": 3, "callbacks": list(callbacks), **flags})
    trainer.fit(model or Tiny(), data(), data(1), ckpt_path=ckpt_path)
    return trainer


def names(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())
