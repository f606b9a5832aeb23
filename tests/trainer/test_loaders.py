"""What becomes of the loaders that a user hands over: their samplers, their workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
    get_worker_info,
)

import fulgurite as pl
from fulgurite.utilities import CombinedLoader
from helpers.counting import QUIET, Counting, fit, loader


class Backwards(Sampler[int]):
    """A sampler of the user's own: whether a batch is the last is not known from its length."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.epochs = size, []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        return reversed(range(self.size))

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize("mode", ["sequential", "min_size", "max_size", "max_size_cycle"])
def test_samplers_of_combined_evaluation_loaders_hear_of_the_epoch(mode: Any) -> None:
    samplers = [Backwards(4), Backwards(6)]

    class Two(Counting):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None: ...

    fit(Two(), val=CombinedLoader([DataLoader(torch.ones(6, 2), sampler=s) for s in samplers], mode), max_epochs=2)
    assert [sampler.epochs for sampler in samplers] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(("mode", "batches"), [("min_size", 2), ("max_size", 3), ("max_size_cycle", 3)])
def test_combined_evaluation_loaders_yield_collections(mode: Any, batches: int) -> None:
    class Sees(Counting):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.calls.append(f"v{len([part for part in batch if part is not None])}")

    _, model = fit(Sees(), val=CombinedLoader([loader(2), loader(3)], mode))
    assert model.seen("v") == " ".join(["v2", "v2", "v1" if mode == "max_size" else "v2"][:batches])


