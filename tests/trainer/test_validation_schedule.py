"""val_check_interval in all its forms, with check_val_every_n_epoch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from fulgurite import LightningModule, Trainer
from fulgurite.utilities.tree import apply_to_collection
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


def own_batches() -> Any:
    """A batch sampler whose length nobody believes, so that batches are looked ahead."""
    return DataLoader(torch.ones(8, 2), batch_sampler=[[0, 1], [2, 3], [4, 5], [6, 7]])


class Held(LightningModule):
    """Looks, as each validation starts, whether anything still holds the last training batch and what its step gave."""

    def __init__(self, moves: bool) -> None:
        super().__init__()
        self.layer, self.moves, self.seen = nn.Linear(2, 1), moves, [""]
        self.given: dict[str, weakref.ref[Any]] = {}

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return apply_to_collection(batch, torch.Tensor, torch.clone) if self.moves else batch

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        rows = batch[0] if isinstance(batch, list) else batch
        loss = self.layer(rows).sum()
        self.log("loss", loss, on_step=True, on_epoch=True)
        large = torch.zeros(100)
        self.given = {"batch": weakref.ref(rows), "output": weakref.ref(large)}
        return {"loss": loss, "large": large}

    def on_validation_start(self) -> None:
        gc.collect()
        self.seen.append(" ".join(name for name, what in self.given.items() if what() is not None))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("moves", [False, True], ids=["as it came", "moved"])
@pytest.mark.parametrize("train", [lambda: loader(4), stream, own_batches, lambda: [loader(4), loader(4)]])
def test_nothing_holds_the_last_training_batch_while_validation_runs(train: Any, moves: bool) -> None:
    model = Held(moves)
    off = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, val_check_interval=2, num_sanity_val_steps=0, enable_model_summary=False, **off)
    trainer.fit(model, train(), loader(1))
    assert model.seen == ["", "", ""]


def test_what_the_epochs_end_logs_is_weighed_by_the_last_batch_also_after_a_validation() -> None:
    class Ends(Held):
        def on_train_epoch_end(self) -> None:
            self.log("end", 0.9)  # 0.9 * 3 / 3 is not 0.9

    off = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    seen = []
    for validates in (0, 1):
        trainer = Trainer(max_epochs=1, limit_val_batches=validates, enable_model_summary=False, **off)
        trainer.fit(Ends(False), DataLoader(torch.ones(9, 2), 3), loader(1))
        seen.append(trainer.callback_metrics["end"])
    assert torch.equal(*seen) and seen[0] != torch.tensor(0.9)
