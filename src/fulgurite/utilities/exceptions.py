"""Exceptions that users catch by name."""

from __future__ import annotations

from typing import Any


class MisconfigurationException(ValueError):
    """Settings, hooks or data that do not fit together; the message says what to write instead."""


class NoDataError(MisconfigurationException, TypeError):
    """There are no loaders: none were given, and no hook gives any or the hook is None."""


class SIGTERMException(SystemExit):
    """The process was asked to end by SIGTERM: fit has cleaned up, and the process leaves with 143 (128 + 15)."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(args or (143,)))
        self.code = 143


class RankFailedError(RuntimeError):
    """Another process of the run failed; the message holds its traceback, and `rank` says which one it was."""

    def __init__(self, message: str, rank: int = -1) -> None:
        super().__init__(message)
        self.rank = rank


class CollectiveTimeoutError(RuntimeError):
    """A call that all processes must make was not complete in time; the message says where each of them is."""


class CollectiveMismatchError(RuntimeError):
    """The processes have come to different calls, each of which all must make; the message says who is where."""
