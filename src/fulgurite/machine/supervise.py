"""The processes of a run that this program has started itself: whoever fails first is heard, and nobody is left over.

A rank that was started keeps a line to its starter: it reports how it failed, and ends when the starter is gone. The
starter keeps `Children`: it hears the reports, notices who is dead, and ends the others.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from fulgurite.machine import watchdog
from fulgurite.machine.environments import RANK_OF, STARTED_BY
from fulgurite.machine.signals import installed
from fulgurite.utilities.exceptions import (
    CollectiveMismatchError,
    CollectiveTimeoutError,
    RankFailedError,
    SIGTERMException,
)
from fulgurite.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer

GRACE = 2.0  # seconds a rank has to leave by itself once the run has failed
FOLLOW_UP = 1.0  # seconds in which the reason of a broken connection turns up
SAME = 1.0  # seconds in which rank 0 comes to the error that another rank has met, where all of them meet it
END = 30.0  # seconds that the others have to end the program once rank 0 has
WAKE = getattr(signal, "SIGUSR2", signal.SIGTERM)  # Windows has none, and starts no ranks
_OWN_REASONS = (RankFailedError, CollectiveTimeoutError, CollectiveMismatchError)


@dataclass(frozen=True)
class Failure:
    """How one rank failed."""

    rank: int
    when: float  # by the machine's monotonic clock, which its processes share
    text: str
    follows: bool = False  # from another rank's failure, such as a closed connection
    code: int = 0  # with which it ended, where it has said no more


def follows_from_another(exception: BaseException) -> bool:
    """Whether this is what a rank sees when another one is gone, rather than a reason of its own."""
    if not isinstance(exception, RuntimeError) or isinstance(exception, _OWN_REASONS):
        return False
    said = str(exception)
    signs = ("gloo", "Connection closed", "Connection reset", "Broken pipe", "monitoredBarrier", "NCCL", "TCPStore")
    return isinstance(exception, dist.DistError) or any(sign in said for sign in signs)


# in a rank that was started


def share_threads(processes: int) -> None:
    """The cores of the machine among its processes, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


class Line:
    """To the process that started this rank."""

    def __init__(self, rank: int, starter: int, connection: Connection) -> None:
        self.rank, self.starter, self.connection = rank, starter, connection
        self.reported: BaseException | None = None
        self.in_call = False  # of the trainer
        self._sending = threading.Lock()
        threading.Thread(target=self._end_with_starter, name="fulgurite: starter alive?", daemon=True).start()

    def say(self, kind: str, what: Any = None) -> bool:
        """Whether the starter could be told."""
        with self._sending:
            try:
                self.connection.send((kind, what))
            except (OSError, ValueError):
                return False
        return True

    def report(self, exception: BaseException) -> None:
        """Tell the starter, which prints it; here it is not printed again."""
        if self.reported is not None:
            return
        text = "".join(traceback.format_exception(exception))
        failure = Failure(self.rank, time.monotonic(), text, follows_from_another(exception))
        if self.say("failed", failure):
            self.reported = exception

    def say_left(self, exception: BaseException) -> None:
        """Tell the starter by what a call of the trainer was left."""
        if leaves_together(exception):
            self.say("interrupted", type(exception).__name__)
        else:
            self.report(exception)

    def _end_with_starter(self) -> None:
        # not the end of the connection: data workers of the starter hold copies of it
        while os.getppid() == self.starter:
            time.sleep(0.5)
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)  # this rank leads its session: its data workers go with it
        os._exit(1)


_line: Line | None = None


def line_to_starter() -> Line | None:
    """The line of this rank; None where nobody, or somebody else, started it."""
    global _line
    if _line is None and STARTED_BY in os.environ:
        starter, descriptor = map(int, os.environ.pop(STARTED_BY).split(":"))
        os.set_inheritable(descriptor, False)
        share_threads(int(os.environ["LOCAL_WORLD_SIZE"]))
        connect(Line(int(os.environ["RANK"]), starter, Connection(descriptor)))
    return _line


