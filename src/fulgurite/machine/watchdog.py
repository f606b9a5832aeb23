"""Where each rank is, told to all once a second, so that a run that hangs ends with a report instead.

A thread of each rank looks at the main thread's stack and the run's counters, and writes them to the store in which the
processes met. Nothing is added to a step.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from fulgurite.utilities.exceptions import CollectiveTimeoutError

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer

BEAT = 1.0  # seconds
LATER = 3.0  # seconds that a wait which ought to have raised by itself is left alone, and a rank has to leave
_TORCH, _HERE = str(Path(torch.__file__).parent), str(Path(__file__).parents[1])
_FOREIGN = (_TORCH, _HERE, sysconfig.get_paths()["stdlib"], "<frozen")
_COLLECTIVES = str(Path(_TORCH, "distributed", "distributed_c10d.py"))
_WAITS = {  # calls of torch that are not in that file and wait for other ranks
    (str(Path(_TORCH, "autograd", "graph.py")), "_engine_run_backward"): "backward, where DDP reduces the gradients",
    (str(Path(_TORCH, "nn", "parallel", "distributed.py")), "_sync_buffers"): "forward, where DDP shares the buffers",
    (str(Path(_TORCH, "distributed", "utils.py")), "_verify_param_shape_across_processes"): "DDP's look at the shapes",
    (str(Path(_TORCH, "distributed", "utils.py")), "_sync_module_states"): "DDP's sharing of the weights",
}
ALL_RANKS = (
    "Every rank must make the same collective calls in the same order: make them on all ranks, outside of any "
    "`if trainer.is_global_zero`; in fit that is also save_checkpoint, validate, log_dir of a new logger, barrier, "
    "broadcast, reduce and all_gather."
)
_STAGES = {"train": "training", "sanity_check": "the sanity check", "validate": "validation", None: "setting up"}


def waits_in(frames: Iterable[FrameType]) -> str | None:
    """The collective that a stack, outermost frame first, is in; None where it is in none."""
    for frame in frames:
        code = frame.f_code
        if code.co_filename == _COLLECTIVES and not code.co_name.startswith("_"):
            return code.co_name
        if (code.co_filename, code.co_name) in _WAITS:
            return _WAITS[code.co_filename, code.co_name]
    return None


def users_line(frames: list[FrameType]) -> str | None:
    """File and line of the innermost frame that is neither Python's, torch's nor ours."""
    for frame in reversed(frames):
        if not frame.f_code.co_filename.startswith(_FOREIGN):
            return _described_line(frame)
    return None


def users_call(frame: FrameType) -> tuple[str, str]:
    """What of ours the user's innermost line calls, and where that line is."""
    called = frame
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOREIGN):
        called = frame if frame.f_code.co_filename.startswith(_HERE) else called
        frame = frame.f_back
    return called.f_code.co_name, _described_line(frame)


def _described_line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def stack_of(thread: int) -> list[FrameType]:
    """Its frames, outermost first."""
    innermost = sys._current_frames().get(thread)
    return [] if innermost is None else [frame for frame, _ in traceback.walk_stack(innermost)][::-1]


def _another_connection(store: Any) -> Any:
    """To the same store; of torch before 2.8 none can be asked for, and it is found where the processes met."""
    if hasattr(store, "clone"):
        return store.clone()
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]  # documented


