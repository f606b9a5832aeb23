"""Measures how long training takes, and stops it when its time is up."""

from __future__ import annotations

import time
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from fulgurite.callbacks.callback import Callback
from fulgurite.states import RunningStage
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class Interval(str, Enum):
    """How often the clock is looked at."""

    step = "step"
    epoch = "epoch"


class Timer(Callback):
    """Stop training after `duration`, time spent before a resumed checkpoint included.

    Example::

        timer = Timer(duration="00:12:00:00")  # days:hours:minutes:seconds, a timedelta, or {"hours": 12}
        Trainer(callbacks=[timer]).fit(model)
        timer.time_elapsed("train"), timer.time_remaining()
    """

    def __init__(
        self,
        duration: str | timedelta | dict[str, int] | None = None,
        interval: str = Interval.step,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(duration, str):
            duration = _parsed(duration)
        elif isinstance(duration, dict):
            duration = timedelta(**duration)
        if interval not in set(Interval):
            raise MisconfigurationException(f"interval={interval!r} of Timer must be 'step' or 'epoch'.")
        self._duration = None if duration is None else duration.total_seconds()
        self._interval = Interval(interval)
        self._verbose = verbose
        self._start_time: dict[RunningStage, float] = {}
        self._end_time: dict[RunningStage, float] = {}
        self._offset = 0.0  # seconds of training before the checkpoint that this run resumed from

    def start_time(self, stage: str = RunningStage.TRAINING) -> float | None:
        """When the stage began, on `time.monotonic`'s clock."""
        return self._start_time.get(RunningStage(stage))

    def end_time(self, stage: str = RunningStage.TRAINING) -> float | None:
        """When the stage ended, on `time.monotonic`'s clock."""
        return self._end_time.get(RunningStage(stage))

    def time_elapsed(self, stage: str = RunningStage.TRAINING) -> float:
        """Seconds spent in the stage."""
        stage = RunningStage(stage)
        before = self._offset if stage == RunningStage.TRAINING else 0.0
        start, end = self.start_time(stage), self.end_time(stage)
        if start is None:
            return before
        return (time.monotonic() if end is None else end) - start + before

    def time_remaining(self, stage: str = RunningStage.TRAINING) -> float | None:
        """Seconds left of the duration; None where there is no limit."""
        return None if self._duration is None else self._duration - self.time_elapsed(stage)

    def state_dict(self) -> dict[str, Any]:
        return {"time_elapsed": {stage.value: self.time_elapsed(stage) for stage in RunningStage}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._offset = state_dict.get("time_elapsed", {}).get(RunningStage.TRAINING.value, 0.0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._duration is not None:  # a resumed run may have no time left
            self._check_time_remaining(trainer, self._duration)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(RunningStage.TRAINING)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_time[RunningStage.TRAINING] = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(RunningStage.VALIDATING)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_time[RunningStage.VALIDATING] = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(RunningStage.TESTING)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_time[RunningStage.TESTING] = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._interval == Interval.step and self._duration is not None:
            self._check_time_remaining(trainer, self._duration)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._interval == Interval.epoch and self._duration is not None:
            self._check_time_remaining(trainer, self._duration)

    def _start(self, stage: RunningStage) -> None:
        self._start_time[stage] = time.monotonic()
        self._end_time.pop(stage, None)

    def _check_time_remaining(self, trainer: Trainer, duration: float) -> None:
        elapsed = self.time_elapsed()
        if trainer.should_stop or elapsed < duration:
            return
        trainer.should_stop = True
        if self._verbose:
            rank_zero_info(
                f"Time limit reached. Elapsed time is {timedelta(seconds=int(elapsed))}. Signaling Trainer to stop."
            )


def _parsed(duration: str) -> timedelta:
    parts = duration.strip().split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise MisconfigurationException(
            f"duration={duration!r} of Timer is not of the form 'DD:HH:MM:SS', e.g. '00:12:00:00' for twelve hours."
        )
    days, hours, minutes, seconds = map(int, parts)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
