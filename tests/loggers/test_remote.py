"""Loggers that write where fsspec says, not on this disk."""

from __future__ import annotations

import csv
import io
import os

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fulgurite.callbacks import ModelCheckpoint
from fulgurite.loggers import CSVLogger, TensorBoardLogger
from fulgurite.loggers.csv_logs import ExperimentWriter
from helpers.tiny import Tiny, fit


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    filesystem.rm("/", recursive=True) if filesystem.find("/") else None
    filesystem.pseudo_dirs[:] = [""]
    return filesystem


class Bucket(MemoryFileSystem):
    """A store that other machines write to as well."""

    protocol = "bucket"
    store: dict = {}
    pseudo_dirs = [""]


def rows(filesystem, path):
    return list(csv.DictReader(io.StringIO(filesystem.cat(path).decode(), newline="")))


def test_a_fit_with_csv_logs_elsewhere(memory):
    logger = CSVLogger("memory://logs")
    trainer = fit(ModelCheckpoint(), logger=logger, model=Tiny([5, 3]), max_epochs=2, log_every_n_steps=1)
    assert trainer.log_dir == logger.log_dir == "memory://logs/lightning_logs/version_0"
    found = rows(memory, "/logs/lightning_logs/version_0/metrics.csv")
    assert [row["val_loss"] for row in found if row["val_loss"]] == ["5.0", "3.0"]
    assert memory.exists("/logs/lightning_logs/version_0/checkpoints/epoch=1-step=8.ckpt")
    fit(logger=CSVLogger("memory://logs"), max_epochs=1)
    assert memory.exists("/logs/lightning_logs/version_1/metrics.csv")
    assert os.listdir() == []


def test_rows_are_added_to_a_file_elsewhere(memory):
    for step in range(2):
        writer = ExperimentWriter("memory://logs")
        writer.log_metrics({f"k{step}": step}, step=step)
        assert len(rows(memory, "/logs/metrics.csv")) == step + 1  # sent at once, as long as that is little
        writer.finish()
    assert memory.cat("/logs/metrics.csv") == b"k0,k1,step\r\n0,,0\r\n,1,1\r\n"


def test_a_long_file_elsewhere_is_sent_few_times_and_whole_at_the_end(memory, monkeypatch):
    writer, sent = ExperimentWriter("memory://logs"), []
    send = type(writer._file).send
    monkeypatch.setattr(type(writer._file), "send", lambda self: (sent.append(self.size()), send(self)))
    for step in range(3000):
        writer.log_metrics({"a": step, f"k{step % 9}": step}, step=step)
        writer.save()
    writer.finish()
    found = rows(memory, "/logs/metrics.csv")
    assert [row["a"] for row in found] == [str(i) for i in range(3000)]
    assert sum(sent) < (1 << 20) + 6 * sent[-1]


def test_a_fit_with_tensorboard_elsewhere(memory):
    logger = TensorBoardLogger("memory://tb")
    fit(logger=logger, model=Tiny([5, 3]), max_epochs=2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(logger.log_dir).Reload().Scalars("val_loss")
    assert [(event.step, event.value) for event in found] == [(3, 5.0), (7, 3.0)]
    assert os.listdir() == []


def test_in_a_store_of_several_machines_a_version_has_a_name_of_its_own():
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    loggers = [CSVLogger("bucket://logs") for _ in range(2)]
    for logger in loggers:  # both look before either writes
        assert logger.version.startswith("version_0-")
    for logger in loggers:
        logger.log_metrics({"a": 1}, step=0)
    assert len({logger.log_dir for logger in loggers}) == 2
    assert CSVLogger("bucket://logs").version.startswith("version_1-")