def die_with_parent() -> None:
    """On Linux the kernel kills this process once its parent is gone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def connect(line: Line) -> Line:
    """From here on this process is a rank of the starter's: exceptions are printed there."""
    global _line
    _line = line
    os.environ[RANK_OF] = str(os.getpid())
    before = sys.excepthook

    def report_or_print(kind: type[BaseException], exception: BaseException, where: Any) -> None:
        if not isinstance(exception, KeyboardInterrupt):
            line.report(exception)
        if line.reported is not exception:
            before(kind, exception, where)

    sys.excepthook = report_or_print
    return line


# in the process that starts them


@dataclass
class Child:
    """One process that was started."""

    rank: int
    pid: int
    poll: Callable[[], int | None]  # its exit code; negative: a signal; None while it runs
    connection: Connection
    ready: bool = False
    code: int | None = None
    ended_by_us: bool = False

    @property
    def alive(self) -> bool:
        return self.code is None

    def describe_end(self) -> str:
        assert self.code is not None
        if self.code >= 0:
            return f"rank {self.rank} (process {self.pid}) ended with exit code {self.code}"
        name = signal.Signals(-self.code).name
        hint = {
            "SIGKILL": ": by somebody, or by the kernel because memory ran out (see dmesg)",
            "SIGABRT": ": a C++ library gave up; what it said is above",
            "SIGSEGV": ": a fault in native code",
        }.get(name, "")
        return f"rank {self.rank} (process {self.pid}) was killed by {name}{hint}"


def _kill(child: Child) -> None:
    """The rank and its data workers: it leads a group of its own, except in its very first moment."""
    for kill in (os.killpg, os.kill) if child.alive else (os.killpg,):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child.pid, signal.SIGKILL)


@dataclass
class Children:
    """All processes that this one has started for a run."""

    members: list[Child]
    reports: list[Failure] = field(default_factory=list)
    results: dict[int, Any] = field(default_factory=dict)
    interrupted: BaseException | None = None  # a rank left because of Ctrl-C or SIGTERM
    over: bool = False  # what they do now does not matter any more
    _attending: Any = field(default_factory=threading.RLock)

    def attend(self, timeout: float = 0.2) -> None:
        """Hear what they say for at most so long, and see who has ended."""
        with self._attending:
            ended = [child for child in self.members if child.alive and child.poll() is not None]
            for child in ended:
                child.code = child.poll()
                if child.code != 0:
                    _kill(child)  # what is left of its group: data workers
            self._hear(0 if ended else timeout)

    def _hear(self, timeout: float) -> None:
        while listening := [child.connection for child in self.members if not child.connection.closed]:
            heard = wait(listening, timeout)
            if not heard:
                return
            timeout = 0
            for child in self.members:
                if child.connection in heard:
                    self._take(child)
        time.sleep(timeout)  # nobody is left to hear: who watches them is not to spin

    def _take(self, child: Child) -> None:
        try:
            kind, what = child.connection.recv()
        except (EOFError, OSError):
            child.connection.close()
            return
        if kind == "ready":
            child.ready, self.interrupted = True, None
        elif kind == "failed":
            self.reports.append(what)
        elif kind == "done":
            self.results[child.rank] = what
        elif kind == "interrupted":
            self.interrupted = SIGTERMException() if what == "SIGTERMException" else KeyboardInterrupt()

    def failure(self) -> Failure | None:
        """The first reason to fail, once it is known."""
        reasons = [report for report in self.reports if not report.follows]
        if reasons:
            return min(reasons, key=lambda report: report.when)
        said = {report.rank for report in self.reports}
        for child in self.members:
            failed = child.code not in (None, 0) and not child.ended_by_us
            if failed and child.rank not in said and self.interrupted is None:
                code = max(child.code or 0, 0)
                return Failure(child.rank, time.monotonic(), child.describe_end(), code=code)
        if self.reports and (first := min(self.reports, key=lambda r: r.when)).when < time.monotonic() - FOLLOW_UP:
            return first
        return None

    def await_failure(self, seconds: float) -> Failure | None:
        """The first failure that becomes known within so long."""
        until = time.monotonic() + seconds
        while (failure := self.failure()) is None and time.monotonic() < until:
            self.attend(0.1)
        return failure

    def end(self, grace: float = GRACE) -> None:
        """Nobody is left when this returns: who does not leave in time is killed, with its data workers."""
        self.over = True
        with self._attending:
            until = time.monotonic() + grace
            while any(child.alive for child in self.members) and time.monotonic() < until:
                self.attend(0.05)
            for child in self.members:
                if child.alive:
                    child.ended_by_us = True
                    _kill(child)
            while any(child.alive for child in self.members):
                self.attend(0.05)
            for child in self.members:
                child.connection.close()


