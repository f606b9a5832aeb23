"""max_epochs, min_epochs, max_steps, min_steps, max_time and should_stop."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import pytest

import fulgurite as pl
from helpers.counting import Counting, fit, loader


class StopsAt(Counting):
    """Asks to stop in the first batch."""

    def on_train_batch_end(self, *args: Any) -> None:
        self.trainer.should_stop = True


@pytest.mark.parametrize(
    ("flags", "steps", "epochs"),
    [
        ({"max_epochs": 2}, 8, 2),
        ({"max_epochs": 0}, 0, 0),
        ({"max_steps": 3}, 3, 1),
        ({"max_epochs": -1, "max_steps": 6}, 6, 2),
        ({"max_epochs": 1, "max_steps": 100}, 4, 1),
        ({"max_epochs": 2, "max_steps": 4}, 4, 1),
        ({"max_steps": 0}, 0, 0),
        ({"max_steps": 2, "accumulate_grad_batches": 2, "max_epochs": -1}, 2, 1),
        ({"max_time": timedelta(0), "max_epochs": 3}, 0, 0),
        ({"max_time": "00:12:00:00", "max_epochs": 2}, 8, 2),
        ({"max_time": {"hours": 1}, "max_epochs": 2}, 8, 2),
    ],
    ids=str,
)
def test_a_run_ends_at_whichever_limit_comes_first(flags: dict[str, Any], steps: int, epochs: int) -> None:
    trainer, _ = fit(**flags)
    assert (trainer.global_step, trainer.current_epoch) == (steps, epochs)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ({}, 1),
        ({"min_epochs": 2}, 8),
        ({"min_steps": 3}, 4),
        ({"min_steps": 6}, 6),
        ({"min_epochs": 1, "min_steps": 2}, 4),
    ],
    ids=str,
)
def test_should_stop_is_heard_once_the_minimum_is_met(flags: dict[str, Any], steps: int) -> None:
    trainer, _ = fit(StopsAt(), max_epochs=5, **flags)  # min_steps brings min_epochs=1 with it
    assert trainer.global_step == steps


def test_should_stop_validates_before_leaving_and_max_steps_does_not() -> None:
    assert fit(StopsAt(), max_epochs=5)[1].seen("tv") == "t0 v0 v1"
    assert fit(max_steps=1)[1].seen("tv") == "t0"


def test_without_any_limit_a_run_has_1000_epochs() -> None:
    assert pl.Trainer(accelerator="cpu", logger=False).max_epochs == 1000
    assert pl.Trainer(accelerator="cpu", logger=False, max_steps=5).max_epochs in (-1, None)
    assert pl.Trainer(accelerator="cpu", logger=False, max_time="00:00:00:01").max_epochs in (-1, None)


def test_a_second_fit_of_the_same_trainer_goes_on_counting() -> None:
    trainer, model = fit(max_epochs=1)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, loader(4), loader(2))
    assert (trainer.global_step, trainer.current_epoch) == (12, 3)


def test_after_an_exception_the_epoch_is_begun_anew() -> None:
    class Breaks(Counting):
        broken = True

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.broken and self.current_epoch == 1 and batch_idx == 2:
                raise OSError("disk full")

    model, off = Breaks(), {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, **off)
    with pytest.raises(OSError):
        trainer.fit(model, loader(4), loader(2))
    assert (trainer.global_step, trainer.current_epoch, trainer.interrupted) == (7, 1, True)
    model.broken = False
    with warnings.catch_warnings(record=True) as said:
        trainer.fit(model, loader(4), loader(2))
    assert (trainer.global_step, trainer.current_epoch) == (7 + 2 * 4, 3)
    assert not [w for w in said if "random state" in str(w.message)]


def test_the_timer_of_the_user_wins_over_max_time() -> None:
    timer = pl.callbacks.Timer("00:01:00:00")
    trainer, _ = fit(max_time=timedelta(0), callbacks=[timer], max_epochs=2)
    assert trainer.global_step == 8
