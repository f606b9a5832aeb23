"""The bar on terminals and in notebooks, drawn by rich."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fulgurite.callbacks.progress.progress_bar import Shown, TimedProgressBar, as_text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, Task, TaskID
    from rich.style import Style

    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


@dataclass
class RichProgressBarTheme:
    """Styles of the parts of the bar, as rich writes them, and how metrics look."""

    description: str | Style = ""
    progress_bar: str | Style = "#6206E0"
    progress_bar_finished: str | Style = "#6206E0"
    progress_bar_pulse: str | Style = "#6206E0"
    batch_progress: str | Style = ""
    time: str | Style = "dim"
    processing_speed: str | Style = "dim underline"
    metrics: str | Style = "italic"
    metrics_text_delimiter: str = " "
    metrics_format: str = ".3f"


class RichProgressBar(TimedProgressBar):
    """One line for training and one below it while something is evaluated; what you print appears above them.

    Example::

        Trainer(callbacks=[RichProgressBar(leave=True)])  # keep the line of each epoch

    Override `configure_columns` to show other things, `get_metrics` for other numbers.
    """

    def __init__(
        self,
        refresh_rate: int = 100,
        leave: bool = False,
        theme: RichProgressBarTheme = RichProgressBarTheme(),  # noqa: B008  # read only
        console_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(refresh_rate)
        self._leave = leave
        self._console_kwargs = console_kwargs or {}
        self.theme = theme
        self.progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @property
    def train_progress_bar(self) -> Task | None:
        return self._task("train")

    @property
    def val_progress_bar(self) -> Task | None:
        return self._task("validation")

    @property
    def val_sanity_check_bar(self) -> Task | None:
        return self._task("sanity")

    @property
    def test_progress_bar(self) -> Task | None:
        return self._task("test")

    def _task(self, bar: str) -> Task | None:
        if self.progress is None or bar not in self._tasks:
            return None
        return next(task for task in self.progress.tasks if task.id == self._tasks[bar])

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """The columns of the bar, rich's or your own; `task.fields["metrics"]` holds the metrics as text."""
        from rich.progress import BarColumn, TextColumn

        theme = self.theme
        return [
            TextColumn("{task.description}", style=theme.description or "none"),
            BarColumn(
                bar_width=None,
                complete_style=theme.progress_bar,
                finished_style=theme.progress_bar_finished,
                pulse_style=theme.progress_bar_pulse,
            ),
            _text_column(theme.batch_progress, lambda task: f"{task.completed:.0f}/{_count(task.total)}"),
            _text_column(theme.time, lambda task: f"{_clock(task.elapsed)} • {_clock(task.time_remaining)}"),
            _text_column(theme.processing_speed, lambda task: f"{task.speed or 0:.2f}it/s"),
            _text_column(theme.metrics, lambda task: task.fields.get("metrics", "")),
        ]

    def refresh(self, hard: bool = False) -> None:
        """Draw now."""
        if self.progress is not None:
            self.progress.refresh()

    def description(self, bar: str) -> str:
        if bar == "train":
            return self._get_train_description(self.trainer.current_epoch)
        return super().description(bar)

    def _get_train_description(self, current_epoch: int) -> str:
        last = (self.trainer.max_epochs or 0) - 1
        return f"Epoch {current_epoch}/{last}" if last > 0 else f"Epoch {current_epoch}"  # one epoch: not "Epoch 0/0"

    def _shown(self) -> Progress:
        if self.progress is None:
            from rich.console import Console
            from rich.progress import Progress

            columns = self.configure_columns(self.trainer)
            # no thread of its own that redraws: a loop of small steps would pay for it
            self.progress = Progress(*columns, console=Console(**self._console_kwargs), auto_refresh=False, expand=True)
            self.progress.start()
        return self.progress

    def _open(self, bar: str) -> None:
        progress, total = self._shown(), self.total(bar)
        description, length = self.description(bar), None if math.isinf(total) else total
        task = self._task(bar)
        if task is None or (bar == "train" and self._leave):
            self._tasks[bar] = progress.add_task(description, total=length, metrics="")
        else:
            progress.reset(task.id, total=length, description=description, **task.fields)
        if bar == "train":
            progress.update(self._tasks[bar], completed=self.trainer.progress.batch)  # not 0 when resumed

    def _draw(self, bar: str, done: int) -> None:
        metrics = self._metrics_text() if bar == "train" else ""
        self._shown().update(self._tasks[bar], completed=done, metrics=metrics, refresh=True)

    def _close(self, bar: str) -> None:
        task = self._task(bar)
        if self.progress is None or task is None:
            return
        del self._tasks[bar]
        if bar in ("sanity", "validation"):
            self.progress.remove_task(task.id)
            if "train" in self._tasks:
                self.progress.update(self._tasks["train"], metrics=self._metrics_text())
        else:
            metrics = self._metrics_text() if bar == "train" else ""
            self.progress.update(task.id, completed=task.total, metrics=metrics, refresh=True)

    def _metrics_text(self) -> str:
        shown: Shown = self.get_metrics(self.trainer, self.trainer.lightning_module)
        theme = self.theme

        def text(value: Any) -> str:
            value = value.item() if hasattr(value, "item") else value
            if isinstance(value, float) and theme.metrics_format != RichProgressBarTheme.metrics_format:
                return format(value, theme.metrics_format)
            return as_text(value)

        return theme.metrics_text_delimiter.join(f"{name}: {text(value)}" for name, value in shown.items())

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
            self._tasks = {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()


def _text_column(style: str | Style, text: Any) -> ProgressColumn:
    """A column that shows `text(task)`."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Column(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(text(task), style=style)

    return Column()


def _count(total: float | None) -> str:
    return "--" if total is None else f"{total:.0f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--:--"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
