"""What several processes agree on, and when: stops and signals, at points that all reach after the same batch.

A collective at every step would cost more than a small step itself. Instead the processes tell one another at rhythm
points: about once a second and at least every 50 batches, at each validation and at each end of an epoch. How far the
next point is they work out from what was told at this one, so that it is the same on all.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from fulgurite.utilities.exceptions import SIGTERMException

if TYPE_CHECKING:
    from fulgurite.run import Run

SECONDS, MOST_BATCHES = 1.0, 50  # between two points, whichever comes first
_KINDS: dict[str, type[BaseException]] = {"SIGTERM": SIGTERMException, "SIGINT": KeyboardInterrupt}
_NAMES = list(_KINDS)


class Agreement:
    """The decisions of one run on which all processes have agreed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.should_stop = False
        self.validation_due = False  # val_check_interval as a time: by the clock of process 0
        self.signal: BaseException | None = None
        self.requeues = False  # SLURM has asked some process to save and make room
        self._batches = 1  # from one point to the next
        self.next_point = 1  # in batches of the run
        self.exchanges = 0
        self._last_batch, self._last_time = 0, time.monotonic()

    @property
    def own_signal(self) -> str | None:
        """The name of the signal that has reached this process, for the others to hear of."""
        return next((name for name, kind in _KINDS.items() if isinstance(self.run.trainer._signal, kind)), None)

    @property
    def due(self) -> bool:
        done = self.run.progress
        return done.total_batch >= self.next_point or done.is_last_batch

    def exchange(self) -> None:
        """Tell the others, and hear from them."""
        run, now = self.run, time.monotonic()
        trainer, done = run.trainer, run.progress
        seconds = run.val_seconds
        name = self.own_signal
        mine: list[float] = [
            bool(trainer.should_stop),
            -1 if name is None else _NAMES.index(name),
            seconds is not None and now - run.validated_time >= seconds,
            trainer._requeue_asked,
            (now - self._last_time) / (done.total_batch - self._last_batch or math.inf),
        ]
        stops, signals, clocks, requeues, paces = zip(
            *run.strategy.gather_objects(mine, "the agreement on whether to stop"), strict=True
        )
        self.exchanges += 1
        self.should_stop = any(stops)
        if self.should_stop and not trainer.should_stop:
            trainer.should_stop = True
        self.validation_due = bool(clocks[0])
        self.requeues = trainer._requeue_asked = any(requeues)
        self.hear(_NAMES[int(i)] if i >= 0 else None for i in signals)
        if pace := max(paces):  # seconds a batch, where there was one since the last point
            self._batches = max(1, min(MOST_BATCHES, int(SECONDS / pace)))
        self.next_point = done.total_batch + self._batches
        self._last_batch, self._last_time = done.total_batch, time.monotonic()

    def hear(self, signals: Any) -> None:
        """A signal that reached one process reached all."""
        name = next((name for name in signals if name is not None), None)
        if name is not None and self.signal is None:
            own = self.run.trainer._signal
            self.signal = own if own is not None else _KINDS[name]()

    def raise_signal(self) -> None:
        if self.signal is not None:
            signal, self.signal, self.run.trainer._signal = self.signal, None, None
            self.run.trainer._agreed_to_end = True
            raise signal
