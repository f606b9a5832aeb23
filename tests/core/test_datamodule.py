from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

from fulgurite.core.datamodule import LightningDataModule
from fulgurite.core.saving import plain_hparams, write_checkpoint
from fulgurite.demos.boring_classes import RandomIterableDataset

ROWS = TensorDataset(torch.arange(4))


class Data(LightningDataModule):
    def __init__(self, n: int = 4, source: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="source")
        self.source = source
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict["seen"]


def test_it_comes_back_from_a_checkpoint_with_its_state() -> None:
    data = Data(7)
    data.seen = 3
    checkpoint = {
        "datamodule_hyper_parameters": plain_hparams(data.hparams)[0],
        "datamodule_hparams_name": data._hparams_name,
        "Data": data.state_dict(),
    }
    write_checkpoint(checkpoint, "a.ckpt")
    loaded = Data.load_from_checkpoint("a.ckpt", source="s")
    assert (loaded.hparams, loaded.source, loaded.seen) == ({"n": 7}, "s", 3)
    with pytest.raises(TypeError, match="not called on an instance"):
        data.load_from_checkpoint("a.ckpt")


def test_loaders_from_data_sets_shuffle_for_training_only() -> None:
    data = LightningDataModule.from_datasets(ROWS, [ROWS, ROWS], {"a": ROWS}, batch_size=2)
    assert isinstance(data.train_dataloader().sampler, RandomSampler)
    assert [type(loader.sampler) for loader in data.val_dataloader()] == [SequentialSampler] * 2
    assert data.test_dataloader()["a"].batch_size == 2
    with pytest.raises(ValueError, match="`predict_dataloader` must be implemented"):
        data.predict_dataloader()
    assert len(pickle.loads(pickle.dumps(data)).train_dataloader()) == 2


def test_iterable_data_sets_are_not_shuffled() -> None:
    data = LightningDataModule.from_datasets(RandomIterableDataset(2, 3))
    assert len(list(data.train_dataloader())) == 3


def test_the_batch_size_reaches_init_where_it_takes_one() -> None:
    class Sized(LightningDataModule):
        def __init__(self, batch_size: int, flag: bool = False) -> None:
            super().__init__()
            self.batch_size, self.flag = batch_size, flag

    data = Sized.from_datasets(ROWS, batch_size=3, flag=True)
    assert isinstance(data, Sized) and (data.batch_size, data.flag) == (3, True)


def test_it_shows_its_loaders() -> None:
    class Shown(LightningDataModule):
        def train_dataloader(self) -> Any:
            return [DataLoader(ROWS), DataLoader(ROWS, batch_size=2)]

        def val_dataloader(self) -> Any:
            return {"a": DataLoader(ROWS), "b": DataLoader(RandomIterableDataset(1, 1))}

        def test_dataloader(self) -> Any:
            return DataLoader(self.made_in_setup)

    assert str(Shown()).splitlines() == [
        "{Train dataloader: 0. size=4 ; 1. size=2}",
        "{Validation dataloader: a. size=4 ; b. size=unknown}",
        "{Test dataloader: not available yet}",
        "{Predict dataloader: None}",
    ]
