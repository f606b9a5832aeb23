"""Which folder a run gets, and that no other run gets it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path

import pytest

from fulgurite import Trainer
from fulgurite.callbacks import LambdaCallback, ModelCheckpoint
from fulgurite.loggers import CSVLogger, TensorBoardLogger
from helpers.tiny import Tiny, data, fit

KINDS = pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])


def folders():
    return sorted(path.name for path in Path("logs/lightning_logs").glob("*"))


@KINDS
def test_making_and_asking_makes_no_folder(kind):
    logger = kind("logs")
    trainer = Trainer(logger=logger)
    assert (logger.version, trainer.log_dir) == (0, "logs/lightning_logs/version_0")
    assert not Path("logs").exists()
    fit(logger=logger, max_epochs=1)
    assert (logger.version, folders()) == (0, ["version_0"])


def test_two_trainers_made_before_either_runs():
    first, second = (
        Trainer(accelerator="cpu", default_root_dir="logs", max_epochs=1, enable_progress_bar=False) for _ in range(2)
    )
    first.fit(Tiny(), data(), data(1))
    second.fit(Tiny(), data(), data(1))
    assert [Path(trainer.log_dir).name for trainer in (first, second)] == ["version_0", "version_1"]
    assert first.checkpoint_callback.best_model_path != second.checkpoint_callback.best_model_path


@KINDS
def test_the_folder_is_there_before_anything_of_the_users_runs(kind):
    seen = []
    logger = kind("logs")
    fit(LambdaCallback(setup=lambda *_, **__: seen.extend(folders())), logger=logger, max_epochs=1)
    assert seen == ["version_0"]


@KINDS
def test_whoever_asked_may_make_the_folder(kind):
    logger = kind("logs")
    Path(logger.log_dir).mkdir(parents=True)
    Path(logger.log_dir, "config.txt").touch()
    fit(logger=logger, max_epochs=1)
    assert folders() == ["version_0"]


@KINDS
def test_a_folder_that_was_told_and_then_taken_by_another_run(kind):
    late, early = kind("logs"), kind("logs")
    assert late.version == 0
    early.log_metrics({"a": 1}, step=0)
    with pytest.warns(UserWarning, match=r"version_0, which this logger named .* logs into .*version_1"):
        late.log_metrics({"a": 2}, step=0)
    assert (early.version, late.version) == (0, 1)


@KINDS
def test_a_version_that_was_given_is_shared(kind):
    for _ in range(2):
        logger = kind("logs", version=4)
        logger.log_hyperparams({})
        logger.finalize("success")
    kind("logs", version="mine").take_version()
    assert folders() == ["mine", "version_4"]
    assert Path("logs/lightning_logs/mine/hparams.yaml").read_text() == "{}\n"


@KINDS
def test_a_copy_of_a_logger_that_has_begun_goes_on_in_its_folder(kind):
    logger = kind("logs")
    logger.log_metrics({"a": 1}, step=0)
    for twin in (copy.deepcopy(logger), pickle.loads(pickle.dumps(logger))):
        twin.log_metrics({"b": 1}, step=1)
        twin.finalize("success")
    logger.finalize("success")
    assert folders() == ["version_0"]


def test_a_file_in_the_place_of_a_folder_is_passed_over():
    Path("logs/lightning_logs").mkdir(parents=True)
    Path("logs/lightning_logs/version_0").touch()
    logger = CSVLogger("logs")
    logger.log_metrics({"a": 1}, step=0)
    assert logger.version == 1


def test_a_subclass_may_say_where_it_logs():
    class Flat(CSVLogger):
        @property
        def log_dir(self):
            return self.save_dir

    logger = Flat("logs")
    logger.log_metrics({"a": 1}, step=0)
    logger.finalize("success")
    assert [path.name for path in Path("logs").iterdir()] == ["metrics.csv"]


def _run(how, barrier, found):
    warnings.simplefilter("ignore")
    kind = CSVLogger if how != "tensorboard" else TensorBoardLogger
    logger = kind("logs", sub_dir="part") if kind is TensorBoardLogger else kind("logs")
    barrier.wait()
    if how == "asked":
        os.makedirs(logger.log_dir, exist_ok=True)
    if how == "fit":
        fit(ModelCheckpoint(), logger=logger, max_epochs=1)
    else:
        logger.log_metrics({"process": os.getpid()}, step=0)
        logger.finalize("success")
    found.put((os.getpid(), logger.log_dir))


@pytest.mark.multi
@pytest.mark.parametrize("how", ["by hand", "asked", "fit", "tensorboard"])
def test_eight_runs_started_together_get_eight_folders(how):
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(8), context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
        processes = [context.Process(target=_run, args=(how, barrier, found)) for _ in range(8)]
        for process in processes:
            process.start()
    logged = dict(found.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert sorted(map(os.path.normpath, logged.values())) == sorted(
        os.path.join(f"logs/lightning_logs/version_{i}", *["part"] * (how == "tensorboard")) for i in range(8)
    )
    for pid, folder in logged.items():
        if how in ("by hand", "asked"):
            assert Path(folder, "metrics.csv").read_text() == f"process,step\n{pid},0\n"
        if how == "fit":
            assert len(list(Path(folder, "checkpoints").iterdir())) == 1
