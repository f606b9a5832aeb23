from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fulgurite.core.module import LightningModule
from fulgurite.utilities.model_summary import get_human_readable_count, parse_batch_shape, summarize


class Model(LightningModule):
    def __init__(self, example: Any = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.ones(3))
        self.head.weight.requires_grad = False
        self.encoder[1].eval()
        self.example_input_array = example

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert not self.training, "sizes are measured in eval mode"
        return self.head(self.encoder(x))


def test_the_table() -> None:
    assert str(summarize(Model(torch.zeros(6, 4)))).splitlines() == [
        "  | Name         | Type       | Params | Mode  | FLOPs | In sizes | Out sizes",
        "-" * 77,
        "0 | encoder      | Sequential | 40     | train | 384   | [6, 4]   | [6, 8]   ",
        "1 | head         | Linear     | 18     | train | 192   | [6, 8]   | [6, 2]   ",
        "  | other params | n/a        | 3      | n/a   | n/a   | n/a      | n/a      ",
        "-" * 77,
        "45        Trainable params",
        "16        Non-trainable params",
        "61        Total params",
        "0.000     Total estimated model params size (MB)",
        "3         Modules in train mode",
        "1         Modules in eval mode",
        "576       Total Flops",
    ]


@pytest.mark.parametrize(
    ("depth", "names"), [(0, []), (1, ["encoder", "head"]), (-1, ["encoder", "encoder.0", "encoder.1", "head"])]
)
def test_depth(depth: int, names: list[str]) -> None:
    summary = summarize(Model(), max_depth=depth)
    assert summary.layer_names == names
    assert summary.leftover_parameters == (61 if depth == 0 else 3)


@pytest.mark.parametrize("depth", [-2, 1.5, "x"])
def test_a_depth_that_means_nothing(depth: Any) -> None:
    with pytest.raises(ValueError, match="max_depth=.* can be -1"):
        summarize(Model(), max_depth=depth)


@pytest.mark.parametrize(
    "example", [{"x": torch.zeros(6, 4)}, (torch.zeros(6, 4), torch.zeros(1)), [torch.zeros(6, 4)]]
)
def test_examples_of_several_inputs(example: Any) -> None:
    model = Model(example)
    assert summarize(model).in_sizes == [[6, 4], [6, 8]]
    assert [m.training for m in model.modules()] == [True, True, True, False, True], "modes are as before"
    assert not model.encoder._forward_hooks


def test_shared_parameters_count_once() -> None:
    model = Model()
    model.head = model.encoder[0]
    summary = summarize(model)
    assert (summary.total_parameters, summary.leftover_parameters) == (43, 3)
    assert summary.model_size == 43 * 4 / 1e6


def test_layers_without_a_size_yet() -> None:
    class Lazy(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LazyLinear(2)

    with pytest.warns(UserWarning, match="count as 0 parameters"):
        assert summarize(Lazy()).param_nums == [0]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 K"),
        (1299, "1.2 K"),
        (999_999, "999 K"),
        (10**9, "1.0 B"),
        (10**15, "1,000 T"),
    ],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert get_human_readable_count(number) == text


def test_shapes() -> None:
    assert parse_batch_shape([torch.zeros(1, 2), (torch.zeros(3),), "x"]) == [[1, 2], [[3]], "?"]


def test_what_a_layer_gets_by_name_has_its_size_too() -> None:
    class Pair(nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return ids

    class Named(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()
            self.example_input_array = {"ids": torch.zeros(2, 7), "mask": torch.zeros(2, 1, 7)}

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.pair(ids, mask=mask)

    assert summarize(Named()).in_sizes == [[[2, 7], [2, 1, 7]]]
