"""val_check_interval in all its forms, with check_val_every_n_epoch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from helpers.counting import Counting, fit, loader

E4 = "t0 t1 t2 t3"


class Stream(IterableDataset[torch.Tensor]):
    """Four batches of a length that nobody knows."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.ones(8, 2))


def stream() -> Any:
    return DataLoader(Stream(), 2)


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ({}, "t0 t1 t2 t3 v0 | t0 t1 t2 t3 v0 |"),
        ({"val_check_interval": 1}, "t0 v0 t1 v0 t2 v0 t3 v0 | t0 v0 t1 v0 t2 v0 t3 v0 |"),
        ({"val_check_interval": 2}, "t0 t1 v0 t2 t3 v0 | t0 t1 v0 t2 t3 v0 |"),
        ({"val_check_interval": 3}, "t0 t1 t2 v0 t3 | t0 t1 t2 v0 t3 |"),
        ({"val_check_interval": 0.5}, "t0 t1 v0 t2 t3 v0 | t0 t1 v0 t2 t3 v0 |"),
        ({"val_check_interval": 0.25}, "t0 v0 t1 v0 t2 v0 t3 v0 | t0 v0 t1 v0 t2 v0 t3 v0 |"),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, "t0 t1 t2 v0 t3 | t0 t1 v0 t2 t3 |"),
        ({"val_check_interval": 8, "check_val_every_n_epoch": None}, "t0 t1 t2 t3 | t0 t1 t2 t3 v0 |"),
        ({"check_val_every_n_epoch": 2}, "t0 t1 t2 t3 | t0 t1 t2 t3 v0 |"),
        ({"check_val_every_n_epoch": 2, "val_check_interval": 2}, "t0 t1 t2 t3 | t0 t1 v0 t2 t3 v0 |"),
        ({"check_val_every_n_epoch": 3}, "t0 t1 t2 t3 | t0 t1 t2 t3 |"),
        ({"val_check_interval": timedelta(0)}, "t0 v0 t1 v0 t2 v0 t3 v0 | t0 v0 t1 v0 t2 v0 t3 v0 |"),
        ({"val_check_interval": timedelta(days=1)}, "t0 t1 t2 t3 | t0 t1 t2 t3 |"),
        ({"val_check_interval": "01:00:00:00"}, "t0 t1 t2 t3 | t0 t1 t2 t3 |"),
        ({"val_check_interval": {"hours": 5}}, "t0 t1 t2 t3 | t0 t1 t2 t3 |"),
    ],
    ids=str,
)
def test_validation_runs_when_due(flags: dict[str, Any], seen: str) -> None:
    _, model = fit(max_epochs=2, limit_val_batches=1, **flags)
    assert model.seen("tv|") == seen


@pytest.mark.parametrize(
    ("interval", "seen"), [(1.0, "t0 t1 t2 t3 v0 |"), (2, "t0 t1 v0 t2 t3 v0 |"), (3, "t0 t1 t2 v0 t3 |")]
)
def test_validation_on_a_stream(interval: float, seen: str) -> None:
    assert fit(train=stream(), limit_val_batches=1, val_check_interval=interval)[1].seen("tv|") == seen


@pytest.mark.parametrize("val", [[], DataLoader(torch.ones(0, 2), 2)], ids=["no loader", "no batch"])
@pytest.mark.filterwarnings("ignore:the validation loaders have no batches")
def test_validation_without_a_batch_is_no_validation(val: Any) -> None:
    class Hooked(Counting):
        def on_validation_epoch_end(self) -> None:
            self.calls.append("vend")

    assert fit(Hooked(), val=val, num_sanity_val_steps=2)[1].seen("v") == ""


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("check_val_every_n_epoch", 2, "v0 | v0 | | v0 |"),
        ("limit_val_batches", 0, "v0 | | | |"),
        ("val_check_batch", 1, "v0 | v0 v0 | v0 v0 | v0 v0 |"),
    ],
)
def test_the_schedule_may_be_changed_while_fit_runs(name: str, value: Any, seen: str) -> None:
    class Changes(Counting):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                setattr(self.trainer, name, value)

    assert fit(Changes(), loader(2), loader(1), max_epochs=4)[1].seen("v|") == seen


def test_the_interval_counts_batches_not_optimizer_steps() -> None:
    _, model = fit(val_check_interval=2, accumulate_grad_batches=4, limit_val_batches=1)
    assert model.seen("tvs|") == "t0 t1 v0 t2 t3 step v0 |"
