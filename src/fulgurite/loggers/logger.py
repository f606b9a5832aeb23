"""The base class of loggers: where the numbers of a run go."""

from __future__ import annotations

import argparse
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fulgurite.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fulgurite.callbacks.model_checkpoint import ModelCheckpoint

T = TypeVar("T")


class Logger(ABC):
    """Say where metrics and hyper-parameters go; the trainer calls these at its rhythm."""

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The experiment's name."""

    @property
    @abstractmethod
    def version(self) -> int | str | None:
        """Which run of the experiment this is."""

    @property
    def root_dir(self) -> str | None:
        """The folder that holds all versions of the experiment."""
        return None

    @property
    def log_dir(self) -> str | None:
        """The folder of this version."""
        return None

    @property
    def save_dir(self) -> str | None:
        """The folder under which everything local is written; None where nothing is."""
        return None

    @property
    def group_separator(self) -> str:
        """Stands between the parts of a metric's name that loggers group by."""
        return "/"

    @abstractmethod
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take one row of numbers."""

    @abstractmethod
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """Take the hyper-parameters of the run."""

    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:  # noqa: B027  # for those who can
        """Take the model's graph, where the logger can show one."""

    def save(self) -> None:  # noqa: B027  # for those who can
        """Bring what was logged to its place."""

    def finalize(self, status: str) -> None:
        """The run is over: "success", "failed" or "aborted"."""
        self.save()

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:  # noqa: B027  # for those who can
        """A checkpoint callback has written a file."""

    def take_version(self) -> None:  # noqa: B027  # for those who number their runs
        """A run begins, and has a version for itself from now on; called by process 0 before it tells the others."""

    def resume_from_step(self, step: int) -> None:  # noqa: B027  # for those who can
        """The run goes on after `step` optimizer steps: what was logged for later ones will be logged again."""


class DummyExperiment:
    """Swallows whatever is called on it."""

    def nop(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):  # pickle and copy ask for these, and must be told the truth
            raise AttributeError(name)
        return self.nop

    def __getitem__(self, _: int) -> DummyExperiment:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())  # else Python asks for item after item, without end

    def __setitem__(self, *args: Any) -> None: ...


class DummyLogger(Logger):
    """Stands in for the real loggers in `fast_dev_run`: user code may call anything on it."""

    def __init__(self) -> None:
        self._experiment = DummyExperiment()

    @property
    def experiment(self) -> DummyExperiment:
        return self._experiment

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def __getitem__(self, _: int) -> DummyLogger:
        return self

    def __iter__(self) -> Iterator[DummyLogger]:
        return iter((self,))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):  # as above
            raise AttributeError(name)
        return self._experiment.nop


def rank_zero_experiment(fn: Callable[[Any], T]) -> Callable[[Any], T | DummyExperiment]:
    """Make an `experiment` getter that gives the real thing on rank 0 and one that swallows everything elsewhere."""

    @functools.wraps(fn)
    def experiment(self: Any) -> T | DummyExperiment:
        return fn(self) if rank_zero_only.rank == 0 else DummyExperiment()

    return experiment


def with_prefix(metrics: Mapping[str, T], prefix: str, joint: str) -> dict[str, T]:
    """Put the logger's prefix before each name."""
    return {f"{prefix}{joint}{name}" if prefix else name: value for name, value in metrics.items()}


def plain(name: str, value: Any) -> Any:
    """A metric without its tensor."""
    if not hasattr(value, "detach"):
        return value
    if value.numel() != 1:
        raise ValueError(
            f"the metric {name!r} is a tensor of shape {tuple(value.shape)}; loggers take single numbers. Reduce it, "
            "or log its parts under names of their own."
        )
    return value.item()


def as_dict(params: Mapping[str, Any] | argparse.Namespace | None) -> dict[str, Any]:
    """Hyper-parameters in any of the shapes users pass."""
    if params is None:
        return {}
    return vars(params) if isinstance(params, argparse.Namespace) else dict(params)


def flat(params: Mapping[Any, Any], joint: str = "/") -> dict[str, Any]:
    """Nested dictionaries as one, their keys joined: {"optim": {"lr": 1}} -> {"optim/lr": 1}."""
    result: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping) and value:
            result.update({f"{key}{joint}{inner}": v for inner, v in flat(value, joint).items()})
        else:
            result[str(key)] = value
    return result


class SavedFiles:
    """Which files of a checkpoint callback a logger has uploaded, so that each goes up once, and again if rewritten."""

    def __init__(self) -> None:
        self.callback: ModelCheckpoint | None = None
        self._uploaded: dict[str, float] = {}  # when the file was written that went up last

    def new(self) -> list[tuple[str, float | None, list[str]]]:
        """Path, score and aliases ("latest", "best", "last") of each file not uploaded yet, oldest first."""
        callback = self.callback
        if callback is None:
            return []
        scores: dict[str, Any] = {**dict.fromkeys([callback.last_model_path, callback.best_model_path])}
        scores |= callback.best_k_models
        found = [(Path(path).stat().st_mtime, path) for path in scores if path and Path(path).is_file()]
        fresh = sorted((written, path) for written, path in found if self._uploaded.get(path) != written)
        self._uploaded.update({path: written for written, path in fresh})
        return [(path, _number(scores[path]), _aliases(callback, path)) for _, path in fresh]


def _aliases(callback: ModelCheckpoint, path: str) -> list[str]:
    best = path == callback.best_model_path
    return ["latest", *(["best"] if best else []), *(["last"] if path == callback.last_model_path else [])]


def _number(score: Tensor | None) -> float | None:
    return None if score is None else float(score)
