"""What becomes of the loaders that a user hands over: their samplers, their workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fulgurite.utilities import CombinedLoader
from helpers.counting import Counting, fit, loader


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
