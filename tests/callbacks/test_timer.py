from __future__ import annotations

import time
from datetime import timedelta

import pytest
import torch

from fulgurite.callbacks import ModelCheckpoint, Timer
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit


@pytest.mark.parametrize("duration", ["00:00:01:30", timedelta(seconds=90), {"minutes": 1, "seconds": 30}])
def test_shapes_of_a_duration(duration):
    assert Timer(duration).time_remaining() == 90


def test_without_duration_it_only_measures():
    timer = Timer()
    fit(timer)
    assert timer.time_remaining() is None
    assert timer.time_elapsed() == timer.end_time() - timer.start_time() > 0
    assert timer.time_elapsed("validate") > 0
    assert timer.time_elapsed("test") == 0


def test_it_stops_when_the_time_is_up_by_step_and_by_epoch():
    trainer = fit(Timer(timedelta(0)), model=Tiny())
    assert trainer.global_step <= 1
    trainer = fit(Timer(timedelta(microseconds=1), interval="epoch"), min_epochs=1)
    assert trainer.current_epoch == 1


def test_max_time_is_a_timer():
    trainer = fit(max_time={"seconds": 0})
    assert trainer.global_step <= 1


def test_elapsed_time_goes_through_a_checkpoint_exactly():
    timer = Timer()
    fit(timer, ModelCheckpoint("out"), max_epochs=1)
    state = torch.load("out/epoch=0-step=4.ckpt", weights_only=True)["callbacks"]["Timer"]
    restored = Timer()
    restored.load_state_dict(state)
    assert restored.time_elapsed() == state["time_elapsed"]["train"] > 0


def test_a_resumed_run_whose_time_is_up_stops_at_once():
    timer = Timer(timedelta(days=1))
    fit(timer, ModelCheckpoint("out"), max_epochs=1)
    short = Timer(timedelta(microseconds=1))
    trainer = fit(short, ModelCheckpoint("out"), max_epochs=5, ckpt_path="out/epoch=0-step=4.ckpt")
    assert trainer.global_step == 4


def test_time_between_two_runs_does_not_count():
    timer = Timer()
    fit(timer, max_epochs=1)
    before = timer.time_elapsed()
    time.sleep(0.02)
    assert timer.time_elapsed() == before


def test_wrong_arguments():
    with pytest.raises(MisconfigurationException, match="interval='batch'"):
        Timer(interval="batch")
    with pytest.raises(MisconfigurationException, match="DD:HH:MM:SS"):
        Timer("12:00")
