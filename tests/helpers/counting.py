"""The smallest module whose whole run can be read off a list."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

import fulgurite as pl

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Counting(pl.LightningModule):
    """Writes down what is called: "t0" for training batch 0, "v0" for validation's, "step", "|" for an epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.calls: list[str] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.calls.append(f"t{batch_idx}")
        return self.layer(batch).mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.calls.append(f"v{batch_idx}")

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.calls.append(f"e{batch_idx}")

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.calls.append(f"p{batch_idx}")
        return self.layer(batch)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls.append("step")

    def on_train_epoch_end(self) -> None:
        self.calls.append("|")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def seen(self, kind: str) -> str:
        """The calls of these kinds, in order, as one line."""
        return " ".join(c for c in self.calls if c[0] in kind)


def loader(batches: int, size: int = 2) -> DataLoader[torch.Tensor]:
    return DataLoader(torch.ones(batches * size, 2), size)


def fit(
    model: Any = None, train: Any = None, val: Any = None, ckpt_path: Any = None, **flags: Any
) -> tuple[pl.Trainer, Any]:
    """Train on 4 batches and validate on 2, quietly, unless told otherwise."""
    model = Counting() if model is None else model
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 1, "num_sanity_val_steps": 0, **flags})
    trainer.fit(model, loader(4) if train is None else train, loader(2) if val is None else val, ckpt_path=ckpt_path)
    return trainer, model
