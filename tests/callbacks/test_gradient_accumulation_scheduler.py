from __future__ import annotations

import pytest

from fulgurite import Callback
from fulgurite.callbacks import GradientAccumulationScheduler
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit


class Steps(Callback):
    def __init__(self):
        self.at_epoch_end = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.at_epoch_end.append(trainer.global_step)


@pytest.mark.parametrize(("scheduling", "steps"), [({0: 4, 1: 2, 2: 1}, [1, 3, 7]), ({1: 4}, [4, 5, 6])])
def test_the_window_changes_with_the_epoch(scheduling, steps):
    watch = Steps()
    fit(GradientAccumulationScheduler(scheduling), watch)
    assert watch.at_epoch_end == steps


def test_a_second_fit_of_the_same_trainer_is_no_contradiction():
    trainer = fit(GradientAccumulationScheduler({0: 4, 1: 2}), max_epochs=2)
    trainer.fit_loop.max_epochs = 3
    from helpers.tiny import data

    trainer.fit(Tiny(), data(), data(1))


def test_contradictions():
    with pytest.raises(ValueError, match="both set the window"):
        fit(GradientAccumulationScheduler({0: 2}), accumulate_grad_batches=2)
    with pytest.raises(TypeError, match="at least one epoch"):
        GradientAccumulationScheduler({})
    with pytest.raises(MisconfigurationException, match="epoch -1"):
        GradientAccumulationScheduler({-1: 2})
    with pytest.raises(MisconfigurationException, match="0 batches"):
        GradientAccumulationScheduler({0: 0})


def test_manual_optimization_is_an_error():
    class Manual(Tiny):
        automatic_optimization = False

    with pytest.raises(RuntimeError, match="manual optimization"):
        fit(GradientAccumulationScheduler({0: 2}), model=Manual())
