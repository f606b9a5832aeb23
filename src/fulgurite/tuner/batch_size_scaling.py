"""The batch-size search: larger and larger batches until memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fulgurite import loop
from fulgurite.tuner.trial import trial
from fulgurite.utilities.combined_loader import loaders_of
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.memory import garbage_collection_cuda
from fulgurite.utilities.parsing import Setting

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer

MODES = ("power", "binsearch")
_OUT_OF_MEMORY = (
    "out of memory",  # CUDA's, and its libraries'
    "CUDNN_STATUS_NOT_SUPPORTED",  # cuDNN's way to say it
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # the CPU's
    "not enough memory",
)


@dataclass(frozen=True)
class Plan:
    """How to search, as the arguments of `Tuner.scale_batch_size` say."""

    mode: str = "power"
    steps_per_trial: int = 3
    init_val: int = 2
    max_trials: int = 25
    margin: float = 0.05
    max_val: int = 8192

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MisconfigurationException(f"mode={self.mode!r} is not one of {', '.join(map(repr, MODES))}.")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin={self.margin}: it is a part of the batch size, from 0 to below 1.")
        for name in ("steps_per_trial", "init_val", "max_trials", "max_val"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: it is a whole number of 1 or more.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def loaders_were_passed(name: str) -> MisconfigurationException:
    """Loaders that exist already have their batch size."""
    return MisconfigurationException(
        "a batch size is found by making the loaders anew, and they were passed ready-made. Define train_dataloader "
        f"(val_dataloader, ...) in the module or a data module, with DataLoader(..., batch_size=self.{name})."
    )


def largest(plan: Plan, fits: Callable[[int], bool], rows: Callable[[], float]) -> int:
    """The largest batch size that `fits`; `rows`, known once a size was tried, is the most that makes sense."""
    good: int = 0
    bad: float = math.inf
    size = min(plan.init_val, plan.max_val)
    for _ in range(plan.max_trials):
        if fits(size):
            good = size
        else:
            bad = size
        most = min(plan.max_val, rows())
        if good >= most or bad - good <= 1 or (plan.mode == "power" and good and bad < math.inf):
            break
        if bad == math.inf:
            size = int(min(2 * good, most))
        elif plan.mode == "power":
            size = int(bad // 2)  # the first size was too large already
        else:
            size = int((good + bad) // 2)
    if not good:
        raise RuntimeError(f"memory ran out with every batch size tried, down to {bad}; there is none that fits.")
    return max(1, int(good * (1 - plan.margin))) if plan.mode == "binsearch" else good


def search(trainer: Trainer, plan: Plan, tuned: Setting, stage: str | None) -> int:
    """Find the size for fit (stage None) or for an evaluation, beside the run that is under way."""
    before, rows, seen = tuned.value, math.inf, {}

    def fits(size: int) -> bool:
        nonlocal rows
        tuned.set(size)
        outcome, rows, seen[size] = _try(trainer, plan.steps_per_trial, stage)
        _check_effect(tuned.name, seen)
        return outcome

    try:
        return largest(plan, fits, lambda: rows)
    finally:
        tuned.set(before)


def _try(trainer: Trainer, steps: int, stage: str | None) -> tuple[bool, float, int | None]:
    """One trial: whether it went well, how many rows there are, and the batch size that its loader says it has."""
    outcome = True
    with trial(trainer, [], steps) as run:
        try:
            if stage is None:
                loop.fit(run)
            elif run.data.open_evaluation(stage):
                loop.evaluate(run, stage, steps)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            outcome = False
        loaders = loaders_of(run.data.train) if stage is None else run.data.evaluation.get(stage, [])
    garbage_collection_cuda()
    return outcome, _rows(loaders), getattr(loaders[0], "batch_size", None) if len(loaders) == 1 else None


def _rows(loaders: list[Any]) -> float:
    """The rows of the largest data set; inf where they are not known."""
    try:
        return max(len(loader.dataset) for loader in loaders)
    except (AttributeError, TypeError, ValueError):
        return math.inf


def _check_effect(name: str, seen: dict[int, int | None]) -> None:
    """Loaders that keep their batch size whatever is set would make every size look as good as the last."""
    (first, has), (last, has_now) = next(iter(seen.items())), list(seen.items())[-1]
    if first != last and has is not None and has == has_now:
        raise MisconfigurationException(
            f"with {name}={first} and with {name}={last} the loader has batch_size={has}: it does not use {name}. "
            f"Write DataLoader(..., batch_size=self.{name})."
        )
