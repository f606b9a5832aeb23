"""The batch-size search at the start of fit and of an evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fulgurite as pl
from fulgurite.callbacks.batch_size_finder import BatchSizeFinder
from fulgurite.utilities.exceptions import MisconfigurationException

FLAGS: dict[str, Any] = {
    "max_epochs": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


class Net(pl.LightningModule):
    """Batches of more than 50 rows are too much for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.batch_size = 8
        self.sizes: list[int] = []

    def loader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(320, 4)), batch_size=self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(batch[0]) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes.append(len(batch[0]))
        return self.layer(batch[0]).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_fit_goes_on_with_the_size_found() -> None:
    module, finder = Net(), BatchSizeFinder()
    trainer = pl.Trainer(**FLAGS | {"num_sanity_val_steps": 0}, callbacks=[finder])
    trainer.fit(module)
    assert finder.optimal_batch_size == 32 == module.batch_size
    assert trainer.global_step == 10
    assert module.sizes == [32] * 20  # what the search noted is gone


@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_an_evaluation_goes_on_with_the_size_found(method: str) -> None:
    module, finder = Net(), BatchSizeFinder(mode="binsearch", margin=0.0)
    getattr(pl.Trainer(**FLAGS, callbacks=[finder]), method)(module)
    assert finder.optimal_batch_size == 50
    assert module.sizes == [50] * 6 + [20]


def test_the_validation_within_fit_does_not_search_again() -> None:
    class Counts(BatchSizeFinder):
        searches = 0

        def scale_batch_size(self, trainer: Any, pl_module: Any) -> None:
            self.searches += 1

    finder = Counts()
    pl.Trainer(**FLAGS, callbacks=[finder]).fit(Net())
    assert finder.searches == 1


def test_a_subclass_may_search_at_a_later_epoch_of_a_running_fit() -> None:
    class Later(BatchSizeFinder):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None: ...

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.scale_batch_size(trainer, pl_module)

    module = Net()
    flags = FLAGS | {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "limit_val_batches": 0}
    pl.Trainer(**flags, callbacks=[Later()]).fit(module)
    assert module.sizes == [8] * 80 + [32] * 10


def test_ready_made_loaders_are_refused() -> None:
    module = Net()
    with pytest.raises(MisconfigurationException, match="passed ready-made"):
        pl.Trainer(**FLAGS, callbacks=[BatchSizeFinder()]).fit(module, module.loader())


def test_a_mode_that_is_none_is_an_error_at_once() -> None:
    with pytest.raises(MisconfigurationException, match="'power', 'binsearch'"):
        BatchSizeFinder(mode="cube")
