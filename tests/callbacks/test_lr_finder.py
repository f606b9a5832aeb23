"""The learning-rate search at the start of fit, and at any epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fulgurite as pl
from fulgurite.callbacks.lr_finder import LearningRateFinder
from fulgurite.tuner import Tuner
from fulgurite.utilities.exceptions import MisconfigurationException

FLAGS: dict[str, Any] = {
    "max_epochs": 2,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.lr, self.rates = 0.01, []
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def on_train_epoch_start(self) -> None:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=1)
        return [optimizer], [warmup]

    def train_dataloader(self) -> Any:
        x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True) + 10), 4, shuffle=True)


def test_fit_trains_with_the_rate_found_schedulers_included() -> None:
    module, finder = Net(), LearningRateFinder()
    trainer = pl.Trainer(**FLAGS, callbacks=[finder])
    trainer.fit(module)
    assert finder.optimal_lr is not None
    assert module.lr == finder.optimal_lr.suggestion() != 0.01
    assert module.rates == [module.lr / 2, module.lr]
    assert trainer.global_step == 100


def test_a_module_whose_optimizer_has_a_rate_of_its_own_trains_with_the_rate_found() -> None:
    class Literal(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.5)

    module = Literal()
    pl.Trainer(**FLAGS, callbacks=[LearningRateFinder()]).fit(module)
    assert module.rates == [module.lr] * 2


def test_the_same_rate_as_the_tuners_and_the_same_training_after_it() -> None:
    pl.seed_everything(1, verbose=False)
    by_callback = Net()
    pl.Trainer(**FLAGS, callbacks=[LearningRateFinder()]).fit(by_callback)
    pl.seed_everything(1, verbose=False)
    by_tuner = Net()
    Tuner(pl.Trainer(**FLAGS)).lr_find(by_tuner)
    pl.Trainer(**FLAGS).fit(by_tuner)
    assert by_callback.lr == by_tuner.lr
    pairs = zip(by_callback.parameters(), by_tuner.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_without_update_attr_the_fit_is_the_one_without_the_search() -> None:
    def trained(callbacks: list[Any]) -> list[torch.Tensor]:
        pl.seed_everything(1, verbose=False)
        module = Net()
        pl.Trainer(**FLAGS, callbacks=callbacks).fit(module)
        return list(module.parameters())

    searched, plain = trained([LearningRateFinder(update_attr=False)]), trained([])
    assert all(torch.equal(a, b) for a, b in zip(searched, plain, strict=True))


def test_a_subclass_searches_again_at_a_later_epoch() -> None:
    class AtMilestones(LearningRateFinder):
        found: list[int] = []

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None: ...

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch in (0, 2):
                self.lr_find(trainer, pl_module)
                assert self.optimal_lr is not None
                self.found.append(len(self.optimal_lr.results["lr"]))

    module = Net()
    trainer = pl.Trainer(
        **FLAGS | {"max_epochs": 4}, callbacks=[AtMilestones(num_training_steps=30, early_stop_threshold=None)]
    )
    trainer.fit(module)
    assert AtMilestones.found == [30, 30]
    assert trainer.global_step == 200
    assert module.rates[2] == module.lr


def test_it_runs_before_callbacks_given_earlier() -> None:
    order: list[str] = []

    class Notes(pl.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            order.append(f"{pl_module.lr != 0.01}")

    pl.Trainer(**FLAGS | {"max_epochs": 1}, callbacks=[Notes(), LearningRateFinder(num_training_steps=50)]).fit(Net())
    assert order == ["True"]


def test_a_mode_that_is_none_is_an_error_at_once() -> None:
    with pytest.raises(MisconfigurationException, match="'linear', 'exponential'"):
        LearningRateFinder(mode="cosine")
