from __future__ import annotations

import pytest
import torch
from torch import nn

from fulgurite import Callback
from fulgurite.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from helpers.tiny import Tiny, data, fit


class Weights(Callback):
    """Remembers the weights after each step, and those that validate."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(pl_module.layer.weight.detach().clone())

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validated.append(pl_module.layer.weight.detach().clone())


def test_the_mean_validates_and_stays_at_the_end():
    watch, model = Weights(), Tiny()
    fit(WeightAveraging(), watch, model=model, max_epochs=1)
    mean = torch.stack(watch.steps).mean(0)
    assert torch.allclose(watch.validated[0], mean)
    assert torch.equal(model.layer.weight, watch.validated[0])


def test_training_goes_on_with_the_live_weights():
    plain, averaged = Weights(), Weights()
    torch.manual_seed(0)
    fit(plain, max_epochs=2)
    torch.manual_seed(0)
    fit(averaged, WeightAveraging(), max_epochs=2)
    assert all(map(torch.equal, plain.steps, averaged.steps))


def test_the_checkpoint_holds_the_average_as_the_weights_and_the_live_ones_beside_them():
    watch = Weights()
    fit(WeightAveraging(), watch, ModelCheckpoint("out"), max_epochs=1)
    checkpoint = torch.load("out/epoch=0-step=4.ckpt", weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["layer.weight"], watch.validated[0])
    assert torch.equal(checkpoint["current_model_state"]["layer.weight"], watch.steps[-1])
    assert checkpoint["averaging_state"] == {"n_averaged": 4}


def test_layers_made_in_configure_model_are_averaged():
    class Late(Tiny):
        def __init__(self):
            super().__init__()
            self.layer = None

        def configure_model(self):
            if self.layer is None:
                self.layer = nn.Linear(4, 1)

    watch, model = Weights(), Late()
    fit(WeightAveraging(), watch, model=model, max_epochs=2)
    assert torch.allclose(model.layer.weight, torch.stack(watch.steps).mean(0))


@pytest.mark.parametrize("make", [WeightAveraging, lambda: EMAWeightAveraging(decay=0.5)])
def test_a_resumed_run_is_the_uninterrupted_one(make):
    torch.manual_seed(0)
    whole = Tiny()
    fit(make(), ModelCheckpoint("out", every_n_train_steps=3, save_top_k=-1), model=whole, max_epochs=2)
    resumed = Tiny()
    again = ModelCheckpoint("out", every_n_train_steps=3, save_top_k=-1)
    fit(make(), again, model=resumed, max_epochs=2, ckpt_path="out/epoch=0-step=3.ckpt")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)


def test_testing_a_checkpoint_uses_the_average():
    fit(WeightAveraging(), ModelCheckpoint("out"), max_epochs=1)
    checkpoint = torch.load("out/epoch=0-step=4.ckpt", weights_only=True)
    model = Tiny()
    trainer = fit(max_epochs=0)
    trainer.test(model, data(), ckpt_path="out/epoch=0-step=4.ckpt", verbose=False)
    assert torch.equal(model.layer.weight, checkpoint["state_dict"]["layer.weight"])


@pytest.mark.parametrize("make", [WeightAveraging, lambda: EMAWeightAveraging(decay=0.5)])
def test_an_object_that_has_averaged_in_another_trainer_begins_anew(make):
    used, models = make(), [Tiny(), Tiny()]
    models[1].load_state_dict(models[0].state_dict())
    fit(used, max_epochs=2)
    fit(used, model=models[0], max_epochs=1)
    fit(make(), model=models[1], max_epochs=1)
    assert torch.equal(models[0].layer.weight, models[1].layer.weight)


def test_the_weights_stay_where_nothing_was_averaged():
    watch, model = Weights(), Tiny()
    with pytest.warns(UserWarning, match="averaged nothing"):
        fit(EMAWeightAveraging(update_starting_at_step=1000), watch, model=model)
    assert torch.equal(model.layer.weight, watch.steps[-1])


def test_until_the_average_begins_the_weights_that_are_trained_validate_and_are_saved():
    watch = Weights()
    late = EMAWeightAveraging(decay=0.5, update_starting_at_step=6)  # in the second epoch
    fit(late, watch, ModelCheckpoint("out", save_top_k=-1), max_epochs=2)
    assert torch.equal(watch.validated[0], watch.steps[3])
    saved = torch.load("out/epoch=0-step=4.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["layer.weight"], watch.steps[3])
    average = 0.5 * watch.steps[6] + 0.5 * watch.steps[7]
    assert torch.allclose(watch.validated[1], average) and not torch.equal(watch.validated[1], watch.steps[7])


def test_a_run_resumed_before_the_average_begins_is_the_uninterrupted_one():
    def late():
        return EMAWeightAveraging(decay=0.5, update_starting_at_step=6), ModelCheckpoint("out", save_top_k=-1)

    whole, resumed = Tiny(), Tiny()
    fit(*late(), model=whole, max_epochs=2)
    fit(*late(), model=resumed, max_epochs=2, ckpt_path="out/epoch=0-step=4.ckpt")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)


def test_testing_the_best_checkpoint_of_the_same_trainer_uses_the_average():
    watch, model = Weights(), Tiny()
    trainer = fit(EMAWeightAveraging(decay=0.5), ModelCheckpoint("out", monitor="val_loss"), watch, model=model)
    trainer.test(model, data(), ckpt_path="best", verbose=False)
    assert torch.equal(model.layer.weight, watch.validated[1])  # of Tiny's losses 5, 3, 4


def test_a_checkpoint_without_an_average_begins_one():
    fit(ModelCheckpoint("out"), max_epochs=1)
    averaging = WeightAveraging()
    with pytest.warns(UserWarning, match="saved without WeightAveraging"):
        fit(averaging, ModelCheckpoint("out"), max_epochs=2, ckpt_path="out/epoch=0-step=4.ckpt")
    assert averaging._average_model.n_averaged == 4


@pytest.mark.parametrize(
    ("settings", "steps", "epochs"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6], []),
        ({"update_every_n_steps": 3}, [0, 3, 6], []),
        ({"update_every_n_steps": 3, "update_starting_at_step": 4}, [6], []),
        ({"update_starting_at_epoch": 2}, [0, 1, 2, 3, 4, 5, 6], [2, 3]),
    ],
)
def test_when_the_moving_average_takes_new_weights(settings, steps, epochs):
    averaging = EMAWeightAveraging(**settings)
    assert [i for i in range(7) if averaging.should_update(step_idx=i)] == steps
    assert [i for i in range(4) if averaging.should_update(epoch_idx=i)] == epochs


def test_an_exception_in_validation_leaves_the_live_weights():
    class Fails(Tiny):
        def validation_step(self, batch, batch_idx):
            raise ValueError("broken")

    watch, model = Weights(), Fails()
    with pytest.raises(ValueError, match="broken"):
        fit(WeightAveraging(), watch, model=model)
    assert torch.equal(model.layer.weight, watch.steps[-1])
