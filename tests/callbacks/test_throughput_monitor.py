from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fulgurite.callbacks import ThroughputMonitor
from fulgurite.loggers import CSVLogger
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit


def logged(monitor, model=None):
    logger = CSVLogger(".")
    fit(monitor, model=model, logger=logger, max_epochs=1, log_every_n_steps=1, num_sanity_val_steps=1)
    with open(Path(logger.log_dir, "metrics.csv")) as file:
        return list(csv.DictReader(file))


def test_totals_count_batches_samples_and_items():
    rows = [row for row in logged(ThroughputMonitor(len, lambda batch: batch.numel())) if row["train/batches"]]
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["train/samples"] for row in rows] == ["2", "4", "6", "8"]
    assert rows[-1]["train/lengths"] == "32"
    times = [float(row["train/time"]) for row in rows]
    assert times == sorted(times)


def test_rates_come_with_a_full_window():
    rows = [row for row in logged(ThroughputMonitor(len, len, window_size=3)) if row["train/batches"]]
    rates = [row["train/device/samples_per_sec"] for row in rows]
    assert rates[:2] == ["", ""]
    assert all(float(rate) > 0 for rate in rates[2:])
    assert float(rows[3]["train/device/items_per_sec"]) == float(rates[3])


def test_validation_has_totals_of_its_own_without_the_sanity_check():
    rows = [row for row in logged(ThroughputMonitor(len)) if row["validate/batches"]]
    assert [(row["step"], row["validate/batches"], row["validate/samples"]) for row in rows] == [("1", "1", "2")]


def test_arithmetic_is_measured_where_the_module_tells_it():
    class Counted(Tiny):
        flops_per_batch = 1e6

    rows = logged(ThroughputMonitor(len, window_size=2, available_flops=1e9), Counted())
    row = next(row for row in rows if row["train/device/flops_per_sec"])
    assert float(row["train/device/mfu"]) == pytest.approx(float(row["train/device/flops_per_sec"]) / 1e9)


def test_contradictions():
    with pytest.raises(MisconfigurationException, match="writes to a logger"):
        fit(ThroughputMonitor(len))
    with pytest.raises(ValueError, match="window_size=1"):
        ThroughputMonitor(len, window_size=1)
