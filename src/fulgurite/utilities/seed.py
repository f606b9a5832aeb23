"""Random numbers: one seed for all sources, and their states as data that a checkpoint can hold."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

_LARGEST_SEED = 2**32 - 1  # numpy's legacy generator takes no more


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:
    """Seed Python, NumPy (if installed) and torch on every device.

    Args:
        seed: without one, $PL_GLOBAL_SEED is used, or 0 with a warning.
        workers: also give each worker process of each DataLoader a seed of its own.
        verbose: say which seed was set.
    """
    if seed is None:
        seed = _seed_from_environment()
    seed = int(seed)
    if not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"seed={seed} is out of range: NumPy takes seeds from 0 to {_LARGEST_SEED}. Choose another.")
    if verbose:
        rank_zero_info(f"Seed set to {seed}")
    os.environ["PL_GLOBAL_SEED"] = str(seed)  # processes started from here on seed themselves alike
    os.environ["PL_SEED_WORKERS"] = str(int(workers))
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        import numpy as np
    except ImportError:
        return seed
    np.random.seed(seed)
    return seed


def _seed_from_environment() -> int:
    given = os.environ.get("PL_GLOBAL_SEED")
    if given is None:
        rank_zero_warn("seed_everything() found no seed, neither given nor in $PL_GLOBAL_SEED; it uses 0.")
        return 0
    try:
        return int(given)
    except ValueError as error:
        raise ValueError(f"$PL_GLOBAL_SEED={given!r} is not a whole number. Set it to one, or unset it.") from error


def reset_seed() -> None:
    """Go back to the seed that `seed_everything` set, if it was called."""
    if seed := os.environ.get("PL_GLOBAL_SEED"):
        seed_everything(int(seed), workers=os.environ.get("PL_SEED_WORKERS", "0") == "1", verbose=False)


def pl_worker_init_function(worker_id: int, rank: int | None = None) -> None:
    """`worker_init_fn` of a DataLoader: other random numbers in each worker of each process, from one base seed."""
    rank = rank_zero_only.rank if rank is None else rank
    base_seed = torch.initial_seed() - worker_id  # torch adds the worker's number itself
    draw = random.Random((base_seed << 32) | (worker_id << 16) | rank)
    torch.manual_seed(draw.getrandbits(64))
    random.seed(draw.getrandbits(64))
    if (np := sys.modules.get("numpy")) is not None:
        np.random.seed(draw.getrandbits(32))


def collect_rng_state() -> dict[str, Any]:
    """Every source's state as numbers and tensors, loadable with `weights_only=True`."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if (np := sys.modules.get("numpy")) is not None:
        name, keys, *rest = np.random.get_state()
        state["numpy"] = (name, keys.tolist(), *rest)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # asking must not claim a device
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Put every source back to a collected state."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "numpy" in state and (np := sys.modules.get("numpy")) is not None:
        np.random.set_state(tuple(state["numpy"]))
    if "cuda" in state and torch.cuda.is_available():
        for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state.cpu(), device)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())


@contextmanager
def isolate_rng(include_cuda: bool = True) -> Generator[None, None, None]:
    """What is drawn inside leaves no trace outside."""
    state = collect_rng_state()
    if not include_cuda:
        state.pop("cuda", None)
    try:
        yield
    finally:
        restore_rng_state(state)
