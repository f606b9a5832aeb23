from __future__ import annotations

import os
import random
import sys

import pytest
import torch

from fulgurite.utilities.seed import (
    collect_rng_state,
    isolate_rng,
    pl_worker_init_function,
    reset_seed,
    restore_rng_state,
    seed_everything,
)


def draws() -> list[float]:
    values = [random.random(), torch.rand(1).item()]
    if (np := sys.modules.get("numpy")) is not None:
        values.append(np.random.rand())
    return values


def test_one_seed_for_all_sources() -> None:
    assert seed_everything(7, verbose=False) == 7
    first = draws()
    seed_everything(8, verbose=False)
    assert draws() != first
    seed_everything("7", verbose=False)  # type: ignore[arg-type]  # command lines give text
    assert draws() == first
    assert os.environ["PL_GLOBAL_SEED"] == "7" and os.environ["PL_SEED_WORKERS"] == "0"


def test_without_a_seed_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    assert seed_everything(verbose=False) == 12


def test_without_any_seed_it_is_0_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    with pytest.warns(UserWarning, match="found no seed"):
        assert seed_everything(verbose=False) == 0


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_numpy_would_refuse_is_refused_first(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed={seed} is out of range"):
        seed_everything(seed)


def test_a_seed_in_the_environment_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "many")
    with pytest.raises(ValueError, match="'many' is not a whole number"):
        seed_everything()


def test_reset_goes_back_to_the_seed() -> None:
    seed_everything(3, workers=True, verbose=False)
    first = draws()
    reset_seed()
    assert draws() == first
    assert os.environ["PL_SEED_WORKERS"] == "1"


def test_what_is_drawn_in_isolation_leaves_no_trace() -> None:
    seed_everything(1, verbose=False)
    expected = draws()
    seed_everything(1, verbose=False)
    with isolate_rng():
        draws()
    assert draws() == expected


def test_states_survive_a_safe_file() -> None:
    state = collect_rng_state()
    expected = draws() + [random.gauss(0, 1)]
    torch.save(state, "rng.pt")
    restore_rng_state(torch.load("rng.pt", weights_only=True))
    assert draws() + [random.gauss(0, 1)] == expected


def test_each_worker_of_each_rank_draws_its_own() -> None:
    def drawn(worker: int, rank: int) -> tuple[float, ...]:
        torch.manual_seed(100 + worker)
        pl_worker_init_function(worker, rank)
        return tuple(draws())

    places = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert len({drawn(*place) for place in places}) == 4
    assert drawn(1, 1) == drawn(1, 1)


@pytest.mark.gpu
def test_cuda_draws_are_restored() -> None:
    torch.rand(1, device="cuda")
    state = collect_rng_state()
    expected = torch.rand(3, device="cuda")
    restore_rng_state(state)
    assert torch.equal(torch.rand(3, device="cuda"), expected)
