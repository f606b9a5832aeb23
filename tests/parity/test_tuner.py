"""The curve of a learning-rate search and its suggestion equal Lightning's, bit for bit."""

from __future__ import annotations

import importlib
from typing import Any

import lightning.pytorch
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fulgurite

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
FLAGS: dict[str, Any] = {
    "max_epochs": 20,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def rows(n: int = 59) -> TensorDataset:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(1, keepdim=True) + 10)


def module(pl: Any, name: str = "lr", hparams: bool = False, validates: bool = False, skips: int = 0) -> Any:
    """A net with dropout and batch norm: every draw and every buffer shows in its losses."""

    class Net(pl.LightningModule):
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__()
            if hparams:
                self.save_hyperparameters({name: lr})
            else:
                setattr(self, name, lr)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if skips and batch_idx % skips == 1:
                return None
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def train_dataloader(self) -> Any:
            return DataLoader(rows(), 4, shuffle=True)

        def configure_optimizers(self) -> Any:
            rate = self.hparams[name] if hparams else getattr(self, name)
            body, head = self.net[0], self.net[3]
            groups = [{"params": body.parameters(), "lr": rate / 2}, {"params": head.parameters()}]
            optimizer = torch.optim.Adam(groups, lr=rate)
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)]

    if validates:
        Net.validation_step = lambda self, batch, i: self.log("v", self.net(batch[0]).mean() + torch.rand(()))
        Net.val_dataloader = lambda self: DataLoader(rows(20), 4)
    return Net()


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "exponential": ({}, {}, {}),
    "linear": ({}, {}, {"mode": "linear"}),
    "no early stop": ({}, {}, {"early_stop_threshold": None}),
    "early stop": ({}, {}, {"early_stop_threshold": 1.2, "max_lr": 10}),
    "other bounds": ({}, {}, {"min_lr": 1e-5, "max_lr": 0.5, "num_training": 33}),
    "one epoch only": ({"max_epochs": 1}, {}, {}),
    "accumulation": ({"accumulate_grad_batches": 2}, {}, {"num_training": 40}),
    "clipping": ({"gradient_clip_val": 0.1}, {}, {}),
    "validation in between": ({}, {"validates": True}, {"num_training": 50}),
    "validation within the epoch": ({"val_check_interval": 5}, {"validates": True}, {}),
    "limited batches": ({"limit_train_batches": 6}, {}, {}),
    "skipped batches": ({}, {"skips": 5}, {}),
    "learning_rate": ({}, {"name": "learning_rate"}, {}),
    "own name": ({}, {"name": "speed"}, {"attr_name": "speed"}),
    "hyper-parameter": ({}, {"hparams": True}, {}),
    "max_steps smaller": ({"max_steps": 5}, {}, {}),
    "double precision": ({"precision": "64-true"}, {}, {}),
    "mixed precision": ({"precision": "bf16-mixed"}, {}, {}),
}


def found(pl: Any, flags: dict[str, Any], model: dict[str, Any], arguments: dict[str, Any]) -> str:
    tuner = importlib.import_module(f"{pl.__name__}.tuner").Tuner
    torch.manual_seed(7)
    net = module(pl, **model)
    finder = tuner(pl.Trainer(**FLAGS | flags)).lr_find(net, **arguments)
    name = model.get("name", "lr")
    rate = net.hparams[name] if model.get("hparams") else getattr(net, name)
    return repr((sorted(finder.results.items()), finder.suggestion(), rate, dict(net.hparams)))


@pytest.mark.parametrize("case", CASES)
def test_curve_and_suggestion_equal_lightnings(case: str) -> None:
    if case == "accumulation":  # a window that the epoch's end cuts short is averaged differently by intent
        CASES[case][0]["limit_train_batches"] = 14
    assert found(fulgurite, *CASES[case]) == found(lightning.pytorch, *CASES[case])
