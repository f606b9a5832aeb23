from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from fulgurite import Trainer
from fulgurite.callbacks import BasePredictionWriter
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.processes import run_ranks
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


class Stream(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


@pytest.mark.parametrize(
    "loader", [DataLoader([ROWS[:3], ROWS[3:]], batch_size=None), DataLoader(Stream(), 3)], ids=["batches", "stream"]
)
def test_data_without_positions(loader):
    class Plain(Written):
        def write_on_batch_end(self, trainer, module, prediction, batch_indices, *rest):
            self.batches.append(batch_indices)

    writer = Plain("batch")
    predict(writer, loader)
    assert writer.batches == [[], []]


def test_the_loader_is_as_before_afterwards_even_where_it_stands_twice_or_there_are_two_writers():
    class Other(Written): ...

    loader, writers = DataLoader(ROWS, 2), [Written("batch"), Other("batch")]
    sampler = loader.batch_sampler
    Trainer(callbacks=writers, **QUIET, enable_progress_bar=False).predict(Tiny(), [loader, loader])
    assert loader.batch_sampler is sampler
    for writer in writers:
        assert [indices for indices, _, _ in writer.batches] == [[0, 1], [2, 3], [4]] * 2


def test_a_loader_whose_persistent_workers_have_begun_elsewhere():
    loader, writer = DataLoader(ROWS, 2, num_workers=1, persistent_workers=True), Written("batch")
    list(loader)
    predict(writer, loader)
    assert [indices for indices, _, _ in writer.batches] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("interval", ["batch", "epoch"])
def test_a_writer_whose_start_and_end_are_its_own(interval):
    class Own(Written):
        def setup(self, trainer, pl_module, stage): ...
        def on_predict_start(self, trainer, pl_module): ...
        def on_predict_end(self, trainer, pl_module): ...

    writer = Own(interval)
    for _ in range(2):
        predict(writer, DataLoader(ROWS, 2))
    if interval == "batch":
        assert [indices for indices, _, _ in writer.batches] == [[0, 1], [2, 3], [4]] * 2
    else:
        assert [indices for _, indices in writer.epochs] == [[[[0, 1], [2, 3], [4]]]] * 2


@pytest.mark.slow
@pytest.mark.multi
def test_each_of_several_processes_is_told_the_positions_of_its_own_share():
    script = """
from torch.utils.data import DataLoader
from fulgurite.callbacks import BasePredictionWriter
from helpers.tiny import QUIET, Tiny

class Told(BasePredictionWriter):
    batches = []
    def write_on_batch_end(self, trainer, module, prediction, batch_indices, *rest):
        self.batches.append(batch_indices)
    def write_on_epoch_end(self, trainer, module, predictions, batch_indices):
        answer((self.batches, batch_indices))

trainer = pl.Trainer(callbacks=[Told("batch_and_epoch")], **QUIET, devices=WORLD_SIZE, enable_progress_bar=False)
trainer.predict(Tiny(), DataLoader(torch.randn(5, 4), 2))
"""
    assert run_ranks(script, 2) == [([[0, 2], [4]], [[[0, 2], [4]]]), ([[1, 3]], [[[1, 3]]])]


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
