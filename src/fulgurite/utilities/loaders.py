"""What is no loader yet, and the line that makes one of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fulgurite.utilities.combined_loader import CombinedLoader

_TABLES = ("pandas", "polars", "pyarrow")
_OF_TENSORS = "DataLoader(TensorDataset(X, y), batch_size=32)"


def check_loaders(loaders: Any, argument: str) -> None:
    """Refuse data that nobody has made batches of, wherever it stands in a collection of loaders."""
    listed = isinstance(loaders, (list, tuple))
    for part in loaders.flattened if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders).flattened:
        sets = [x for x in part if isinstance(x, Dataset)] if isinstance(part, (list, tuple)) else []
        what = _no_loader(sets[0] if sets else part)
        if listed and (isinstance(part, (Tensor, Number)) or _library(part) == "numpy" or _is_row(part, loaders)):
            raise TypeError(
                f"{argument} is a {type(loaders).__name__} of batches, samples or columns, and a list means several "
                "loaders, each yielding batches. Write DataLoader(samples, batch_size=32) for a list of samples, "
                f"{_OF_TENSORS} for columns, or DataLoader(batches, batch_size=None) for batches that are ready."
            )
        if what is not None:
            raise TypeError(f"{argument}: a loader yields batches, and {what}")


def _no_loader(data: Any) -> str | None:
    """What `data` is and what to write instead, or None where it can be iterated over for batches."""
    library, name = _library(data), type(data).__name__
    if isinstance(data, Tensor):
        return f"this is a tensor of shape {tuple(data.shape)}. Write {_OF_TENSORS}; without targets, TensorDataset(X)."
    if library == "numpy":
        return (
            f"this is an array of shape {getattr(data, 'shape', ())}. Write "
            f"{_OF_TENSORS.replace('X, y', 'torch.as_tensor(X), torch.as_tensor(y)')}."
        )
    if library in _TABLES:
        return (
            f"this is a {name} of {library}. Take its columns as arrays: "
            f"{_OF_TENSORS.replace('X, y', 'torch.as_tensor(columns.to_numpy()), ...')}."
        )
    if isinstance(data, (str, bytes, os.PathLike)):
        return (
            f"{data!r} is text, not data. Read the file into a data set and write DataLoader(dataset, batch_size=32); "
            f"for arrays, {_OF_TENSORS}."
        )
    if library == "datasets" or (isinstance(data, Dataset) and not _ends_in_a_loader(data)):
        return f"{name} is a data set, which yields samples. Write DataLoader(dataset, batch_size=32)."
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        return (
            f"{data!r:.80} of type {name} cannot be iterated over. Write DataLoader(dataset, batch_size=32), or pass "
            "any iterable of batches, or a list or dictionary of these."
        )
    return None


def _is_row(part: Any, table: Sequence[Any]) -> bool:
    """Whether this is one line of [[0, 0], [1, 1]]."""
    return part is not table and isinstance(part, (list, tuple)) and all(isinstance(x, Number) for x in part)


def _library(data: Any) -> str:
    return type(data).__module__.partition(".")[0]


def _ends_in_a_loader(data: Any) -> bool:
    """Pipelines such as WebDataset's WebLoader are data sets by class, and yield the batches of a loader inside."""
    values = vars(data).values()
    parts = [part for value in values for part in (value if isinstance(value, (list, tuple)) else [value])]
    return any(isinstance(part, DataLoader) for part in parts)
