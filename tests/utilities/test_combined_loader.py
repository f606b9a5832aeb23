from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from fulgurite.utilities.combined_loader import CombinedLoader

Pair = namedtuple("Pair", "a b")


class Unsized(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


def batches(loader: CombinedLoader) -> list[Any]:
    return [batch for batch, _, _ in loader]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("min_size", [{"a": 0, "b": "x"}, {"a": 1, "b": "y"}]),
        ("max_size", [{"a": 0, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": None}]),
        ("max_size_cycle", [{"a": 0, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}]),
        ("sequential", [0, 1, 2, "x", "y"]),
    ],
)
def test_modes(mode: Any, expected: list[Any]) -> None:
    loader = CombinedLoader({"a": range(3), "b": ["x", "y"]}, mode)
    assert batches(loader) == expected
    assert batches(loader) == expected, "it can be iterated again"
    assert len(loader) == len(expected)


def test_items_say_which_batch_of_which_loader() -> None:
    assert list(CombinedLoader([range(2), range(1)], "sequential")) == [(0, 0, 0), (1, 1, 0), (0, 0, 1)]
    assert list(CombinedLoader([range(2), range(2)])) == [([0, 0], 0, 0), ([1, 1], 1, 0)]


@pytest.mark.parametrize(
    ("loaders", "first"),
    [
        (range(2), 0),
        ({"a": {"x": range(2)}, "b": (range(2), [range(2)])}, {"a": {"x": 0}, "b": (0, [0])}),
        (Pair(range(2), range(1)), Pair(0, 0)),
    ],
)
def test_batches_come_in_the_collection_of_the_loaders(loaders: Any, first: Any) -> None:
    assert batches(CombinedLoader(loaders))[0] == first


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle", "sequential"])
def test_nothing_to_iterate(mode: Any) -> None:
    assert list(CombinedLoader([], mode)) == list(CombinedLoader({}, mode)) == []
    assert len(CombinedLoader({}, mode)) == 0


def test_an_empty_loader_cannot_be_started_again() -> None:
    with pytest.raises(ValueError, match="loader 1 has no batches"):
        list(CombinedLoader([range(2), []], "max_size_cycle"))


@pytest.mark.parametrize(
    ("mode", "count"), [("min_size", 1), ("max_size", 3), ("max_size_cycle", 3), ("sequential", 4)]
)
def test_limits_hold_in_every_mode(mode: Any, count: int) -> None:
    loader = CombinedLoader({"a": range(9), "b": range(9)}, mode)
    loader.limits = [3, 1]
    assert len(loader) == count == len(list(loader))
    loader.limits = 0
    assert len(loader) == 0 and not list(loader)


def test_a_length_needs_that_of_each_loader() -> None:
    loaders = [DataLoader(Unsized()), range(2)]
    assert len(CombinedLoader(loaders, "min_size")) == 2
    with pytest.raises(TypeError, match="has no length"):
        len(CombinedLoader(loaders, "max_size"))
    limited = CombinedLoader(loaders, "max_size")
    limited.limits = 2
    assert len(limited) == 2


def test_loaders_can_be_replaced() -> None:
    loader = CombinedLoader({"a": range(1), "b": range(1)})
    loader.flattened = [range(5, 7), range(7, 9)]
    assert loader.iterables == {"a": range(5, 7), "b": range(7, 9)}
    assert batches(loader) == [{"a": 5, "b": 7}, {"a": 6, "b": 8}]
    with pytest.raises(ValueError, match="1 loaders cannot replace 2"):
        loader.flattened = [range(1)]


def test_an_unknown_mode_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"mode='longest' is not one of 'min_size'"):
        CombinedLoader([], "longest")  # type: ignore[arg-type]


def test_an_ordered_dictionary_of_loaders_yields_ordered_dictionaries() -> None:
    assert type(next(iter(CombinedLoader(OrderedDict(a=[1], b=[2]))))[0]) is OrderedDict


def test_loaders_open_when_iteration_begins() -> None:
    opened = []

    class Loader:
        def __iter__(self) -> Any:
            opened.append(self)
            return iter([1])

    iter(CombinedLoader([Loader(), Loader()]))
    assert len(opened) == 2
    iter(CombinedLoader([Loader(), Loader()], "sequential"))
    assert len(opened) == 3, "the second opens when its turn comes"
