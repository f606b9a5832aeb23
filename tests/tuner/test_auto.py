"""`auto_lr_find` and `trainer.tune` of the 1.x era."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fulgurite as pl

FLAGS: dict[str, Any] = {
    "max_epochs": 7,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
pytestmark = pytest.mark.filterwarnings("ignore:.*of the 1.x era")


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.lr, self.speed, self.used = 0.01, 0.02, 0.0
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        self.used = self.lr
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> Any:
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True) + 10), 4)


def test_fit_finds_the_rate_prints_both_and_trains_with_the_new(capsys: pytest.CaptureFixture[str]) -> None:
    module, trainer = Net(), pl.Trainer(**FLAGS, auto_lr_find=True)
    trainer.fit(module)
    assert module.used == module.lr != 0.01
    assert f"lr was 0.01, now {module.lr:g}" in capsys.readouterr().out
    assert trainer.current_epoch == 7


def test_tune_finds_it_and_fit_does_not_look_again(caplog: pytest.LogCaptureFixture) -> None:
    module, trainer = Net(), pl.Trainer(**FLAGS, auto_lr_find=True)
    with caplog.at_level(logging.INFO, logger="fulgurite"):
        found = trainer.tune(module)["lr_find"]
        trainer.fit(module)
    assert module.lr == found.suggestion()
    assert caplog.text.count("Learning rate set to") == 1


def test_a_text_names_the_attribute() -> None:
    module = Net()
    pl.Trainer(**FLAGS, auto_lr_find="speed").tune(module)
    assert module.speed != 0.02 and module.lr == 0.01


def test_a_resumed_fit_keeps_the_rate_it_had() -> None:
    module, first = Net(), pl.Trainer(**FLAGS | {"max_epochs": 1})
    first.fit(module)
    first.save_checkpoint("one.ckpt")
    pl.Trainer(**FLAGS, auto_lr_find=True).fit(module, ckpt_path="one.ckpt")
    assert module.lr == 0.01


def test_fast_dev_run_does_not_search() -> None:
    module = Net()
    pl.Trainer(**FLAGS, auto_lr_find=True, fast_dev_run=True).fit(module)
    assert module.lr == 0.01


def test_tune_says_what_to_write_today() -> None:
    with pytest.warns(FutureWarning, match=r"Tuner\(trainer\).lr_find\(model\)"):
        pl.Trainer(**FLAGS).tune(Net())


def test_auto_scale_batch_size_acts_in_tune(capsys: pytest.CaptureFixture[str]) -> None:
    class Sized(Net):
        batch_size = 8

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.ones(64, 4), torch.ones(64, 1)), self.batch_size)

    module = Sized()
    found = pl.Trainer(**FLAGS, auto_scale_batch_size="binsearch").tune(module, scale_batch_size_kwargs={"margin": 0})
    assert found == {"scale_batch_size": 64} and module.batch_size == 64 and module.lr == 0.01
    assert "batch_size was 8, now 64" in capsys.readouterr().out
