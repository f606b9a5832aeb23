"""A small model of two blocks and parameters of its own, trained in float64 by one process or by several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulgurite import LightningModule, Trainer
from fulgurite.callbacks import Checkpoint


class Block(nn.Sequential):
    """A unit of its own where a policy says so; its sizes divide by neither 2 nor 3."""

    def __init__(self, hidden: int) -> None:
        super().__init__(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, 5))


class Blocks(LightningModule):
    def __init__(self, lr: float = 0.1, name: str = "AdamW", hidden: int = 7) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.first = nn.Linear(4, 5)
        self.blocks = nn.ModuleList([Block(hidden), Block(hidden)])
        self.last = nn.Linear(5, 1)
        self.scale = nn.Parameter(torch.ones(3))  # of the root, used after forward has ended
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)

    def loss(self, x: Tensor) -> Tensor:
        return (self(x) * self.scale.sum() - x.sum(1, keepdim=True)).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch)

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.hparams.name)(self.parameters(), lr=self.hparams.lr)


def samples(count: int = 24, seed: int = 1) -> Tensor:
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loader(batch_size: int, count: int = 24, among: int | None = None, **flags: Any) -> DataLoader[Any]:
    """Batches of `batch_size` samples of all processes together."""
    among = int(os.environ.get("WORLD_SIZE", "1")) if among is None else among
    return DataLoader(samples(count), batch_size // among, **flags)  # type: ignore[arg-type]  # a tensor is a data set


def quiet(**flags: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "precision": "64-true",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in flags.get("callbacks", ())),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return Trainer(**{**settings, **flags})


def fitted(
    batch_size: int, count: int = 24, ckpt_path: str | Path | None = None, shuffle: bool = False, **flags: Any
) -> Blocks:
    """A model trained from seed 3; alone where `flags` name no strategy."""
    torch.manual_seed(3)
    model = Blocks(**flags.pop("model", {}))
    trainer = quiet(**flags)
    trainer.fit(model, loader(batch_size, count, shuffle=shuffle), loader(batch_size, 10), ckpt_path=ckpt_path)
    return model


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Whole, whatever they are spread over; every process calls it."""
    return {k: v.full_tensor() if hasattr(v, "full_tensor") else v.clone() for k, v in module.state_dict().items()}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one)
