from __future__ import annotations

import copy
import pickle

import pytest

from fulgurite.loggers.logger import DummyExperiment, DummyLogger, Logger, flat, rank_zero_experiment
from fulgurite.utilities.rank_zero import rank_zero_only
from helpers.tiny import fit


class Rows(Logger):
    name, version = "rows", 0

    def __init__(self):
        self.rows, self.params, self.status = [], None, None

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params):
        self.params = params

    def finalize(self, status):
        self.status = status


def test_ten_lines_make_a_logger():
    logger = Rows()
    fit(logger=logger, max_epochs=1, log_every_n_steps=4)
    assert [(step, sorted(row)) for step, row in logger.rows] == [
        (3, ["epoch", "train_loss"]),
        (3, ["epoch", "val_loss"]),
        (3, ["epoch", "train_mean"]),
    ]
    assert logger.status == "success"


def test_several_loggers_get_the_same_rows():
    one, two = Rows(), Rows()
    fit(logger=[one, two], max_epochs=1, log_every_n_steps=1)
    assert one.rows == two.rows
    assert len(one.rows) == 6


def test_what_is_abstract():
    with pytest.raises(TypeError, match="log_hyperparams.*log_metrics.*name.*version"):
        Logger()


def test_a_dummy_logger_swallows_anything():
    logger = DummyLogger()
    logger.log_metrics({"a": 1}, step=0)
    logger.log_image(key="x", images=[])
    logger.experiment.add_histogram("x", [1])
    logger.experiment[0].watch(None)
    logger[0].save()
    assert list(logger) == [logger]
    assert (logger.name, logger.version, logger.save_dir, logger.group_separator) == ("", "", None, "/")


def test_a_dummy_logger_can_be_copied_and_pickled():
    assert isinstance(copy.deepcopy(DummyLogger()).experiment, DummyExperiment)
    assert isinstance(pickle.loads(pickle.dumps(DummyLogger())).experiment, DummyExperiment)


def test_fast_dev_run_uses_it():
    logger = Rows()
    trainer = fit(logger=logger, fast_dev_run=True)
    assert isinstance(trainer.logger, DummyLogger)
    assert logger.rows == []


def test_rank_zero_experiment(monkeypatch):
    class Mine(Rows):
        @property
        @rank_zero_experiment
        def experiment(self):
            return "real"

    assert Mine().experiment == "real"
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert isinstance(Mine().experiment, DummyExperiment)


def test_flat():
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": {}, 3: None}) == {"a/b": 1, "a/c/d": 2, "e": {}, "3": None}
