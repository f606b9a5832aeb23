from __future__ import annotations

import pytest
import torch
from torch import nn

from fulgurite import Callback
from fulgurite.callbacks import BackboneFinetuning, BaseFinetuning, ModelCheckpoint
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit


class TwoParts(Tiny):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def training_step(self, batch, batch_idx):
        return self.layer(self.backbone(batch)).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


class Later(BaseFinetuning):
    """Thaws the linear layer in epoch 1 and all in epoch 2."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone[0], optimizer)
        if epoch == 2:
            self.unfreeze_and_add_param_group(pl_module.backbone[1], optimizer, lr=0.5)


def test_the_backbone_joins_at_its_own_rate_and_catches_up():
    rates, model = Rates(), TwoParts()
    before = model.backbone[0].weight.detach().clone()
    fit(BackboneFinetuning(unfreeze_backbone_at_epoch=2), rates, model=model, max_epochs=2)
    assert torch.equal(model.backbone[0].weight, before)
    fit(BackboneFinetuning(unfreeze_backbone_at_epoch=2), rates, model=TwoParts(), max_epochs=7)
    assert rates.seen[2:4] == [[0.1], [0.1]]
    assert [head for head, _ in rates.seen[4:]] == [0.1] * 5
    assert [backbone for _, backbone in rates.seen[4:]] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.1])


def test_ones_own_schedule():
    rates = Rates()
    fit(Later(), rates, model=TwoParts(), max_epochs=3)
    assert rates.seen == [[0.1], [0.1, 0.01], [0.1, 0.01, 0.5]]


@pytest.mark.parametrize("make", [Later, lambda: BackboneFinetuning(1)])
@pytest.mark.parametrize("at", [4, 8, 10, 12])
def test_a_resumed_run_is_the_uninterrupted_one(make, at):
    """In Lightning what was thawed before the checkpoint stays frozen after it."""
    models = [TwoParts(), TwoParts()]
    models[1].load_state_dict(models[0].state_dict())
    saving = {"every_n_train_steps": 2, "save_top_k": -1, "filename": "{step}"}
    fit(make(), ModelCheckpoint("out", **saving), model=models[0], max_epochs=4)
    fit(make(), ModelCheckpoint("out", **saving), model=models[1], max_epochs=4, ckpt_path=f"out/step={at}.ckpt")
    assert all(map(torch.equal, models[0].state_dict().values(), models[1].state_dict().values()))


def test_a_run_of_an_object_used_before_can_be_resumed():
    used, models = BackboneFinetuning(unfreeze_backbone_at_epoch=1), [TwoParts(), TwoParts()]
    fit(used, model=TwoParts(), max_epochs=3)
    fit(used, ModelCheckpoint("out", save_top_k=-1), model=models[0], max_epochs=3)
    again = BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    fit(again, ModelCheckpoint("out"), model=models[1], max_epochs=3, ckpt_path="out/epoch=1-step=8.ckpt")
    assert torch.equal(models[0].backbone[0].weight, models[1].backbone[0].weight)


def test_batch_norm_may_go_on_training():
    backbone = TwoParts().backbone
    BaseFinetuning.freeze(backbone, train_bn=True)
    assert [p.requires_grad for p in backbone.parameters()] == [False, False, True, True]
    assert backbone[1].track_running_stats
    BaseFinetuning.freeze(backbone, train_bn=False)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone[1].track_running_stats
    BaseFinetuning.make_trainable(backbone)
    assert backbone[1].track_running_stats


def test_parameters_of_a_module_that_also_has_children_are_found():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.child = nn.Parameter(torch.zeros(1)), nn.Linear(1, 1)

    parent = Parent()
    BaseFinetuning.freeze([parent, {"more": nn.Linear(1, 1)}["more"]])
    assert not any(p.requires_grad for p in parent.parameters())
    assert [type(m).__name__ for m in BaseFinetuning.flatten_modules(parent)] == ["Parent", "Linear"]


def test_parameters_that_the_optimizer_has_already_are_told_of():
    model = TwoParts()
    BaseFinetuning.freeze(model.backbone, train_bn=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.warns(UserWarning, match="4 parameters to be thawed are in the optimizer already"):
        BaseFinetuning.unfreeze_and_add_param_group(model.backbone, optimizer)
    assert len(optimizer.param_groups) == 1


def test_a_module_without_backbone():
    with pytest.raises(MisconfigurationException, match=r"Tiny\.backbone"):
        fit(BackboneFinetuning())
