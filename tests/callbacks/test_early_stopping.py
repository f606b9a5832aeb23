from __future__ import annotations

import logging

import pytest
import torch

from fulgurite.callbacks import EarlyStopping, ModelCheckpoint
from fulgurite.callbacks.early_stopping import EarlyStoppingReason
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit

nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "losses", "stopped", "reason"),
    [
        ({"patience": 2}, [3, 2, 2, 2], 3, "PATIENCE_EXHAUSTED"),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.6, 2], 1, "PATIENCE_EXHAUSTED"),
        ({"patience": 2, "mode": "max"}, [1, 3, 2, 3, 9], 3, "PATIENCE_EXHAUSTED"),
        ({}, [3, nan, 1], 1, "NON_FINITE_METRIC"),
        ({}, [3, inf, 1], 1, "NON_FINITE_METRIC"),
        ({"check_finite": False, "patience": 1}, [3, nan, 1], 1, "PATIENCE_EXHAUSTED"),
        ({"stopping_threshold": 1.5}, [3, 2, 1, 0], 2, "STOPPING_THRESHOLD"),
        ({"divergence_threshold": 4.0}, [3, 2, 5, 0], 2, "DIVERGENCE_THRESHOLD"),
        ({"mode": "max", "divergence_threshold": 1.0}, [3, 2, 0, 9], 2, "DIVERGENCE_THRESHOLD"),
        ({"patience": 9}, [3, 3, 3, 3], 0, "NOT_STOPPED"),
    ],
)
def test_when_and_why_it_stops(settings, losses, stopped, reason):
    stopping = EarlyStopping("val_loss", **settings)
    trainer = fit(stopping, model=Tiny(losses), max_epochs=4)
    assert (stopping.stopped_epoch, stopping.stopping_reason.name) == (stopped, reason)
    assert trainer.current_epoch == (stopped + 1 if stopped else 4)
    assert (stopping.stopping_reason_message is None) == (reason == "NOT_STOPPED")


def test_it_checks_after_each_validation_where_validations_are_more_frequent_than_epochs():
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = fit(stopping, model=Tiny([1, 2, 3, 4]), val_check_interval=0.5)
    assert trainer.global_step == 6


def test_min_epochs_outlasts_it():
    stopping = EarlyStopping("val_loss", patience=1)
    trainer = fit(stopping, model=Tiny([1, 2, 3, 4, 5]), max_epochs=5, min_epochs=4)
    assert trainer.current_epoch == 4


def test_a_metric_that_recovers_before_min_epochs_takes_the_stop_back():
    stopping = EarlyStopping("val_loss", patience=2)
    trainer = fit(stopping, model=Tiny([3, 4, 4, 2, 1, 0]), max_epochs=6, min_epochs=4)
    assert (trainer.current_epoch, trainer.should_stop) == (6, False)
    assert stopping.stopping_reason is EarlyStoppingReason.NOT_STOPPED and stopping.stopping_reason_message is None


def test_a_metric_that_recovers_does_not_take_back_what_another_callback_asks():
    recovers, exhausted = EarlyStopping("val_loss", patience=2), EarlyStopping("val_loss", mode="max", patience=5)
    trainer = fit(recovers, exhausted, model=Tiny([9, 10, 11, 8, 7, 6, 5, 4]), max_epochs=8, min_epochs=4)
    assert trainer.current_epoch == 8 and recovers.wait_count == 0
    trainer = fit(
        EarlyStopping("val_loss", patience=2),
        EarlyStopping("val_loss", mode="max", divergence_threshold=2.5),
        model=Tiny([3, 4, 5, 2, 1, 0]),
        max_epochs=6,
        min_epochs=4,
    )
    assert trainer.current_epoch == 4


def test_a_metric_that_recovers_does_not_take_back_what_the_user_asks():
    class Stops(Tiny):
        def on_train_epoch_end(self):
            if self.trainer.current_epoch == 2:
                self.trainer.should_stop = True

    model = Stops([3, 4, 4, 2, 1, 0])
    assert fit(EarlyStopping("val_loss", patience=1), model=model, max_epochs=6, min_epochs=4).current_epoch == 4


