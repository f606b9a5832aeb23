"""Progress where the output is no terminal: whole lines, and few of them."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from fulgurite.callbacks.progress.progress_bar import TimedProgressBar, as_text, clock

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class PlainProgressBar(TimedProgressBar):
    """Print one line to stderr every few seconds, however many epochs there are.

    Example::

        Trainer(callbacks=[PlainProgressBar(seconds=60)])
    """

    def __init__(self, seconds: float = 5.0) -> None:
        super().__init__(refresh_rate=1)
        self.interval = seconds
        self._rated_at = 0.0
        self._rated = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._enabled:
            self._next = time.monotonic() + self.interval

    def description(self, bar: str) -> str:
        text = super().description(bar)
        if bar == "train" and (last := (self.trainer.max_epochs or 0) - 1) > 0:
            text += f"/{last}"
        return text

    def _open(self, bar: str) -> None:
        self._rated = self.trainer.progress.batch if bar == "train" else 0  # not 0 when resumed in mid-epoch
        self._rated_at = time.monotonic()

    def _draw(self, bar: str, done: int) -> None:
        total, now = self.total(bar), time.monotonic()
        line = f"{self.description(bar)}: {done}{'' if math.isinf(total) else f'/{total}'}"
        if done > self._rated and now > self._rated_at:
            rate = (done - self._rated) / (now - self._rated_at)
            line += f" | {rate:.1f} it/s"
            if not math.isinf(total):
                line += f", {clock((total - done) / rate)} left"
        self._rated, self._rated_at = done, now
        self._say(line)

    def _close(self, bar: str) -> None:
        """Nothing: the trainer's closing line says it."""

    def _say(self, line: str) -> None:
        metrics = self.get_metrics(self.trainer, self.trainer.lightning_module)
        parts = [line, *(f"{name} {as_text(value)}" for name, value in metrics.items())]
        print(" | ".join(parts), file=sys.stderr, flush=True)
