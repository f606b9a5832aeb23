"""The batch-size search, with memory that ends at a known size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fulgurite as pl
from fulgurite.tuner import Tuner
from fulgurite.tuner.batch_size_scaling import is_out_of_memory
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
    """Batches of more than `memory` rows are too much for it."""

    def __init__(self, memory: int = 50, rows: int = 10_000, message: str = "CUDA out of memory. Tried") -> None:
        super().__init__()
        self.memory, self.rows, self.message = memory, rows, message
        self.layer = torch.nn.Linear(4, 1)
        self.batch_size = 8
        self.tried: set[int] = set()

    def loader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(self.rows, 4)), batch_size=self.batch_size, shuffle=True)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(batch[0]) > self.memory:
            raise RuntimeError(self.message)
        TRIED.append(len(batch[0]))
        return self.layer(batch[0]).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


TRIED: list[int] = []


@pytest.fixture(autouse=True)
def nothing_tried() -> None:
    TRIED.clear()


def trainer(**flags: Any) -> pl.Trainer:
    return pl.Trainer(**FLAGS | flags)


def steps() -> list[int]:
    return list(dict.fromkeys(TRIED))


def test_power_doubles_until_memory_runs_out() -> None:
    module = Net()
    assert Tuner(trainer()).scale_batch_size(module) == 32 == module.batch_size
    assert steps() == [2, 4, 8, 16, 32]
    assert len(TRIED) == 15  # three steps each


def test_binsearch_closes_in_and_takes_the_margin_off() -> None:
    assert Tuner(trainer()).scale_batch_size(Net(), mode="binsearch") == 47
    assert steps() == [2, 4, 8, 16, 32, 48, 50]


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"init_val": 7}, 28),
        ({"init_val": 60}, 30),  # the first size is too large already
        ({"max_trials": 3}, 8),
        pytest.param({"max_val": 33}, 33, marks=pytest.mark.slow),
        pytest.param({"mode": "binsearch", "margin": 0}, 50, marks=pytest.mark.slow),
        pytest.param({"mode": "binsearch", "init_val": 200, "margin": 0}, 50, marks=pytest.mark.slow),
        ({"mode": "binsearch", "max_val": 20, "margin": 0.5}, 10),
    ],
)
def test_arguments(arguments: dict[str, Any], size: int) -> None:
    assert Tuner(trainer()).scale_batch_size(Net(), **arguments) == size


def test_no_more_rows_than_there_are() -> None:
    assert Tuner(trainer()).scale_batch_size(Net(memory=10**9, rows=100)) == 100


def test_nothing_fits_is_an_error() -> None:
    module = Net(memory=0)
    with pytest.raises(RuntimeError, match="down to 1; there is none that fits"):
        Tuner(trainer()).scale_batch_size(module)
    assert module.batch_size == 8


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    module = Net(message="shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Tuner(trainer()).scale_batch_size(module)
    assert module.batch_size == 8


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError(), True),
        (RuntimeError("a tensor of 2 elements"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_torchs_own_message_on_the_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_everything_but_the_size_is_as_before() -> None:
    module, tuned = Net(), trainer()
    weights, draws = [p.detach().clone() for p in module.parameters()], torch.get_rng_state()
    Tuner(tuned).scale_batch_size(module)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(weights, module.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), draws)
    assert tuned.global_step == 0 and tuned._run is None and tuned.max_steps == -1


@pytest.mark.parametrize("method", ["validate", "test", "predict"])
def test_evaluations_are_scaled_too(method: Any) -> None:
    module = Net()
    assert Tuner(trainer()).scale_batch_size(module, method=method) == 32
    assert len(TRIED) == 15 and module.training


def test_the_size_may_live_in_a_data_module() -> None:
    class Data(pl.LightningDataModule):
        def __init__(self, batch_size: int = 8) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.ones(1000, 4)), batch_size=self.hparams.batch_size)

    class Bare(pl.LightningModule):
        memory, message = 50, "out of memory"
        training_step = Net.training_step
        configure_optimizers = Net.configure_optimizers

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

    data = Data()
    assert Tuner(trainer()).scale_batch_size(Bare(), datamodule=data) == 32 == data.hparams.batch_size
    assert data.trainer is None


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"mode": "cube"}, MisconfigurationException, "'power', 'binsearch'"),
        ({"margin": 1.0}, ValueError, "margin=1.0"),
        ({"max_trials": 0}, ValueError, "max_trials=0"),
        ({"batch_arg_name": "rows_per_batch"}, MisconfigurationException, "'rows_per_batch'"),
        ({"train_dataloaders": [1]}, MisconfigurationException, "passed ready-made"),
        ({"method": "dance"}, MisconfigurationException, "'dance'"),
        ({"method": "test", "train_dataloaders": [1]}, MisconfigurationException, "pass dataloaders"),
    ],
)
def test_what_cannot_be_searched_is_a_clear_error(arguments: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        Tuner(trainer()).scale_batch_size(Net(), **arguments)


def test_a_loader_that_ignores_the_attribute_is_an_error() -> None:
    class Fixed(Net):
        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.ones(100, 4)), batch_size=5)

    with pytest.raises(MisconfigurationException, match="with batch_size=4 the loader has batch_size=5"):
        Tuner(trainer()).scale_batch_size(Fixed())