class Workers(Dataset[torch.Tensor]):
    """Items that say by which process they were loaded, and which they are."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.tensor([float(os.getpid()), float(i)])


class Reads(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.workers: set[float] = set()
        self.order: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.workers.update(batch[:, 0].tolist())
        self.order += [int(i) for i in batch[:, 1]]
        return self.layer(batch / 1e6).mean()


def test_persistent_workers_live_on_from_epoch_to_epoch_whatever_the_sampler() -> None:
    data = DataLoader(Workers(), 2, sampler=Backwards(4), num_workers=1, persistent_workers=True)
    _, model = fit(Reads(), data, max_epochs=3, limit_val_batches=0)
    assert model.order == [3, 2, 1, 0] * 3 and len(model.workers) == 1


def test_a_loader_with_persistent_workers_may_have_been_iterated_before() -> None:
    data = DataLoader(Workers(), 2, sampler=Backwards(4), num_workers=1, persistent_workers=True)
    assert len(list(data)) == 2
    _, model = fit(Reads(), data, max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    assert model.order == [3, 2] * 2


@pytest.mark.parametrize("flags", [{"max_epochs": 2}, {"max_epochs": 0}, {"max_steps": 0}], ids=str)
@pytest.mark.parametrize("raises", [False, True])
def test_no_worker_outlives_the_run(flags: dict[str, Any], raises: bool) -> None:
    class Fails(Reads):
        def on_train_batch_end(self, *_: Any) -> None:
            if raises:
                raise ZeroDivisionError

    before = set(multiprocessing.active_children())
    given = [DataLoader(Workers(), 2, sampler=s, num_workers=1, persistent_workers=True) for s in (Backwards(4), None)]
    with contextlib.suppress(ZeroDivisionError):
        fit(Fails(), given[0], given[1], **flags)
    assert set(multiprocessing.active_children()) <= before


def test_only_training_and_validation_are_put_in_order_by_overfitting() -> None:
    with pytest.warns(UserWarning, match="the train loader's Backwards is replaced"):
        trainer, _ = fit(Counting(), DataLoader(torch.ones(4, 2), 2, sampler=Backwards(4)), overfit_batches=1)
    shown = trainer.predict(Shown(), DataLoader(torch.arange(4.0), 2, sampler=Backwards(4)))
    assert torch.cat(shown).tolist() == [3, 2, 1, 0]


class Shown(Counting):
    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return batch


class Draws(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> torch.Tensor:
        drawn = [float(torch.rand(())), random.random(), float(np.random.rand())]
        return torch.tensor([float(i), *drawn, float(get_worker_info().seed % 2**20)])


class Keeps(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[float]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen += batch.tolist()
        return self.layer(batch[:, :2]).mean()


@pytest.mark.parametrize("workers", [1, 2])
def test_persistent_workers_draw_as_those_of_each_epoch_do(workers: int) -> None:
    seen = []
    for persistent in (True, False):
        torch.manual_seed(5)
        data = DataLoader(Draws(), 2, shuffle=True, num_workers=workers, persistent_workers=persistent)
        seen.append(fit(Keeps(), data, max_epochs=3, limit_val_batches=0)[1].seen)
    assert seen[0] == seen[1] and len({tuple(row) for row in seen[0]}) == 12


@pytest.mark.parametrize(
    ("reload", "every", "train", "val"),
    [(4, 3, [0, 4, 8], [2, 8]), (3, 2, [0, 3, 6, 9], [1, 5, 9]), (2, 4, [0, 2, 4, 6, 8], [3, 7]), (0, 1, [0], [0])],
)
@pytest.mark.parametrize("stop", [None, 2, 3, 4, 7])
def test_loaders_are_made_anew_in_the_same_epochs_of_a_resumed_run(
    reload: int, every: int, train: list[int], val: list[int], stop: int | None, tmp_path: Any
) -> None:
    class Asked(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.at: dict[str, list[int]] = {"train": [], "val": []}

        def train_dataloader(self) -> Any:
            self.at["train"].append(self.trainer.current_epoch)
            return loader(1)

        def val_dataloader(self) -> Any:
            self.at["val"].append(self.trainer.current_epoch)
            return loader(1)

    def asked(epochs: int, ckpt_path: Any = None) -> dict[str, list[int]]:
        model = Asked()
        flags = {"reload_dataloaders_every_n_epochs": reload, "check_val_every_n_epoch": every}
        trainer = pl.Trainer(**QUIET, max_epochs=epochs, num_sanity_val_steps=0, **flags)
        trainer.fit(model, ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "stopped.ckpt")
        return model.at

    if stop is None:
        assert asked(10) == {"train": train, "val": val}
        return
    asked(stop)
    later = asked(10, tmp_path / "stopped.ckpt")
    assert [epoch for epoch in later["train"] if epoch > stop] == [epoch for epoch in train if epoch > stop]
    assert later["train"].count(stop) == 1  # those of the resumed run, also where it is their turn
    due = [epoch for epoch in val if epoch >= stop]
    assert [epoch for epoch in later["val"] if epoch in val] == due and len(later["val"]) <= len(due) + 1


class Marks(Sampler[int]):
    """Counts how often it was walked over, and draws."""

    def __init__(self) -> None:
        self.walks, self.orders, self.own = 0, [[0]], random.Random(3)

    def __iter__(self) -> Iterator[int]:
        self.walks += 1
        self.orders.append(torch.randperm(4).tolist())
        self.own.random()
        yield from self.orders[-1]

    def __len__(self) -> int:
        return 4


class Position(IterableDataset[torch.Tensor]):
    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.start = float(torch.rand(()))
        while self.at < 8:
            self.at += 1
            yield torch.full((2,), float(self.at))
        self.at = 0


class Bare:
    """The same without being a data set."""

    __init__, __iter__ = Position.__init__, Position.__iter__


@pytest.mark.parametrize("kind", ["sampler", "iterable", "combined", "persistent", "bare iterable"])
def test_the_sanity_check_leaves_no_trace_in_a_loader(kind: str) -> None:
    def validated(steps: int) -> list[Any]:
        class Model(Counting):
            def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
                if not self.trainer.sanity_checking:
                    seen.append(batch[0].tolist() if isinstance(batch, list) else batch.tolist())

        seen: list[Any] = []
        torch.manual_seed(1)
        marks, position = Marks(), Bare() if kind == "bare iterable" else Position()
        loaders: dict[str, Any] = {
            "sampler": lambda: DataLoader(torch.arange(8.0).view(4, 2), 2, sampler=marks),
            "iterable": lambda: DataLoader(position, 2),
            "bare iterable": lambda: position,
            "combined": lambda: CombinedLoader([DataLoader(position, 2), DataLoader(torch.ones(4, 2), 2)], "max_size"),
            "persistent": lambda: DataLoader(Draws(), 2, shuffle=True, num_workers=1, persistent_workers=True),
        }
        fit(Model(), loader(2), loaders[kind](), max_epochs=2, num_sanity_val_steps=steps)
        state = [marks.walks, marks.orders, marks.own.getstate(), position.at, getattr(position, "start", 0)]
        return [*seen, state, torch.rand(3).tolist()]

    assert validated(0) == validated(1)


@pytest.mark.parametrize("kind", ["drop_last", "batch_sampler", "iterable"])
def test_predict_leaves_no_sample_out(kind: str) -> None:
    class Five(IterableDataset[torch.Tensor]):
        def __iter__(self) -> Iterator[torch.Tensor]:
            return iter(torch.arange(5.0))

    rows = torch.arange(5.0)
    loaders = {
        "drop_last": lambda: DataLoader(rows, 2, drop_last=True),
        "batch_sampler": lambda: DataLoader(rows, batch_sampler=BatchSampler(SequentialSampler(rows), 2, True)),
        "iterable": lambda: DataLoader(Five(), 2, drop_last=True),
    }
    assert torch.cat(pl.Trainer(**QUIET).predict(Shown(), loaders[kind]())).tolist() == rows.tolist()


@pytest.mark.filterwarnings("ignore:overfit_batches")
def test_overfit_batches_shows_the_loaders_it_iterates_over_also_of_a_list() -> None:
    data = [DataLoader(torch.ones(4, 2), 2, shuffle=True), DataLoader(torch.ones(6, 2), 2, shuffle=True)]

    class Two(Counting):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.layer(batch[0]).mean()

    trainer, _ = fit(Two(), data, overfit_batches=1)
    assert [type(part.sampler) for part in trainer.train_dataloader] == [SequentialSampler] * 2
