"""Data that nobody has made batches of is refused in every stage, with the line that makes a loader of it."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import fulgurite as pl
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.loaders import check_loaders

pytestmark = pytest.mark.filterwarnings("ignore:.*there is no validation data")
X, Y = torch.zeros(8, 3), torch.zeros(8, 1)
OF_TENSORS, OF_ARRAYS, OF_SET = "TensorDataset(X, y)", "TensorDataset(torch.as_tensor(X)", "DataLoader(dataset"
HOOKS = {"fit": "train_dataloader", "validate": "val_dataloader"} | {f: f"{f}_dataloader" for f in ("test", "predict")}


class Mapped(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return X[i], Y[i]


class Streamed(IterableDataset[Any]):
    def __init__(self, items: Any = X) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.batches = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.batches += 1
        return self.layer(X).sum()

    validation_step = test_step = predict_step = training_step  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer() -> pl.Trainer:
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(accelerator="cpu", max_epochs=1, **off)


DATA: dict[str, tuple[Any, str]] = {
    "a tensor": (X, OF_TENSORS),
    "an array": (X.numpy(), OF_ARRAYS),
    "an array scalar": (np.float64(1.0), "DataLoader"),
    "columns": ((X, Y), OF_TENSORS),
    "columns of arrays": ([X.numpy(), Y.numpy()], OF_TENSORS),
    "columns by name": ({"x": X, "y": Y}, OF_TENSORS),
    "rows of numbers": ([[0, 0], [1, 1]], "DataLoader(samples"),
    "samples": ([(X[0], 1), (X[1], 0)], "DataLoader(samples"),
    "samples by name": ([{"x": 1.0, "y": 1}] * 2, "DataLoader(samples"),
    "ready batches": ([X, X], "batch_size=None"),
    "a data set of tensors": (TensorDataset(X, Y), OF_SET),
    "a data set": (Mapped(), OF_SET),
    "a stream": (Streamed(), OF_SET),
    "a part of a data set": (Subset(Mapped(), [0, 1]), OF_SET),
    "several data sets": ([Mapped(), Mapped()], OF_SET),
    "a data set beside a loader": ({"a": DataLoader(X), "b": Mapped()}, OF_SET),
    "a name": ("train.csv", "DataLoader"),
    "a path": (Path("train.csv"), "DataLoader"),
}


@pytest.mark.parametrize("method", HOOKS)
@pytest.mark.parametrize("what", DATA)
def test_what_is_no_loader_names_the_line_to_write(what: str, method: str) -> None:
    data, line = DATA[what]
    model = Model()
    with pytest.raises(TypeError) as error:
        getattr(trainer(), method)(model, data)
    assert line in str(error.value)
    assert f"Trainer.{method}(" in str(error.value)
    assert model.batches == 0


@pytest.mark.parametrize("method", HOOKS)
@pytest.mark.parametrize("owner", ["module", "data module"])
def test_a_hook_that_returns_no_loader_is_named(owner: str, method: str) -> None:
    base = Model if owner == "module" else pl.LightningDataModule
    made = type("Own", (base,), {HOOKS[method]: lambda self: TensorDataset(X, Y)})()
    given: Any = (made,) if owner == "module" else (Model(), made)
    with pytest.raises(TypeError, match=rf"{HOOKS[method]}.*DataLoader\(dataset, batch_size=32\)"):
        getattr(trainer(), method)(*given)


@pytest.mark.parametrize("method", HOOKS)
def test_arrays_in_the_manner_of_scikit_learn(method: str) -> None:
    """y stands where a checkpoint or a data module would: what is wrong is said of X."""
    with pytest.raises(TypeError, match=r"DataLoader\(TensorDataset\(X, y\), batch_size=32\)"):
        getattr(trainer(), method)(Model(), X, Y)


def test_a_data_frame_says_how_to_take_its_columns() -> None:
    frame = pytest.importorskip("polars").DataFrame({"x": [1.0, 2.0]})
    with pytest.raises(TypeError, match=r"DataFrame of polars.*columns\.to_numpy\(\)"):
        trainer().fit(Model(), frame)


@pytest.mark.parametrize("value", [None, 5], ids=str)
@pytest.mark.parametrize("method", HOOKS)
def test_a_hook_that_is_no_function_is_a_type_error(method: str, value: Any) -> None:
    made = type("Own", (Model,), {HOOKS[method]: value if value is None else lambda self: value})()
    with pytest.raises(TypeError, match=HOOKS[method]):
        getattr(trainer(), method)(made)


@pytest.mark.parametrize("method", HOOKS)
def test_no_data_at_all_is_either_error_that_lightning_raises(method: str) -> None:
    with pytest.raises(MisconfigurationException, match="has no data") as error:
        getattr(trainer(), method)(Model())
    assert isinstance(error.value, TypeError)


def test_whatever_yields_batches_is_a_loader() -> None:
    pair = namedtuple("pair", "a b")(DataLoader(X), DataLoader(Y))
    for loaders in (
        DataLoader(Mapped()),
        [DataLoader(X), (batch for batch in [X])],
        iter([X]),
        [1.0, 2.0],  # numbers and texts as batches
        ["a", "b"],
        pair,
        Streamed([DataLoader(X)]).__iter__(),
        type("Own", (), {"__getitem__": lambda self, i: X[i]})(),
        pl.utilities.CombinedLoader([DataLoader(X), DataLoader(Y)]),
    ):
        check_loaders(loaders, "given")


def test_a_pipeline_of_data_that_ends_in_a_loader_is_a_loader() -> None:
    """Such as WebDataset's WebLoader, which is a data set by class."""
    pipeline = Streamed()
    pipeline.pipeline = [DataLoader(X, 4), list]  # type: ignore[attr-defined]
    check_loaders(pipeline, "given")