def error_of(failure: Failure) -> RankFailedError:
    """The one error that is printed for a run that failed elsewhere."""
    if failure.text.startswith("Traceback"):
        lines = failure.text.rstrip().splitlines()
        body = "\n".join(f"[rank {failure.rank}] {line}" for line in lines)
        return RankFailedError(f"rank {failure.rank} failed.\n\n{body}", failure.rank)
    return RankFailedError(f"{failure.text}.", failure.rank)


class ScriptRanks:
    """Rank 0's view of the processes that run the same program beside it, for as long as it lives."""

    def __init__(self, children: Children, store: Any) -> None:
        self.children, self.store = children, store  # the store that all meet in is this process's
        self.told: RankFailedError | None = None  # how the run failed, once it is known
        self._left: BaseException | None = None  # how the last call of the trainer was left, where all leave together
        self._inside: int | None = None  # the thread that is in a call of the trainer
        self._only_printed = False  # which is yet to show in the exit code
        self._leaving = False  # the call with an exception, whose reason is being found
        self._guard = threading.Lock()
        self._trainer: Trainer | None = None  # whose call it is
        self._signals: socket.socket | None = None  # on which Python writes the signals that come, at once
        self._interrupts: list[float] = []  # when Ctrl-C was pressed in this call
        self._said_so = False
        self._stopped = False  # by Ctrl-C, out of a wait for other ranks
        self._finishing = False  # rank 0 has come to the end of the program
        self.watcher = threading.Thread(target=self.watch, name="fulgurite: ranks alive?", daemon=True)

    def await_ready(self) -> None:
        """Until all have come to the same call of the trainer."""
        said, began = False, time.monotonic()
        while not all(child.ready for child in self.children.members):
            self.children.attend()
            failure = self.children.failure()
            gone = next((child for child in self.children.members if child.code is not None), None)
            if failure is not None or gone is not None:
                self.children.end()
                reported = failure is not None and failure.rank in {report.rank for report in self.children.reports}
                self.told = error_of(failure) if reported else _left_early(gone)  # type: ignore[arg-type]  # one is there
                _print_without_stack(self.told)
                raise self.told
            if not said and time.monotonic() - began > 60:
                said = True
                late = ", ".join(str(child.rank) for child in self.children.members if not child.ready)
                rank_zero_info(f"rank 0 waits for rank {late}, which runs the program up to this call of the trainer.")

    def watch(self) -> None:
        """In a thread: once a rank has failed, nobody goes on."""
        while (told := self._failed()) is None:
            self.children.attend()
            if self.children.over or self._finishing:
                return
            self._heed_ctrl_c()
        self._await_an_error_of_its_own()
        with self._guard:
            inside = self._inside
            self.told = None if self._leaving else told  # rank 0 leaves: it asks for the reason itself
            if inside is not None and callable(signal.getsignal(WAKE)):  # which is there while it is in a call
                signal.pthread_kill(inside, WAKE)  # out of user code, a sleep
        self.children.end()  # rank 0's collectives fail with the connections to them
        watchdog.abort()  # or, over NCCL, with their groups
        if self.told is None:
            return
        if inside is None:  # rank 0 is in code of the user's own: its next call of the trainer is an error, or its end
            self._only_printed = True
            print(self.told, file=sys.stderr, flush=True)
            return
        self._see_out(1, str(self.told))

    def _await_an_error_of_its_own(self) -> None:
        """What all ranks raise is in rank 0 its own exception, which the program may catch, whoever raised it first."""
        until = time.monotonic() + SAME
        while self._inside is not None and time.monotonic() < until:
            time.sleep(0.01)

    def _see_out(self, code: int, why: str) -> None:
        """Rank 0 out of its call, or, where native code waits for a device or nobody knows what, out of its life."""
        until = time.monotonic() + GRACE
        while self._inside is not None and time.monotonic() < until:
            time.sleep(0.05)
        if self._inside is not None:
            print(why, file=sys.stderr, flush=True)
            os._exit(code)

    def _heed_ctrl_c(self) -> None:
        """In a wait for other ranks Python does not come to handle a signal; the second Ctrl-C ends the wait."""
        with contextlib.suppress(OSError, AttributeError):
            came = self._signals.recv(64).count(signal.SIGINT)  # type: ignore[union-attr]  # None is suppressed
            self._interrupts += [time.monotonic()] * came
        waited = time.monotonic() - self._interrupts[-1] if self._interrupts and self._inside is not None else 0
        if waited < 1:
            return
        if len(self._interrupts) > 1:
            self._stopped = True
            self.children.end(0)
            self._see_out(130, "Interrupted.")
        elif self._trainer is not None and self._trainer._signal is None and not self._said_so:
            self._said_so = True
            print("\nInterrupted: rank 0 waits for another rank. Press Ctrl-C again to stop at once.", file=sys.stderr)

    def _failed(self) -> RankFailedError | None:
        failure = self.children.failure()
        if failure is not None and (self._inside is not None or not failure.code):
            return error_of(failure)  # outside of a call an exit code may be the program's own, which rank 0 comes to
        gone = next((child for child in self.children.members if child.code is not None), None)
        if gone is not None and self._inside is not None and self.children.interrupted is None:
            return _left_early(gone)
        return None

    @contextlib.contextmanager
    def in_call(self, trainer: Trainer) -> Iterator[None]:
        """While rank 0 is in a call of the trainer, a failure elsewhere is an exception here."""
        if self._inside is not None:
            yield  # within another call, which sees what comes out of it
            return
        if self.told is not None:
            self._only_printed = False
            raise self.told
        if self.children.over:
            raise RuntimeError(
                "the other processes of this program have ended, with the exception that left an earlier call of the "
                "trainer, although the program caught it. They run the whole program, so they cannot start in its "
                "middle. To end a fit and go on, set trainer.should_stop = True; or use strategy='ddp_spawn', where "
                "each call of the trainer starts its own."
            )
        with self._waking():
            self._trainer, self._interrupts, self._said_so = trainer, [], False
            self._left, self._leaving = None, False
            self._inside = threading.get_ident()
            try:
                yield
            except BaseException as exception:
                self._outside(leaving=True)
                if leaves_together(exception):
                    self._left, self._leaving = exception, False
                    raise
                raise self._reason(exception) from None
            finally:
                self._outside()

    def _outside(self, leaving: bool = False) -> None:
        with self._guard:
            self._inside = None
            self._leaving |= leaving

    def _reason(self, exception: BaseException) -> BaseException:
        if self._stopped:
            return KeyboardInterrupt()
        if follows_from_another(exception):
            failure = self.children.await_failure(2 * FOLLOW_UP)
            if self.told is None and failure is not None:
                self.told = error_of(failure)
            exception = self.told or exception
        self.children.end(GRACE if exception is self.told else 0.5)
        if exception is self.told:
            _print_without_stack(exception)
        return exception

    @contextlib.contextmanager
    def _waking(self) -> Iterator[None]:
        """A signal brings this thread out of a sleep; the user's own handler of it stays theirs."""
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(WAKE) != signal.SIG_DFL:
            yield
            return

        def come_out(number: int, frame: Any) -> None:
            if self._inside is not None and self.told is not None:
                raise self.told

        ours, pythons = socket.socketpair()
        ours.setblocking(False)
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        if before == -1:
            self._signals = ours
        else:  # an event loop's
            signal.set_wakeup_fd(before)
        with ours, pythons, installed({WAKE: come_out}):
            try:
                yield
            finally:
                self._signals = None
                if before == -1:
                    signal.set_wakeup_fd(-1)

    def finish(self) -> None:
        """At the end of the program: the others come to theirs, and how they end counts."""
        self._finishing = True
        if self.watcher.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                self.watcher.join(3 * GRACE)  # it may be about to say how the run failed
        if self._only_printed:
            self._leave_failing()
        if self.children.over or self.told is not None:
            return
        failing = getattr(sys, "last_value", None) is not None
        until = time.monotonic() + (GRACE if failing else END if self._left is None else 2 * GRACE)
        with contextlib.suppress(KeyboardInterrupt):
            while any(child.alive for child in self.children.members) and time.monotonic() < until:
                self.children.attend()
                if self.children.failure() is not None:
                    until = min(until, time.monotonic() + GRACE)
        self.children.end(0)
        late = ", ".join(str(child.rank) for child in self.children.members if child.ended_by_us)
        if late and not failing and self._left is None:
            after = f"{END:.0f} s after rank 0 had come to the end of the program"
            print(f"rank {late} was still running {after}, and was ended.", file=sys.stderr, flush=True)
        if not failing and (failure := self.children.failure()) is not None:
            if any(child.code != failure.code for child in self.children.members):
                print(error_of(failure), file=sys.stderr, flush=True)
                self._leave_failing()
            self._leave_failing(failure.code)  # the program's own, by sys.exit

    def _leave_failing(self, code: int = 1) -> None:
        """At its end a program gets an exit code only by leaving: after all else that is to be done there."""
        self._only_printed = False
        self.children.end(0)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)


