from __future__ import annotations

import io
import sys

import pytest
from rich.progress import TextColumn

from fulgurite import Callback
from fulgurite.callbacks import RichProgressBar
from fulgurite.callbacks.progress.rich_progress import RichProgressBarTheme
from fulgurite.loggers import CSVLogger
from helpers.screen import visible
from helpers.tiny import Tiny, data, fit


class Screen:
    def __init__(self) -> None:
        self.file = io.StringIO()
        self.kwargs = {
            "file": self.file,
            "force_terminal": True,
            "width": 120,
            "height": 20,
            "legacy_windows": False,
            "_environ": {"TERM": "xterm"},
        }

    def lines(self) -> list[str]:
        return visible(self.file.getvalue())


def bar(screen: Screen, kind: type = RichProgressBar, **settings) -> RichProgressBar:
    made = kind(refresh_rate=1, console_kwargs=screen.kwargs, **settings)
    made.interval = 0.0
    return made


def test_the_last_state_stays_on_the_screen():
    screen = Screen()
    fit(bar(screen), max_epochs=2, logger=CSVLogger(".", version=7))
    (line,) = screen.lines()
    assert line.startswith("Epoch 1/1 ━")
    assert "4/4" in line
    assert "v_num: 7 train_loss: 0." in line


def test_one_epoch_is_not_zero_of_zero():
    screen = Screen()
    fit(bar(screen), max_epochs=1)
    assert screen.lines()[0].startswith("Epoch 0 ━")


def test_leave_keeps_the_line_of_each_epoch():
    screen = Screen()
    fit(bar(screen, leave=True), max_epochs=3)
    assert [line[:9] for line in screen.lines()] == ["Epoch 0/2", "Epoch 1/2", "Epoch 2/2"]


def test_what_the_user_prints_stands_in_lines_of_its_own(capsys):
    class Prints(Tiny):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            print(f"[batch] {batch_idx} {{'a': 1}}")

    screen = Screen()
    fit(bar(screen), model=Prints(), max_epochs=1)
    assert screen.lines()[:4] == [f"[batch] {i} {{'a': 1}}" for i in range(4)]
    assert len(screen.lines()) == 5


def test_stdout_is_given_back_after_an_exception():
    class Fails(Tiny):
        def training_step(self, batch, batch_idx):
            raise ValueError("broken")

    before = sys.stdout
    with pytest.raises(ValueError, match="broken"):
        fit(bar(Screen()), model=Fails())
    assert sys.stdout is before


def test_tasks_can_be_looked_at_while_they_run():
    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((shown.train_progress_bar.completed, shown.train_progress_bar.total, shown.val_progress_bar))

        def on_validation_batch_end(self, *args):
            seen.append((shown.val_progress_bar.description, shown.val_progress_bar.total))

    seen, shown = [], bar(Screen())
    fit(shown, Look(), max_epochs=1)
    assert seen == [(1, 4, None), (2, 4, None), (3, 4, None), (4, 4, None), ("Validation", 1)]
    assert shown.train_progress_bar is None


def test_columns_and_metrics_can_be_overridden():
    class Mine(RichProgressBar):
        def configure_columns(self, trainer):
            return [TextColumn("{task.completed} of {task.total}: {task.fields[metrics]}")]

        def get_metrics(self, trainer, pl_module):
            return {"auc": 0.5}

    screen = Screen()
    fit(bar(screen, Mine), max_epochs=1)
    assert screen.lines() == ["4 of 4: auc: 0.500"]


def test_theme():
    screen = Screen()
    theme = RichProgressBarTheme(metrics_text_delimiter=" | ", metrics_format=".1f")
    trainer = fit(bar(screen, theme=theme), max_epochs=1, logger=CSVLogger(".", version=0))
    value = trainer.progress_bar_metrics["train_loss"]
    assert screen.lines()[0].endswith(f"v_num: 0 | train_loss: {float(value):.1f}")


def test_testing_and_predicting_have_bars():
    screen = Screen()
    trainer = fit(bar(screen), max_epochs=1)
    trainer.test(Tiny(), data(3), verbose=False)
    trainer.predict(Tiny(), data(2))
    assert [line.split(" ━")[0] for line in screen.lines()[1:]] == ["Testing", "Predicting"]


def test_refresh_rate_zero_shows_nothing():
    screen = Screen()
    fit(RichProgressBar(refresh_rate=0, console_kwargs=screen.kwargs), max_epochs=1)
    assert screen.file.getvalue() == ""


def test_without_a_terminal_it_prints_no_flood():
    file = io.StringIO()
    shown = RichProgressBar(refresh_rate=1, console_kwargs={"file": file, "force_terminal": False, "width": 80})
    shown.interval = 0.0
    fit(shown, max_epochs=20)
    assert file.getvalue().count("\n") <= 2
