from __future__ import annotations

import pytest
import torch
from torch import nn

from fulgurite.utilities.grads import grad_norm


@pytest.mark.parametrize(
    ("norm", "weight", "total"), [(1, 4.0, 6.0), (2.0, 2.0, 6**0.5), ("inf", 1.0, 1.0), (float("inf"), 1.0, 1.0)]
)
def test_norms_of_each_and_of_all(norm: float | str, weight: float, total: float) -> None:
    module = nn.Linear(2, 2)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    norms = grad_norm(module, norm)
    name = f"grad_{float(norm)}_norm"
    assert list(norms) == [f"{name}/weight", f"{name}/bias", f"{name}_total"]
    assert norms[f"{name}/weight"] == weight and norms[f"{name}_total"].item() == pytest.approx(total)
    assert f"{name}.bias" in grad_norm(module, norm, group_separator=".")


def test_without_gradients_there_is_nothing() -> None:
    assert grad_norm(nn.Linear(1, 1), 2) == {}


def test_a_norm_is_positive() -> None:
    with pytest.raises(ValueError, match="norm_type=0.0 is not a norm"):
        grad_norm(nn.Linear(1, 1), 0)
