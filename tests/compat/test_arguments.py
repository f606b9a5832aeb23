"""Trainer arguments of the 1.x era: what each becomes, and that only these are taken."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch

import fulgurite as pl
from fulgurite.callbacks import EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint, ModelSummary, ProgressBar
from fulgurite.compat.arguments import OLD
from fulgurite.compat.plugins import DDPPlugin
from fulgurite.utilities import rank_zero

QUIET = {"accelerator": "cpu", "logger": False}


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero, "_warned", set())


def old(**arguments: Any) -> tuple[pl.Trainer, list[str]]:
    """A trainer made with arguments of the 1.x era, and what it said of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = pl.Trainer(**{**QUIET, **arguments})
    return trainer, [str(w.message) for w in caught if "1.x era" in str(w.message)]


TODAY = {
    "num_processes=1": ({"num_processes": 1}, "Leave it out", {"world_size": 1}),
    "tpu_cores": ({"tpu_cores": None}, "Leave it out", {}),
    "bar": ({"progress_bar_refresh_rate": 0}, "enable_progress_bar=False", {"progress_bar_callback": None}),
    "checkpoint": ({"checkpoint_callback": False}, "enable_checkpointing=False", {"checkpoint_callback": None}),
    "sampler": ({"replace_sampler_ddp": False}, "use_distributed_sampler=False", {"use_distributed_sampler": False}),
    "metrics": ({"move_metrics_to_cpu": True}, "Leave it out", {}),
    "amp backend": ({"amp_backend": "native"}, "Leave it out", {}),
    "amp level": ({"amp_level": "O2"}, "precision='16-mixed'", {}),
    "reload": (
        {"reload_dataloaders_every_epoch": True},
        "reload_dataloaders_every_n_epochs=1",
        {"reload_dataloaders_every_n_epochs": 1},
    ),
    "rows": ({"row_log_interval": 7}, "log_every_n_steps=7", {"log_every_n_steps": 7}),
    "percent": ({"val_percent_check": 0.5}, "limit_val_batches=0.5", {"limit_val_batches": 0.5}),
    "epochs": ({"max_nb_epochs": 3}, "max_epochs=3", {"max_epochs": 3}),
    "folder": ({"default_save_path": "x"}, "default_root_dir='x'", {"default_root_dir": "x"}),
    "distributed": ({"distributed_backend": "ddp"}, "there is one device", {"world_size": 1}),
    "accelerator": ({"accelerator": "ddp", "devices": 1, "num_processes": 1}, "there is one device", {"world_size": 1}),
    "plugin": ({"plugins": DDPPlugin(find_unused_parameters=False)}, "there is one device", {"world_size": 1}),
    "profiler": ({"profiler": False}, "profiler=None", {}),
    "resume": ({"resume_from_checkpoint": "a.ckpt"}, "ckpt_path='a.ckpt'", {"_resume_from_checkpoint": "a.ckpt"}),
    "rate": ({"auto_lr_find": True}, "Tuner(trainer).lr_find(model)", {"_auto_lr_find": True}),
    "batch": ({"auto_scale_batch_size": "binsearch"}, "scale_batch_size", {"_auto_scale_batch_size": "binsearch"}),
}


@pytest.mark.parametrize("name", TODAY)
def test_an_old_argument_does_what_it_did_and_says_the_line_to_write(name: str) -> None:
    arguments, line, attributes = TODAY[name]
    trainer, said = old(**arguments)
    assert sum(line in message for message in said) == 1, said
    assert {attribute: getattr(trainer, attribute) for attribute in attributes} == attributes


def test_old_arguments_that_are_callbacks_today() -> None:
    checkpoint = ModelCheckpoint()
    trainer, said = old(
        weights_summary="full",
        checkpoint_callback=checkpoint,
        early_stop_callback=True,
        accumulate_grad_batches={0: 1, 4: 2},
        track_grad_norm=2,
        terminate_on_nan=True,
    )
    kinds = [type(callback).__name__ for callback in trainer.callbacks]
    assert trainer.checkpoint_callback is checkpoint and len(said) == 6
    assert {"EarlyStopping", "GradientAccumulationScheduler", "GradNorm", "StopAtNan"} <= set(kinds)
    assert next(cb for cb in trainer.callbacks if isinstance(cb, ModelSummary))._max_depth == -1
    assert any(isinstance(cb, (EarlyStopping, GradientAccumulationScheduler)) for cb in trainer.callbacks)


def test_a_refresh_rate_keeps_one_bar() -> None:
    trainer, _ = old(progress_bar_refresh_rate=20)
    assert sum(isinstance(callback, ProgressBar) for callback in trainer.callbacks) == 1


def test_an_old_argument_warns_once() -> None:
    _, first = old(weights_summary=None)
    _, second = old(weights_summary=None)
    assert len(first) == 1 and not second


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tpu_cores": 8}, "accelerator='auto'"),
        ({"amp_backend": "apex"}, "16-mixed"),
        ({"weights_summary": "half"}, "'top'"),
    ],
)
def test_what_cannot_be_done_is_an_error(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises((NotImplementedError, ValueError), match=says):
        old(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_without_a_gpu_says_what_to_write() -> None:
    with pytest.raises(ValueError, match='accelerator="auto", devices=1'):
        old(gpus=1)


def test_the_signature_shows_todays_arguments_and_a_typo_stays_an_error() -> None:
    shown = inspect.signature(pl.Trainer.__init__).parameters
    assert not OLD.keys() & shown.keys() and all(p.kind is not p.VAR_KEYWORD for p in shown.values())
    with pytest.raises(TypeError, match="Did you mean precision"):
        pl.Trainer(precisionn=16)


def test_model_checkpoint_by_its_old_arguments() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback = ModelCheckpoint(filepath="a/b/{epoch}", period=2, monitor="val_acc", mode="auto", prefix="x")
    assert (str(callback.dirpath).endswith("a/b"), callback.filename, callback.mode) == (True, "x-{epoch}", "max")
    assert callback._every_n_epochs == 2
    assert "filepath" not in inspect.signature(ModelCheckpoint.__init__).parameters
    with pytest.raises(TypeError, match="filepaht"):
        ModelCheckpoint(filepaht="a")
