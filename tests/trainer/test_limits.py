"""limit_*_batches, overfit_batches, fast_dev_run and the sanity check."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler

import fulgurite as pl
from helpers.counting import QUIET, Counting, fit, loader


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ({}, "t0 t1 t2 t3 v0 v1"),
        ({"limit_train_batches": 1}, "t0 v0 v1"),
        ({"limit_train_batches": 1.0}, "t0 t1 t2 t3 v0 v1"),
        ({"limit_train_batches": 0.5}, "t0 t1 v0 v1"),
        ({"limit_train_batches": 0.7}, "t0 t1 v0 v1"),
        ({"limit_train_batches": 100}, "t0 t1 t2 t3 v0 v1"),
        ({"limit_train_batches": 0}, ""),
        ({"limit_train_batches": 0.0}, ""),
        ({"limit_val_batches": 1}, "t0 t1 t2 t3 v0"),
        ({"limit_val_batches": 0.5}, "t0 t1 t2 t3 v0"),
        ({"limit_val_batches": 0}, "t0 t1 t2 t3"),
        ({"overfit_batches": 1}, "t0 v0"),
        ({"overfit_batches": 0.5}, "t0 t1 v0"),
        ({"fast_dev_run": True, "max_epochs": 9}, "t0 v0"),
        ({"fast_dev_run": 2}, "t0 t1 v0 v1"),
        ({"num_sanity_val_steps": 1}, "v0 t0 t1 t2 t3 v0 v1"),
        ({"num_sanity_val_steps": -1}, "v0 v1 t0 t1 t2 t3 v0 v1"),
        ({"num_sanity_val_steps": 9}, "v0 v1 t0 t1 t2 t3 v0 v1"),
    ],
    ids=str,
)
def test_batches_of_fit(flags: dict[str, Any], seen: str) -> None:
    assert fit(**flags)[1].seen("tv") == seen


@pytest.mark.parametrize(
    ("method", "flag"),
    [("validate", "limit_val_batches"), ("test", "limit_test_batches"), ("predict", "limit_predict_batches")],
)
@pytest.mark.parametrize(("limit", "batches"), [(1.0, 4), (1, 1), (0.5, 2), (3, 3), (0, 0)])
def test_batches_of_evaluation(method: str, flag: str, limit: float, batches: int) -> None:
    model = Counting()
    getattr(pl.Trainer(**QUIET, **{flag: limit}), method)(model, loader(4))
    assert len(model.seen("vep").split()) == batches


@pytest.mark.parametrize(("limit", "meant"), [(1, "one batch; 1.0 would"), (1.0, "all batches; 1 would"), (2, "")])
def test_what_a_limit_of_one_means_is_said(limit: float, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        pl.Trainer(**QUIET, limit_val_batches=limit)
    said = [r.getMessage() for r in caplog.records if "limit_val_batches" in r.getMessage()]
    assert len(said) == bool(meant) and all(f"limit_val_batches={limit} is {meant}" in message for message in said)


def test_each_loader_has_its_own_limit() -> None:
    class Two(Counting):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            self.calls.append(f"v{dataloader_idx}{batch_idx}")

    _, model = fit(Two(), val=[loader(4), loader(2)], limit_val_batches=0.5)
    assert model.seen("v") == "v00 v01 v10"


def test_overfitting_takes_the_same_batches_in_order_each_epoch() -> None:
    class Keeps(Counting):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.calls.append(f"b{batch[0, 0]:.0f}")

    data = torch.arange(16.0).view(8, 2)
    with pytest.warns(UserWarning, match="overfit"):
        trainer, model = fit(Keeps(), DataLoader(data, 2, shuffle=True), overfit_batches=2, max_epochs=2)
    assert model.seen("b") == "b0 b4 b0 b4"
    assert isinstance(trainer.train_dataloader.sampler, SequentialSampler)


def test_fast_dev_run_leaves_nothing_behind(tmp_path: Any) -> None:
    fit(fast_dev_run=True, default_root_dir=tmp_path, logger=True, enable_checkpointing=True)
    assert not list(tmp_path.iterdir())


def test_the_sanity_check_does_not_touch_the_random_state_or_the_metrics() -> None:
    class Draws(Counting):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("drawn", torch.rand(()))

        def on_train_start(self) -> None:
            self.first = torch.rand(())
            assert not self.trainer.callback_metrics

    firsts = []
    for steps in (0, 2):
        torch.manual_seed(1)
        model = Draws()
        torch.manual_seed(2)
        fit(model, num_sanity_val_steps=steps)
        firsts.append(float(model.first))
    assert firsts[0] == firsts[1]


def test_the_numbers_of_batches_can_be_read() -> None:
    trainer, _ = fit(limit_train_batches=0.5, limit_val_batches=1, num_sanity_val_steps=1)
    assert trainer.num_training_batches == 2
    assert trainer.num_val_batches == [1]
    assert trainer.num_sanity_val_batches == [1]
    assert trainer.estimated_stepping_batches == 2