def _print_without_stack(exception: BaseException) -> None:
    """Should it end the program: what happened in the other rank, without where this one was."""
    before = sys.excepthook

    def say(kind: type[BaseException], raised: BaseException, where: Any) -> None:
        if raised is exception:
            print(raised, file=sys.stderr, flush=True)
        else:
            before(kind, raised, where)

    sys.excepthook = say


def _left_early(child: Child) -> RankFailedError:
    return RankFailedError(
        f"{child.describe_end()}, and rank 0 is in a call of the trainer. Every process runs the whole program and "
        "must make the same calls of the trainer; what it printed is above.",
        child.rank,
    )


def leaves_together(exception: BaseException) -> bool:
    """Whether all ranks leave this way at the same batch: by Ctrl-C or SIGTERM, on which they agree."""
    return isinstance(exception, (KeyboardInterrupt, SIGTERMException))


def _forget_signals() -> None:
    """In a data worker, which has a copy of the socket on which rank 0 counts Ctrl-C."""
    if script_ranks is not None and script_ranks._signals is not None:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_signals)
script_ranks: ScriptRanks | None = None  # those of this program


@contextlib.contextmanager
def supervised(trainer: Trainer) -> Iterator[None]:
    """Around each call of the trainer: failures reach whoever started the ranks, and come from there."""
    if script_ranks is not None:
        with script_ranks.in_call(trainer):
            yield
        return
    line = line_to_starter()
    if line is None or line.in_call:
        yield
        return
    line.in_call = True
    line.say("ready")
    try:
        yield
    except BaseException as exception:
        line.say_left(exception)
        raise
    finally:
        line.in_call = False
