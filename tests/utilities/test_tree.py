from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from fulgurite.utilities.tree import apply_to_collection, move_data_to_device, recursive_detach

Point = namedtuple("Point", "x y")


@dataclass
class Item:
    value: Any
    name: str = "n"


@dataclass(frozen=True)
class Frozen:
    value: Any


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: [x, "a"],
        lambda x: (x, None),
        lambda x: {"a": x, 2: [x]},
        lambda x: Point(x, 3),
        lambda x: OrderedDict(b=x),
        lambda x: defaultdict(list, b=x),
        lambda x: Item(x),
        lambda x: Frozen([x]),
    ],
)
def test_leaves_change_and_collections_keep_their_types(wrap: Any) -> None:
    moved = apply_to_collection(wrap(0.5), float, lambda x: x + 1)
    assert moved == wrap(1.5) and type(moved) is type(wrap(0.5))


def test_the_original_stays() -> None:
    item = Item([1])
    assert apply_to_collection(item, int, str) == Item(["1"])
    assert item == Item([1])


def test_some_types_can_be_excepted_and_none_left_out() -> None:
    assert apply_to_collection([1, True], int, str, wrong_dtype=bool) == ["1", True]
    assert apply_to_collection({"a": 1, "b": "x"}, int, lambda x: None, include_none=False) == {"b": "x"}


def test_objects_are_kept() -> None:
    thing = object()
    assert apply_to_collection([thing, "text", {1, 2}, range(2)], Tensor, lambda t: t)[0] is thing


def test_tensors_and_movable_objects_move() -> None:
    class Movable:
        def to(self, device: Any) -> None:
            self.device = device

    movable = Movable()
    batch = move_data_to_device({"t": torch.zeros(1), "m": movable, "s": "text", "c": Movable}, "meta")
    assert batch["t"].device.type == "meta"
    assert batch["m"] is movable and movable.device == "meta"  # `to` that returns nothing worked in place
    assert batch["c"] is Movable


def test_a_packed_sequence_moves_as_a_whole() -> None:
    packed = pack_sequence([torch.zeros(2)])
    assert type(move_data_to_device(packed, torch.device("cpu"))) is type(packed)


def test_detach() -> None:
    x = torch.ones(1, requires_grad=True)
    assert not recursive_detach({"a": [x * 2]}, to_cpu=True)["a"][0].requires_grad
