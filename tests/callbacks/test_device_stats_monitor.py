from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fulgurite.callbacks import DeviceStatsMonitor
from fulgurite.loggers import CSVLogger
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import fit


def columns(logger):
    path = Path(logger.log_dir, "metrics.csv")
    with open(path) as file:
        return set(next(csv.reader(file)))


def test_the_load_of_the_processor_is_logged_when_loggers_are_due():
    pytest.importorskip("psutil")
    logger = CSVLogger(".")
    fit(DeviceStatsMonitor(filter_keys={"cpu_percent"}), logger=logger, max_epochs=1, log_every_n_steps=2)
    name = "DeviceStatsMonitor.on_train_batch_{}/cpu_percent"
    assert {name.format("start"), name.format("end")} <= columns(logger)
    assert not any("swap" in column for column in columns(logger))


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
