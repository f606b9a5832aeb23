from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from fulgurite import Callback, Trainer
from fulgurite.callbacks import ModelCheckpoint, StochasticWeightAveraging
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import QUIET, Tiny, data, fit


class Watch(Callback):
    def __init__(self):
        self.starts, self.rates = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.starts.append(pl_module.layer.weight.detach().clone())

    def on_train_epoch_end(self, trainer, pl_module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Scheduled(Tiny):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        return [optimizer], [ExponentialLR(optimizer, 0.5)]


def test_the_mean_of_the_weights_at_epoch_starts_remains():
    watch, model = Watch(), Tiny()
    fit(StochasticWeightAveraging(0.01, swa_epoch_start=3), watch, model=model, max_epochs=5)
    assert torch.allclose(model.layer.weight, torch.stack(watch.starts[2:]).mean(0))


def test_a_part_of_the_epochs():
    averaging = StochasticWeightAveraging(0.01, swa_epoch_start=0.5)
    fit(averaging, max_epochs=6)
    assert (averaging.swa_start, averaging.swa_end, averaging.state_dict()["n_averaged"]) == (2, 5, 4)


def test_it_takes_the_place_of_the_scheduler():
    watch = Watch()
    averaging = StochasticWeightAveraging(0.1, swa_epoch_start=2, annealing_epochs=2, annealing_strategy="linear")
    fit(averaging, watch, model=Scheduled(), max_epochs=5)
    assert watch.rates == pytest.approx([0.5, 0.3, 0.1, 0.1, 0.1])


class Normed(Tiny):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def training_step(self, batch, batch_idx):
        self.log("loss", loss := self.layer(self.norm(batch)).pow(2).mean())
        return loss


def test_batch_norm_is_measured_anew_for_the_averaged_weights():
    model = Normed()
    fit(StochasticWeightAveraging(0.01, swa_epoch_start=1), model=model, max_epochs=2)
    whole = torch.cat(list(data()))
    assert torch.allclose(model.norm.running_mean, whole.mean(0), atol=1e-6)
    assert model.norm.num_batches_tracked == 4
    assert model.norm.momentum == 0.1


@pytest.mark.parametrize("collected", [lambda loader: {"a": loader}, lambda loader: [loader, data(2)]])
def test_batch_norm_is_measured_on_several_loaders_by_a_step_that_takes_no_batch_idx(collected):
    class Several(Normed):
        def training_step(self, batch):
            return super().training_step(batch["a"] if isinstance(batch, dict) else batch[0], 0)

    model, averaging = Several(), StochasticWeightAveraging(0.01, swa_epoch_start=1)
    trainer = Trainer(**QUIET, callbacks=[averaging], max_epochs=2, enable_progress_bar=False)
    trainer.fit(model, collected(data()), data(1))
    assert torch.allclose(model.norm.running_mean, torch.cat(list(data())).mean(0), atol=1e-6)


def test_a_resumed_run_is_the_uninterrupted_one():
    models = [Scheduled(), Scheduled()]
    models[1].load_state_dict(models[0].state_dict())
    averaging = {"swa_lrs": 0.01, "swa_epoch_start": 2}
    checkpoint = {"dirpath": "out", "save_top_k": -1}
    fit(StochasticWeightAveraging(**averaging), ModelCheckpoint(**checkpoint), model=models[0], max_epochs=5)
    again = StochasticWeightAveraging(**averaging), ModelCheckpoint(**checkpoint)
    fit(*again, model=models[1], max_epochs=5, ckpt_path="out/epoch=2-step=12.ckpt")
    assert torch.equal(models[0].layer.weight, models[1].layer.weight)


def test_an_object_that_has_averaged_in_another_trainer_begins_anew():
    used, models = StochasticWeightAveraging(0.01, swa_epoch_start=2), [Tiny(), Tiny()]
    models[1].load_state_dict(models[0].state_dict())
    fit(used, max_epochs=3)
    fit(used, model=models[0], max_epochs=3)
    fit(StochasticWeightAveraging(0.01, swa_epoch_start=2), model=models[1], max_epochs=3)
    assert torch.equal(models[0].layer.weight, models[1].layer.weight)


@pytest.mark.parametrize("wrong", [{"swa_epoch_start": 0}, {"swa_epoch_start": 1.5}, {"swa_lrs": -1}, {"avg_fn": 1}])
def test_wrong_arguments(wrong):
    with pytest.raises(MisconfigurationException, match=next(iter(wrong))):
        StochasticWeightAveraging(**{"swa_lrs": 0.1, **wrong})


def test_the_number_of_epochs_must_be_known():
    with pytest.raises(MisconfigurationException, match="max_epochs"):
        fit(StochasticWeightAveraging(0.1), max_epochs=-1, max_steps=3)


def test_as_many_rates_as_parameter_groups():
    with pytest.raises(MisconfigurationException, match=r"swa_lrs=\[0.1, 0.2\] has 2 rates, .* has 1 parameter groups"):
        fit(StochasticWeightAveraging([0.1, 0.2], swa_epoch_start=1))