class Watchdog:
    """The thread of one rank, and what it knows."""

    def __init__(self, store: Any, rank: int, world_size: int, timeout: timedelta, groups: list[Any]) -> None:
        # a connection of its own: the main thread keeps the other one busy while it waits for somebody
        self.store, self.rank, self.world_size = _another_connection(store), rank, world_size
        self.limit, self.groups = timeout.total_seconds(), groups
        self.trainer: Trainer | None = None
        self.thread: int | None = None  # the one that is in a call of the trainer
        self.since = time.monotonic()  # since when it is where it is
        self.hung: str | None = None  # the report, once there is one
        self.call: str | None = None  # of all ranks, by name, in which this one waits
        self.made = 0  # such calls, the one that waits among them
        self._prefix = f"fulgurite/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._where: dict[str, Any] = {}
        self._place: list[Any] = []
        self._beats = 0
        self._ended = False  # the wait is over, and what is told is where it was
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fulgurite: heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The process leaves the others. A thread that is in the store while Python ends aborts the process."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(LATER)

    def say_over(self) -> None:
        """Tell all that the run has failed: who is in code of the user's own does not notice otherwise."""
        with contextlib.suppress(Exception):  # the store may have gone with the rank that had it
            self.store.set(f"{self._prefix}/over", str(self.rank))

    # the beat
    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            try:
                self.beat()
                over = self.store.check([f"{self._prefix}/over"])
            except Exception:  # the store has gone, and the run with it: supervision or a closed connection says so
                return
            if over and self.thread is not None:
                self._leave(f"rank {self.rank} ends because rank {self._get('over')} has failed.")
                return
            if self._hangs():
                self._end_hang()
                return

    def beat(self) -> None:
        """Look at the main thread once, and tell."""
        if not self._ended:
            place, self._where = self._look()
            if place != self._place:
                self._place, self.since = place, time.monotonic()
        self._beats += 1
        told = {**self._where, "beat": self._beats, "still": round(time.monotonic() - self.since)}
        self.store.set(f"{self._prefix}/{self.rank}", json.dumps(told))

    def _look(self) -> tuple[list[Any], dict[str, Any]]:
        """What changes whenever the thread gets anywhere, and what others should know."""
        thread, trainer = self.thread, self.trainer
        frames = stack_of(thread) if thread is not None else []
        if not frames or trainer is None:
            return [], {"stage": "outside of the trainer"}
        stage = getattr(trainer.state.stage, "value", None)
        done = trainer.progress if trainer._run is None else trainer._run.progress
        evaluated = sum(map(sum, done.eval_batches.values()))
        calls = self._calls()
        at, waits, inner = users_line(frames), self.call or waits_in(frames), frames[-1]
        where = {"stage": _STAGES.get(stage, stage), "at": at, "waits": waits, "epoch": done.epoch, "calls": calls}
        where["batch"] = done.batch if stage in ("train", None) else evaluated
        # of a call by name no frame changes while it waits, and while it polls some do
        place = (self.call, self.made) if self.call else (inner.f_code.co_name, inner.f_lasti)
        return [stage, done.total_batch, evaluated, at, *place, calls], where

    def _calls(self) -> list[int]:
        """How many collectives of each group were begun, and last how many calls by name."""
        return [*(group._get_sequence_number_for_group() for group in self.groups), self.made]

    def gone_on(self) -> str | None:
        """The report, where a rank has begun a later collective without making the call in which this one waits.

        All ranks begin all collectives in one order. Who has begun fewer calls by name than this rank, and more of
        another kind, has left out the one in which this rank waits.
        """
        *mine, made = self._calls()
        for told in self._all_told().values():
            *theirs, calls = told.get("calls") or [0]
            if calls < made and any(a > b for a, b in zip(theirs, mine, strict=False)):
                waited = time.monotonic() - self.since
                return self.report(self.call, waited, "was not made by all")
        return None

    def _hangs(self) -> bool:
        if self.thread is None or time.monotonic() - self.since < self.limit + LATER:
            return False
        # NCCL's calls return at once and the wait shows anywhere: there, being at another call than a rank is the sign
        return self._where.get("waits") is not None or (
            any(dist.get_backend(group) == "nccl" for group in self.groups)
            and any(told.get("calls") != self._where.get("calls") for told in self._all_told().values())
        )

    # what is wrong
    def report(self, collective: str | None, waited: float, what: str = "was not complete") -> str:
        """Who is where, who did not come, and what to do."""
        before = self._all_told()
        time.sleep(1.5 * BEAT)  # whose thread does not beat in that time is stopped or gone
        now = self._all_told()
        missing, lines = [], []
        for rank in range(self.world_size):
            told = {**now.get(rank, {})}
            if rank == self.rank:
                told.update(self._where, waits=collective or self._where.get("waits"), still=round(waited))
            elif not told or told["beat"] == before.get(rank, {}).get("beat"):
                told = {"stage": "no sign of life: it is stopped, or its machine is gone"}
            if told.get("waits") is None:
                missing.append(str(rank))
            lines.append(f"  rank {rank}: {_described(told)}")
        reason = f"rank {', '.join(missing)} did not come"
        if not missing:
            reason = "each rank waits for others in a call that they do not make"
        return "\n".join(
            [
                f"{collective or 'a collective'} {what} after {waited:.0f} s: {reason}.",
                *lines,
                ALL_RANKS,
                "Where one is merely slow, allow more time: strategy=DDPStrategy(timeout=timedelta(minutes=30)).",
            ]
        )

    def timed_out(self, error: RuntimeError) -> str | None:
        """The report, where an exception is the end of a wait; None where it is something else."""
        if self.hung is not None:
            return self.hung
        waited = time.monotonic() - self.since
        if not any(sign in str(error) for sign in ("imed out", "monitoredBarrier")) or waited + BEAT < self.limit / 2:
            return None
        self._ended = True
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return self.report(waits_in(frames), waited)

    def _all_told(self) -> dict[int, dict[str, Any]]:
        ranks = range(self.world_size)
        return {rank: json.loads(told) for rank in ranks if (told := self._get(str(rank))) is not None}

    def _get(self, key: str) -> str | None:
        key = f"{self._prefix}/{key}"
        return self.store.get(key).decode() if self.store.check([key]) else None

    def abort(self) -> None:
        """NCCL's calls raise then, wherever they wait; gloo has nothing to abort."""
        for group in self.groups:
            with contextlib.suppress(Exception):
                if dist.get_backend(group) == "nccl":
                    group.abort()

    def _end_hang(self) -> None:
        """The call ought to have raised by now: the main thread out of it, or the process ended."""
        self.hung = self.report(self._where.get("waits"), time.monotonic() - self.since)
        self.abort()
        self._leave(f"CollectiveTimeoutError: {self.hung}")

    def _leave(self, why: str) -> None:
        """End the process, unless the main thread comes out of its call of the trainer."""
        thread, until = self.thread, time.monotonic() + LATER
        while self.thread == thread and time.monotonic() < until:
            time.sleep(0.1)
        if self.thread == thread:
            self.say_over()
            print(why, file=sys.stderr, flush=True)
            os._exit(1)