def test_a_resumed_run_has_the_patience_of_now_and_has_waited_as_long_as_before():
    fit(EarlyStopping("val_loss", patience=2), ModelCheckpoint("out"), model=Tiny([1, 2, 3]), max_epochs=9)
    patient = EarlyStopping("val_loss", patience=4)
    saved, watch = "out/epoch=2-step=12.ckpt", ModelCheckpoint("out")
    trainer = fit(patient, watch, model=Tiny([9]), max_epochs=9, ckpt_path=saved)
    assert (patient.patience, patient.wait_count, trainer.current_epoch) == (4, 4, 5)
    hasty = EarlyStopping("val_loss", patience=1)
    assert fit(hasty, watch, model=Tiny([9]), max_epochs=9, ckpt_path=saved).current_epoch == 3


def test_a_stop_that_waits_for_min_steps_survives_a_resume():
    """Asked for at the end of the second epoch, it ends the run at step 10, in the middle of the third."""
    flags = {"max_epochs": 9, "min_steps": 10}
    whole = fit(EarlyStopping("val_loss", patience=1), ModelCheckpoint("out"), model=Tiny([1, 2]), **flags)
    files = [ModelCheckpoint("two", save_top_k=-1) for _ in range(2)]
    fit(EarlyStopping("val_loss", patience=1), files[0], model=Tiny([1, 2]), **flags)
    resumed = EarlyStopping("val_loss", patience=1)
    again = fit(resumed, files[1], model=Tiny([9]), ckpt_path="two/epoch=1-step=8.ckpt", **flags)
    assert again.global_step == whole.global_step == 10


def test_a_monitor_that_is_not_logged_is_an_error_at_the_first_check():
    with pytest.raises(RuntimeError, match="Did you mean 'val_loss'.*train_loss, train_mean, val_loss"):
        fit(EarlyStopping("val_los"))


def test_not_strict_warns_and_goes_on():
    with pytest.warns(RuntimeWarning, match="no metric 'nope'"):
        trainer = fit(EarlyStopping("nope", strict=False), max_epochs=2)
    assert trainer.current_epoch == 2


def test_the_sanity_check_and_fast_dev_run_do_not_count():
    stopping = EarlyStopping("val_loss", patience=1, check_on_train_epoch_end=False)
    fit(stopping, model=Tiny([1, 0]), max_epochs=1, num_sanity_val_steps=2)
    assert stopping.best_score == 1
    fit(stopping, fast_dev_run=True)
    assert stopping.best_score == 1


def test_state_goes_on_after_resuming():
    first = EarlyStopping("val_loss", patience=3)
    fit(first, ModelCheckpoint("out"), model=Tiny([1, 2]), max_epochs=2)
    assert first.state_dict() == {
        "wait_count": 1,
        "stopped_epoch": 0,
        "best_score": torch.tensor(1.0),
        "patience": 3,
        "stopping_reason": 0,
        "stopping_reason_message": None,
    }
    resumed = EarlyStopping("val_loss", patience=3)
    checkpoint = ModelCheckpoint("out")
    trainer = fit(resumed, checkpoint, model=Tiny([2, 3, 4]), max_epochs=9, ckpt_path="out/epoch=1-step=8.ckpt")
    assert trainer.current_epoch == 4
    assert resumed.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED


def test_verbose_tells_of_improvements(caplog):
    with caplog.at_level(logging.INFO, "fulgurite"):
        fit(EarlyStopping("val_loss", verbose=True), model=Tiny([3, 2]), max_epochs=2)
    assert "New best score: 3.000" in caplog.text
    assert "improved by 1.000 >= min_delta = 0.0. New best score: 2.000" in caplog.text


def test_wrong_mode():
    with pytest.raises(MisconfigurationException, match="mode='low'"):
        EarlyStopping("val_loss", mode="low")


def test_state_key():
    assert EarlyStopping("val_loss").state_key == "EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}"
