from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR

from fulgurite.callbacks import LearningRateMonitor
from fulgurite.loggers import CSVLogger
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit


def scheduled(optimizer, **config):
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": ExponentialLR(optimizer, 0.5), **config}}


def two_groups(module, **first):
    return Adam([{"params": [module.layer.weight], "lr": 0.2, **first}, {"params": [module.layer.bias]}], lr=0.1)


class With(Tiny):
    def __init__(self, optimizers):
        super().__init__()
        self.optim = optimizers

    def configure_optimizers(self):
        return self.optim(self)


def monitored(optimizers, *, model=With, epochs=2, **settings):
    monitor = LearningRateMonitor(**settings)
    trainer = fit(monitor, model=model(optimizers), logger=CSVLogger("."), max_epochs=epochs, log_every_n_steps=2)
    return monitor, trainer


@pytest.mark.parametrize(
    ("optimizers", "expected"),
    [
        (lambda m: Adam(m.parameters(), 0.1), ["lr-Adam"]),
        (lambda m: scheduled(Adam(m.parameters(), 0.1), name="mine"), ["mine"]),
        (lambda m: two_groups(m), ["lr-Adam/pg1", "lr-Adam/pg2"]),
        (lambda m: two_groups(m, name="weights"), ["lr-Adam/weights", "lr-Adam/pg2"]),
        (lambda m: scheduled(two_groups(m), name="mine"), ["mine/pg1", "mine/pg2"]),
    ],
)
def test_names(optimizers, expected):
    monitor, trainer = monitored(optimizers)
    assert list(monitor.lrs) == expected
    assert set(expected) <= trainer.callback_metrics.keys()


class Manual(With):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.step()


@pytest.mark.parametrize(
    ("second", "names", "expected"),
    [
        (Adam, (None, None), ["lr-Adam", "lr-Adam-1"]),
        (SGD, (None, None), ["lr-Adam", "lr-SGD"]),
        (Adam, ("mine", None), ["mine", "lr-Adam"]),
        (Adam, ("a", "b"), ["a", "b"]),
    ],
)
def test_names_of_two_optimizers(second, names, expected):
    def optimizers(module):
        pair = Adam([module.layer.weight], 0.1), second([module.layer.bias], 0.2)
        return [scheduled(optimizer, name=name) for optimizer, name in zip(pair, names)]

    monitor, _ = monitored(optimizers, model=Manual)
    assert list(monitor.lrs) == expected


@pytest.mark.parametrize(
    ("interval", "scheduler", "expected"),
    [
        (None, "epoch", [1.0, 0.5]),
        (None, "step", [0.5, 0.125, 0.03125, 0.0078125]),
        ("epoch", "step", [1.0, 0.0625]),
        ("step", "epoch", [1.0, 1.0, 0.5, 0.5]),
    ],
)
def test_when_it_logs(interval, scheduler, expected):
    monitor, _ = monitored(lambda m: scheduled(SGD(m.parameters(), 1.0), interval=scheduler), logging_interval=interval)
    assert monitor.lrs == {"lr-SGD": expected}


def test_momentum_and_weight_decay():
    monitor, trainer = monitored(
        lambda m: SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=0.01), log_momentum=True, log_weight_decay=True
    )
    assert monitor.last_momentum_values == {"lr-SGD-momentum": 0.9}
    assert monitor.last_weight_decay_values == {"lr-SGD-weight_decay": 0.01}
    assert torch.isclose(trainer.callback_metrics["lr-SGD-momentum"], torch.tensor(0.9))


def test_an_optimizer_without_momentum_is_told_of():
    with pytest.warns(RuntimeWarning, match="Adagrad has no momentum"):
        monitored(lambda m: scheduled(torch.optim.Adagrad(m.parameters())), log_momentum=True)


def test_a_prefix_stands_before_the_name():
    monitor, _ = monitored(lambda m: SGD(m.parameters(), 0.1), log_key_prefix="optim/")
    assert list(monitor.lrs) == ["optim/lr-SGD"]


def test_two_groups_of_one_name_are_an_error():
    def optimizers(module):
        optimizer = two_groups(module, name="same")
        optimizer.param_groups[1]["name"] = "same"
        return optimizer

    with pytest.raises(MisconfigurationException, match="two parameter groups of one name"):
        monitored(optimizers)


def test_without_logger_it_is_an_error():
    with pytest.raises(MisconfigurationException, match="writes to a logger"):
        fit(LearningRateMonitor())


def test_unknown_interval():
    with pytest.raises(MisconfigurationException, match="logging_interval='batch'"):
        LearningRateMonitor("batch")
