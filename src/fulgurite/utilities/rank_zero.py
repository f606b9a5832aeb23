"""Say things once: on the first process only, once per run, and at the user's own line."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")

_FRAMEWORK = str(Path(__file__).parents[1])
_warned: set[str] = set()
log = logging.getLogger("fulgurite")
if TYPE_CHECKING:
    Handler = logging.StreamHandler[TextIO]
else:
    Handler = logging.StreamHandler  # Python 3.10 takes no type here


class LightningDeprecationWarning(FutureWarning):
    """An old name still works. A FutureWarning, because Python hides a DeprecationWarning from users' modules."""


class _StderrUnlessConfigured(Handler):
    """Shows messages on stderr until the program sets up logging itself; then its handlers alone show them."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr  # looked up anew: notebooks and tests replace it

    @stream.setter
    def stream(self, stream: TextIO) -> None: ...

    def filter(self, record: logging.LogRecord) -> bool:
        return not logging.getLogger().handlers and bool(super().filter(record))


log.setLevel(logging.INFO)
log.addHandler(_StderrUnlessConfigured())


def _rank_from_environment() -> int:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if (value := os.environ.get(name, "")).isdecimal():
            return int(value)
    return 0


class _RankZeroOnly:
    """Decorator: the function runs on rank 0 and gives `default` on every other; `.rank` is set by the strategy."""

    def __init__(self) -> None:
        self.rank = _rank_from_environment()

    @overload
    def __call__(self, fn: Callable[P, T]) -> Callable[P, T | None]: ...
    @overload
    def __call__(self, fn: Callable[P, T], default: T) -> Callable[P, T]: ...
    def __call__(self, fn: Callable[P, T], default: T | None = None) -> Callable[P, T | None]:
        @functools.wraps(fn)
        def on_rank_zero(*args: P.args, **kwargs: P.kwargs) -> T | None:
            return fn(*args, **kwargs) if self.rank == 0 else default

        return on_rank_zero


rank_zero_only = _RankZeroOnly()


def rank_zero_info(*args: Any, **kwargs: Any) -> None:
    """Log at level INFO to the logger "fulgurite", on rank 0."""
    if rank_zero_only.rank == 0:
        kwargs.setdefault("stacklevel", 2)
        log.info(*args, **kwargs)


def rank_zero_debug(*args: Any, **kwargs: Any) -> None:
    """Log at level DEBUG to the logger "fulgurite", on rank 0."""
    if rank_zero_only.rank == 0:
        kwargs.setdefault("stacklevel", 2)
        log.debug(*args, **kwargs)


def rank_zero_warn(message: str | Warning, stacklevel: int | None = None, **kwargs: Any) -> None:
    """Warn on rank 0, by default at the first line outside the framework: the one the user can change."""
    if rank_zero_only.rank == 0:
        warnings.warn(message, stacklevel=_users_level() if stacklevel is None else stacklevel, **kwargs)


def rank_zero_deprecation(message: str | Warning, stacklevel: int | None = None, **kwargs: Any) -> None:
    """Warn on rank 0 that an old name was used."""
    kwargs.setdefault("category", LightningDeprecationWarning)
    rank_zero_warn(message, None if stacklevel is None else stacklevel + 1, **kwargs)


def warn_once(message: str, category: type[Warning] = UserWarning, key: str | None = None) -> None:
    """Warn on rank 0 unless this has been said; `key` stands for the message where its numbers vary."""
    if rank_zero_only.rank == 0 and (key or message) not in _warned:
        _warned.add(key or message)
        warnings.warn(message, category, stacklevel=_users_level())


def rank_prefixed_message(message: str, rank: int | None) -> str:
    """The message with the rank it comes from, where there are ranks."""
    return message if rank is None else f"[rank: {rank}] {message}"


def _users_level() -> int:
    """The `stacklevel` of the first frame that is neither the framework's nor torch's, seen from our caller."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_FRAMEWORK)
        or "/torch/" in frame.f_code.co_filename.replace("\\", "/")
        or frame.f_code.co_filename.endswith("contextlib.py")
    ):
        level, frame = level + 1, frame.f_back
    return level
