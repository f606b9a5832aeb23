"""Manual optimization on several processes ends as on one, whatever is done with gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.by_hand import QUICK, WAYS, trained
from helpers.processes import run_ranks

pytestmark = [pytest.mark.multi]

SCRIPT = "from helpers.by_hand import trained\nanswer({way: trained(way, WORLD_SIZE) for way in %r})"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    known: dict[Any, Any] = {}

    def of(ways: list[str], world: int) -> Any:
        key = len(ways), world
        if key not in known:
            known[key] = run_ranks(SCRIPT % ways, world, tmp_path_factory.mktemp("ranks"))
        return known[key]

    return of


def check(way: str, ranks: Any) -> None:
    assert all(torch.equal(ranks[0][way], weights[way]) for weights in ranks)
    close = 1e-8 if way == "line_search" else 1e-12  # which decides by comparing, and so enlarges what is rounded
    torch.testing.assert_close(ranks[0][way], trained(way, 1), rtol=0, atol=close)


@pytest.mark.slow
@pytest.mark.parametrize("way", QUICK)
def test_two_processes_optimize_by_hand_as_one(way: str, several: Any) -> None:
    check(way, several(QUICK, 2))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_optimizing_by_hand(way: str, world: int, several: Any) -> None:
    check(way, several(WAYS, world))
