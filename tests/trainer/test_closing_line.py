"""What a fit says when it has ended."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch

from fulgurite import LightningModule, Trainer
from fulgurite.callbacks import ModelCheckpoint
from fulgurite.loggers import CSVLogger
from helpers.tiny import Tiny, data, fit


def said(caplog):
    lines = [line for line in caplog.messages if line.startswith("Trained ")]
    caplog.clear()
    return lines


class Logs(Tiny):
    """The last values are 7 (of an epoch), 3 (of a step), 12 (of both, the epoch's mean shown)."""

    def training_step(self, batch, batch_idx):
        self.log("mean", 7.0, on_step=False, on_epoch=True)
        self.log("last", float(batch_idx))
        self.log("both", 12.0, on_step=True, on_epoch=True)
        self.log("best_step", 5.0)
        self.log("hidden", 0.25, logger=False)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("at_step", 4.0, on_step=True, on_epoch=False)
        super().validation_step(batch, batch_idx)


def test_every_logged_name_with_its_last_value(caplog):
    trainer = fit(model=Logs(), max_epochs=2)
    (line,) = said(caplog)
    assert re.match(r"Trained 2 epochs, 8 steps in 0:\d\d \| ", line)
    shown = dict(part.rsplit(" ", 1) for part in line.split(" | ")[1:])
    assert shown.keys() == {
        *("mean", "last", "both", "best_step", "hidden", "at_step", "train_loss", "train_mean", "val_loss")
    }
    expected = {"mean": "7.000", "last": "3.000", "both": "12.000", "hidden": "0.250", "val_loss": "3.000"}
    assert expected.items() <= shown.items()
    assert trainer.callback_metrics.keys() >= {"both_step", "both_epoch"}


def test_without_bar_and_validation(caplog):
    class Course(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch).square().mean()
            self.log("train_loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    flags = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False, **flags)
    trainer.fit(Course(), data())
    (line,) = said(caplog)
    value = trainer.callback_metrics["train_loss_epoch"].item()
    assert re.fullmatch(rf"Trained 1 epoch, 4 steps in 0:\d\d \| train_loss {value:.3f}", line)


def test_a_fit_that_has_nothing_left_to_do_says_so(caplog):
    trainer = fit(max_epochs=1)
    caplog.clear()
    trainer.fit(Logs(), data(), data())
    (line,) = (line for line in caplog.messages if "Nothing was trained" in line)
    assert "max_epochs=1 was reached before (1 epochs, 4 steps)" in line and not said(caplog)


def test_where_the_files_are(caplog):
    logger = CSVLogger("logs", "csv")
    best = ModelCheckpoint(monitor="val_loss", save_last=True)
    fit(best, logger=logger, model=Tiny([5, 3]), max_epochs=2)
    (line,) = said(caplog)
    assert line.split(" | ")[-3:] == [
        "logs in logs/csv/version_0",
        "best checkpoint logs/csv/version_0/checkpoints/epoch=1-step=8.ckpt",
        "last checkpoint logs/csv/version_0/checkpoints/last.ckpt",
    ]
    assert all(Path(part.split(" ")[-1]).exists() for part in line.split(" | ")[-3:])
    fit(ModelCheckpoint("here"), max_epochs=1)
    assert said(caplog)[0].endswith("| checkpoint here/epoch=0-step=4.ckpt")


@pytest.mark.parametrize("flags", [{"fast_dev_run": True}, {"barebones": True, "logger": None}, {"max_epochs": 0}])
def test_nothing_where_nothing_was_trained_for_good(caplog, flags):
    if "barebones" in flags:
        Trainer(barebones=True, max_epochs=1, accelerator="cpu").fit(Tiny(), data(), data(1))
    else:
        fit(**flags)
    assert not said(caplog)


def test_a_second_fit_that_trains_nothing_and_one_that_fails_say_nothing(caplog):
    class Fails(Tiny):
        def on_train_end(self):
            raise ArithmeticError

    trainer = fit(max_epochs=1)
    assert len(said(caplog)) == 1
    trainer.fit(Tiny(), data(), data(1))
    with pytest.raises(ArithmeticError):
        fit(model=Fails(), max_epochs=1)
    assert not said(caplog)


def test_it_can_be_silenced(caplog):
    log = logging.getLogger("fulgurite")
    log.setLevel(logging.WARNING)
    try:
        fit(max_epochs=1)
    finally:
        log.setLevel(logging.INFO)
    assert not said(caplog)
