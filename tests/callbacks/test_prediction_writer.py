from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from fulgurite import Trainer
from fulgurite.callbacks import BasePredictionWriter
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import QUIET, Tiny

ROWS = torch.arange(20.0).reshape(5, 4)


class Written(BasePredictionWriter):
    def __init__(self, interval):
        super().__init__(interval)
        self.batches, self.epochs = [], []

    def write_on_batch_end(self, trainer, module, prediction, batch_indices, batch, batch_idx, dataloader_idx):
        self.batches.append((batch_indices, batch_idx, dataloader_idx))
        assert torch.equal(ROWS[batch_indices], batch)

    def write_on_epoch_end(self, trainer, module, predictions, batch_indices):
        self.epochs.append((predictions, batch_indices))


def predict(writer, loaders, **how):
    trainer = Trainer(callbacks=[writer], **QUIET, enable_progress_bar=False)
    return trainer.predict(Tiny(), loaders, **how)


@pytest.mark.parametrize("workers", [0, 2])
def test_by_batch_with_the_positions_of_its_items(workers):
    writer = Written("batch")
    predict(writer, DataLoader(ROWS, 2, shuffle=True, num_workers=workers), return_predictions=False)
    assert sorted(i for indices, _, _ in writer.batches for i in indices) == [0, 1, 2, 3, 4]
    assert [batch_idx for _, batch_idx, _ in writer.batches] == [0, 1, 2]
    assert writer.epochs == []


@pytest.mark.parametrize("keep", [True, False])
def test_by_epoch_whether_or_not_the_trainer_keeps_predictions(keep):
    writer = Written("epoch")
    predict(writer, DataLoader(ROWS, 2), return_predictions=keep)
    ((predictions, indices),) = writer.epochs
    assert [len(p) for p in predictions] == [2, 2, 1]
    assert indices == [[[0, 1], [2, 3], [4]]]
    assert writer.batches == []


def test_several_loaders():
    writer = Written("batch_and_epoch")
    predict(writer, [DataLoader(ROWS, 3), DataLoader(ROWS, 5)])
    assert writer.batches == [([0, 1, 2], 0, 0), ([3, 4], 1, 0), ([0, 1, 2, 3, 4], 0, 1)]
    ((predictions, indices),) = writer.epochs
    assert [len(of_loader) for of_loader in predictions] == [2, 1]
    assert indices == [[[0, 1, 2], [3, 4]], [[0, 1, 2, 3, 4]]]


def test_data_without_positions():
    class Plain(Written):
        def write_on_batch_end(self, trainer, module, prediction, batch_indices, *rest):
            self.batches.append(batch_indices)

    writer = Plain("batch")
    predict(writer, DataLoader([ROWS[:2], ROWS[2:]], batch_size=None))
    assert writer.batches == [[], []]


def test_the_loader_is_as_before_afterwards():
    loader = DataLoader(ROWS, 2)
    sampler = loader.batch_sampler
    predict(Written("batch"), loader)
    assert loader.batch_sampler is sampler


def test_wrong_interval():
    with pytest.raises(MisconfigurationException, match="write_interval='step'"):
        BasePredictionWriter("step")


def test_a_writer_with_hooks_of_its_own_finds_the_positions_in_the_loop():
    """pytorch-forecasting's writer overrides the hooks without calling ours."""

    class Own(BasePredictionWriter):
        def on_predict_batch_end(self, trainer, module, *rest):
            self.current = trainer.predict_loop.current_batch_indices

        def on_predict_epoch_end(self, trainer, module):
            self.all, self.asked = trainer.predict_loop.epoch_batch_indices, self.interval.on_epoch

    loader = DataLoader(ROWS, 2)
    sampler, writer = loader.batch_sampler, Own("epoch")
    predict(writer, loader)
    assert writer.all == [[[0, 1], [2, 3], [4]]] and writer.current == [4] and writer.asked
    assert loader.batch_sampler is sampler
