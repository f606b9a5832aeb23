"""What every progress bar knows: how much there is to do, and what to show beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.rank_zero import warn_once

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

Shown = dict[str, int | str | float | dict[str, float]]


class ProgressBar(Callback):
    """Base class of progress bars: override the hooks you draw in; `get_metrics` says what to show.

    Example::

        class Bar(ProgressBar):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                print(f"\\r{batch_idx + 1} / {self.total_train_batches}", end="")
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._current_eval_dataloader_idx: int | None = None

    @property
    def trainer(self) -> Trainer:
        if self._trainer is None:
            raise TypeError(
                f"{type(self).__name__} belongs to no trainer yet; it is known once fit or another has begun."
            )
        return self._trainer

    @property
    def sanity_check_description(self) -> str:
        return "Sanity Checking"

    @property
    def train_description(self) -> str:
        return "Training"

    @property
    def validation_description(self) -> str:
        return "Validation"

    @property
    def test_description(self) -> str:
        return "Testing"

    @property
    def predict_description(self) -> str:
        return "Predicting"

    @property
    def total_train_batches(self) -> int | float:
        """Batches of an epoch; inf if unknown."""
        return self.trainer.num_training_batches

    @property
    def total_val_batches_current_dataloader(self) -> int | float:
        """Batches of the validation loader at work; inf if unknown."""
        trainer = self.trainer
        return (trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)[self._loader]

    @property
    def total_val_batches(self) -> int | float:
        """Batches of all validation loaders; 0 in an epoch without validation."""
        trainer = self.trainer
        every = trainer.check_val_every_n_epoch
        validates = trainer.enable_validation and (every is None or (trainer.current_epoch + 1) % every == 0)
        return sum(trainer.num_val_batches) if validates else 0

    @property
    def total_test_batches_current_dataloader(self) -> int | float:
        """Batches of the test loader at work; inf if unknown."""
        return self.trainer.num_test_batches[self._loader]

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """Batches of the loader being predicted; inf if unknown."""
        return self.trainer.num_predict_batches[self._loader]

    @property
    def _loader(self) -> int:
        return self._current_eval_dataloader_idx or 0

    def has_dataloader_changed(self, dataloader_idx: int) -> bool:
        """Whether another evaluation loader is at work than when last asked."""
        before, self._current_eval_dataloader_idx = self._current_eval_dataloader_idx, dataloader_idx
        return before != dataloader_idx

    def reset_dataloader_idx_tracker(self) -> None:
        self._current_eval_dataloader_idx = None

    def disable(self) -> None:
        """Show nothing; called on every rank but the first."""
        raise NotImplementedError

    def enable(self) -> None:
        """Show again."""
        raise NotImplementedError

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without disturbing the bar."""
        print(*args, **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        if not trainer.is_global_zero:
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> Shown:
        """What to show beside the bar: the logger's version and all that was logged with `prog_bar=True`."""
        shown: Shown = {}
        if trainer.loggers and (version := trainer.loggers[0].version) not in (None, ""):
            shown["v_num"] = version[-4:] if isinstance(version, str) else version  # type: ignore[assignment]  # not None
        logged = trainer.progress_bar_metrics
        if both := sorted(shown.keys() & logged.keys()):
            warn_once(f"The progress bar shows {', '.join(both)} by itself; the logged value of this name replaces it.")
        return {**shown, **logged}


