from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from fulgurite.utilities import data, rank_zero
from fulgurite.utilities.data import extract_batch_size, has_len, sized_len, suggested_max_num_workers


@dataclass
class Batch:
    x: torch.Tensor
    label: int = 1


class Endless(IterableDataset[int]):
    def __iter__(self) -> Any:
        yield from iter(int, 1)


class Declared(Endless):
    def __len__(self) -> int:
        return 12


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(3, 2), 3),
        (torch.zeros(()), 1),
        ({"name": "text", "x": torch.zeros(4, 1)}, 4),
        ([["a", None], torch.zeros(5)], 5),
        (Batch(torch.zeros(6)), 6),
        ([{"a": torch.zeros(2)}, {"a": torch.ones(2)}], 2),
    ],
)
def test_the_first_tensor_tells_the_size(batch: Any, size: int) -> None:
    assert extract_batch_size(batch) == size


def test_an_ambiguous_size_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero, "_warned", set())
    with pytest.warns(UserWarning, match=r"ambiguous.*weigh this batch with 2.*batch_size=") as caught:
        assert extract_batch_size([torch.zeros(2), torch.zeros(3)]) == 2
        assert extract_batch_size([torch.zeros(4), torch.zeros(3)]) == 4
    assert len(caught) == 1


@pytest.mark.parametrize("batch", [5, "text", [], {"a": None}, iter([torch.zeros(1)])])
def test_a_batch_without_tensors_asks_for_its_size(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"holds no tensor.*batch_size="):
        extract_batch_size(batch)


def test_an_iterator_is_not_used_up() -> None:
    batch = iter([1, 2])
    with warnings.catch_warnings(), pytest.raises(ValueError):
        extract_batch_size(batch)
    assert list(batch) == [1, 2]


def test_a_length_is_what_the_loader_declares() -> None:
    assert sized_len(DataLoader(list(range(5)), batch_size=2)) == 3  # type: ignore[arg-type]
    assert sized_len(DataLoader(Declared())) == 12
    assert sized_len(DataLoader(Endless())) is None
    assert sized_len(iter([1])) is None
    assert has_len([1]) and not has_len(Endless())


def test_workers_leave_a_core_to_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [suggested_max_num_workers(n) for n in (1, 2, 8, 100)] == [7, 3, 1, 1]
    with pytest.raises(ValueError, match="local_world_size=0"):
        suggested_max_num_workers(0)
