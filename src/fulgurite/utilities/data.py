"""What can be learned of a batch or a loader by looking at it."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import warn_once


def extract_batch_size(batch: Any) -> int:
    """How many samples a batch holds: the length of its first tensor, with one warning where others differ."""
    sizes = _sizes(batch)
    size = next(sizes, None)
    if size is None:
        raise MisconfigurationException(
            f"the size of a batch of type {type(batch).__name__} cannot be told, for it holds no tensor. Say it: "
            "self.log(..., batch_size=...)."
        )
    if (other := next((s for s in sizes if s != size), None)) is not None:
        warn_once(
            f"The tensors of a batch differ in their first dimension ({size}, {other}, ...), so its size is ambiguous; "
            f"epoch means weigh this batch with {size}. If that is wrong, use self.log(..., batch_size=...).",
            key="ambiguous batch size",
        )
    return size


def first_size(batch: Any) -> int | None:
    """The length of a batch's first tensor; None where it holds none."""
    return next(_sizes(batch), None)


def _sizes(data: Any) -> Iterator[int]:
    if isinstance(data, Tensor):
        yield data.size(0) if data.dim() else 1
    elif isinstance(data, (str, bytes, Iterator)) or hasattr(data, "__array__"):  # looking into an iterator uses it up
        return
    elif isinstance(data, Iterable):
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _sizes(value)
    elif dataclasses.is_dataclass(data) and not isinstance(data, type):
        for field in dataclasses.fields(data):
            yield from _sizes(getattr(data, field.name))


def sized_len(dataloader: object) -> int | None:
    """The number of batches that a loader declares; None where it has no length."""
    try:
        return len(dataloader)  # type: ignore[arg-type]  # that it may have none is the question
    except (TypeError, NotImplementedError):
        return None


def has_len(dataloader: object) -> bool:
    """Whether a loader declares how many batches it has."""
    return sized_len(dataloader) is not None


def suggested_max_num_workers(local_world_size: int) -> int:
    """A number of DataLoader workers for each of `local_world_size` processes that leaves a core to the process."""
    if local_world_size < 1:
        raise ValueError(f"local_world_size={local_world_size} counts the processes of this machine: at least 1.")
    affinity = getattr(os, "sched_getaffinity", None)  # a container may own fewer cores than the machine has
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, cores // local_world_size - 1)


def twin_of(loader: DataLoader[Any], **samplers: Any) -> DataLoader[Any]:
    """A loader that shares data set and workers' settings; DataLoader forbids assigning its samplers."""
    twin = copy.copy(loader)
    twin.__dict__.update(samplers, _iterator=None)  # persistent workers are told indices by the one that started them
    return twin
