from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fulgurite import Trainer
from fulgurite.callbacks import DeviceStatsMonitor
from fulgurite.loggers import CSVLogger
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, data, fit


def columns(logger):
    path = Path(logger.log_dir, "metrics.csv")
    with open(path) as file:
        return set(next(csv.reader(file)))


def test_the_load_of_the_processor_is_logged_when_loggers_are_due():
    logger = CSVLogger(".")
    fit(DeviceStatsMonitor(filter_keys={"cpu_percent"}), logger=logger, max_epochs=1, log_every_n_steps=2)
    name = "DeviceStatsMonitor.on_train_batch_{}/cpu_percent"
    assert {name.format("start"), name.format("end")} <= columns(logger)
    assert not any("swap" in column for column in columns(logger))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rows_of_a_batch_and_of_the_validation_after_it_are_at_its_step(accumulate):
    class Rows(CSVLogger):
        def log_metrics(self, metrics, step=None):
            (name,) = metrics
            rows.setdefault(name.split(".")[1].split("/")[0], []).append(step)

    class Silent(Tiny):
        def log(self, *args, **kwargs): ...

    rows, stats = {}, DeviceStatsMonitor(filter_keys={"cpu_percent"})
    settings = {"max_epochs": 1, "log_every_n_steps": 2, "accumulate_grad_batches": accumulate}
    quiet = {"num_sanity_val_steps": 0, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", logger=Rows("."), callbacks=[stats], **settings, **quiet)
    trainer.fit(Silent(), data(), data(3))
    steps = [1, 3] if accumulate == 1 else [1, 1]
    assert rows["on_train_batch_start"] == rows["on_train_batch_end"] == steps
    assert rows["on_validation_batch_start"] == rows["on_validation_batch_end"] == steps[1:]


def test_without_psutil_it_says_what_to_install():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "psutil", None)
        with pytest.raises(ModuleNotFoundError, match="pip install psutil"):
            fit(DeviceStatsMonitor(), logger=CSVLogger("."))
        fit(DeviceStatsMonitor(cpu_stats=False), logger=CSVLogger("."), max_epochs=1)


def test_without_logger_it_is_an_error():
    with pytest.raises(MisconfigurationException, match="writes to a logger"):
        fit(DeviceStatsMonitor())


@pytest.mark.gpu
def test_the_memory_of_a_gpu_is_logged():
    logger = CSVLogger(".")
    fit(DeviceStatsMonitor(), logger=logger, accelerator="cuda", max_epochs=1, log_every_n_steps=1)
    assert "DeviceStatsMonitor.on_train_batch_end/allocated_bytes.all.current" in columns(logger)