def _described(told: dict[str, Any]) -> str:
    if "at" not in told:
        return str(told["stage"])
    what = f"waits in {told['waits']}," if told.get("waits") else "is in code that waits for nobody,"
    return (
        f"{told['stage']}, epoch {told['epoch']}, batch {told['batch']}: {what} at {told['at']}, for {told['still']} s"
    )


_watchdog: Watchdog | None = None  # of this process
_call: tuple[Trainer, int] | None = None  # and the call of the trainer that it watches


def begin(rank: int, world_size: int, timeout: timedelta, groups: list[Any]) -> None:
    """From here on, once the processes have met, this one tells where it is."""
    global _watchdog
    store = dist.distributed_c10d._get_default_store()
    _watchdog = watchdog = Watchdog(store, rank, world_size, timeout, groups)
    if _call is not None:
        watchdog.trainer, watchdog.thread = _call
    before = sys.excepthook

    def tell(kind: type[BaseException], exception: BaseException, where: Any) -> None:
        watchdog.say_over()
        before(kind, exception, where)

    sys.excepthook = tell


def batches_done() -> int:
    """Training batches that this process has done in the call of the trainer that it is in."""
    return _call[0].progress.total_batch if _call is not None else 0


@contextlib.contextmanager
def waiting(call: str) -> Iterator[None]:
    """Around the wait for all ranks to make this call."""
    watchdog = _watchdog
    if watchdog is None:
        yield
        return
    watchdog.call = call
    watchdog.made += 1
    try:
        yield
    finally:
        watchdog.call = None


def gone_on() -> str | None:
    """Who has gone on without making the call in which this process waits, in a report."""
    return _watchdog.gone_on() if _watchdog is not None else None


def abort() -> None:
    """End the waits of this process that can be ended."""
    if _watchdog is not None:
        _watchdog.abort()


def end() -> None:
    """The process leaves the others."""
    global _watchdog
    if _watchdog is not None:
        _watchdog.stop()
    _watchdog = None


@contextlib.contextmanager
def watching(trainer: Trainer) -> Iterator[None]:
    """Around a call of the trainer: it is looked at, and a wait without end becomes an error that says who is where."""
    global _call
    before, _call = _call, (trainer, threading.get_ident())
    if _watchdog is not None:
        _watchdog.trainer, _watchdog.thread = _call
    try:
        yield
    except RuntimeError as error:
        report = _watchdog.timed_out(error) if _watchdog is not None else None
        if report is None:
            raise
        raise CollectiveTimeoutError(report).with_traceback(error.__traceback__) from None
    finally:
        _call = before
        if _watchdog is not None:
            _watchdog.trainer, _watchdog.thread = before or (None, None)
