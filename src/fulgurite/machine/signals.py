"""SIGTERM, Ctrl-C and SLURM's notice: a flag is set, and the run acts on it between two batches."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from fulgurite.machine.environments import SLURMEnvironment
from fulgurite.utilities.exceptions import SIGTERMException

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer


def requeue_signal(trainer: Trainer) -> signal.Signals | None:
    """The signal by which SLURM says that the time is nearly up; None where it does not run this, or is not to."""
    environment = trainer._environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return cast(signal.Signals, environment.requeue_signal or signal.SIGUSR1)


@contextlib.contextmanager
def installed(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Inside, these handlers; afterwards those that were there before."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def handled(trainer: Trainer) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM lets the batch finish; a second Ctrl-C stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            return  # a data worker, whom a terminal's Ctrl-C reaches too: it serves the batch that is finished
        if trainer._signal is not None:
            raise KeyboardInterrupt
        trainer._signal = KeyboardInterrupt()
        print("\nInterrupted: finishing this batch. Press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)

    def terminate(number: int, frame: FrameType | None) -> None:
        trainer.received_sigterm = True
        trainer._signal = SIGTERMException()

    # a handler the user installed stays theirs; only Python's defaults are replaced
    ours: dict[signal.Signals, Any] = {}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        ours[signal.SIGINT] = interrupt
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        ours[signal.SIGTERM] = terminate
    requeue = requeue_signal(trainer)
    if requeue is not None and signal.getsignal(requeue) in (signal.SIG_DFL, signal.SIG_IGN):
        ours[requeue] = lambda number, frame: setattr(trainer, "_requeue_asked", True)
    with installed(ours):
        yield