class TimedProgressBar(ProgressBar):
    """Draws ten times a second at most; a training step between two drawings costs one look at the clock.

    It draws after `refresh_rate` batches, or after a second where batches are slow; 0 switches it off. How a bar looks
    is for `_open`, `_draw` and `_close` to say, of a bar named "train", "sanity", "validation", "test" or "predict".
    """

    interval = 0.1  # seconds between two drawings, at least
    patience = 1.0  # seconds after which refresh_rate no longer matters

    def __init__(self, refresh_rate: int) -> None:
        super().__init__()
        if refresh_rate < 0:
            raise ValueError(f"refresh_rate={refresh_rate} must be 0 (no bar) or a number of batches.")
        self._refresh_rate = refresh_rate
        self._enabled = refresh_rate > 0
        self._next = 0.0 if self._enabled else float("inf")  # no drawing before this time
        self._drawn_at = 0.0
        self._drawn = 0  # batches done when last drawn
        self._is_open: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._is_open.clear()

    def _open(self, bar: str) -> None:
        """A stage begins; for "train" at each epoch, or at the first drawing of one resumed in its middle."""
        raise NotImplementedError

    def _draw(self, bar: str, done: int) -> None:
        """Show that so many batches are done."""
        raise NotImplementedError

    def _close(self, bar: str) -> None:
        """The stage is over; for "train" once, after the last epoch."""
        raise NotImplementedError

    @property
    def refresh_rate(self) -> int:
        return self._refresh_rate

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        return not self._enabled

    def enable(self) -> None:
        self._enabled, self._next = True, 0.0

    def disable(self) -> None:
        self._enabled, self._next = False, float("inf")

    def total(self, bar: str) -> int | float:
        """How many batches the bar runs to; inf if unknown."""
        if bar == "train":
            return self.total_train_batches
        if bar in ("sanity", "validation"):
            return self.total_val_batches_current_dataloader
        if bar == "test":
            return self.total_test_batches_current_dataloader
        return self.total_predict_batches_current_dataloader

    def description(self, bar: str) -> str:
        """The words before the bar."""
        if bar == "train":
            return f"Epoch {self.trainer.current_epoch}"
        text = {
            "sanity": self.sanity_check_description,
            "validation": self.validation_description,
            "test": self.test_description,
            "predict": self.predict_description,
        }[bar]
        return text if self._loaders(bar) == 1 else f"{text} DataLoader {self._loader}"

    def _loaders(self, bar: str) -> int:
        trainer = self.trainer
        counts = {"test": trainer.num_test_batches, "predict": trainer.num_predict_batches}
        return len(counts.get(bar, trainer.num_val_batches))

    def _step(self, bar: str, done: int, dataloader_idx: int = 0) -> None:
        now = time.monotonic()
        if done - self._drawn < self._refresh_rate and now - self._drawn_at < self.patience and done > self._drawn:
            self._next = now + 0.01  # looked at often enough to catch the batch that is due
            return
        changed = bar != "train" and self.has_dataloader_changed(dataloader_idx)
        if changed or bar not in self._is_open:  # no start seen: resumed, or a hook of the user's
            self._begin(bar)
        self._draw(bar, done)
        self._drawn, self._drawn_at = done, now
        self._next = time.monotonic() + self.interval

    def _begin(self, bar: str) -> None:
        self._open(bar)
        self._is_open.add(bar)

    # training
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn = 0
        if self._enabled:
            self._begin("train")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() >= self._next:
            self._step("train", batch_idx + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled:
            self._close("train")

    # evaluation: one bar at a time
    def _start(self, bar: str) -> None:
        self._drawn = self._current_eval_dataloader_idx = 0
        if self._enabled:
            self._begin(bar)

    def _end(self) -> None:
        for bar in self._is_open - {"train"}:
            self._is_open.remove(bar)
            if self._enabled:
                self._close(bar)
        self.reset_dataloader_idx_tracker()

    @staticmethod
    def _validation(trainer: Trainer) -> str:
        return "sanity" if trainer.sanity_checking else "validation"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(self._validation(trainer))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if time.monotonic() >= self._next:
            self._step(self._validation(trainer), batch_idx + 1, dataloader_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if time.monotonic() >= self._next:
            self._step("test", batch_idx + 1, dataloader_idx)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("predict")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if time.monotonic() >= self._next:
            self._step("predict", batch_idx + 1, dataloader_idx)

    on_test_end = on_predict_end = on_validation_end


def as_text(value: Any) -> str:
    """A metric in few characters: whole numbers and words as they are, others with three decimals."""
    if isinstance(value, Tensor):
        value = value.item()
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.2e}"


def clock(seconds: float) -> str:
    """A time in the fewest digits, "0:05" or "1:00:00"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
