"""What can be learned of a batch or a loader by looking at it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterDataPipe, get_worker_info
from torch.utils.data._utils.worker import _generate_state

from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import warn_once
from fulgurite.utilities.seed import collect_rng_state, pl_worker_init_function, restore_rng_state


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


# persistent workers
def keeps_workers(loader: Any) -> bool:
    """Whether a loader's workers live on from one pass over the data to the next."""
    iterates = isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__
    return iterates and loader.persistent_workers and not isinstance(loader.dataset, IterDataPipe)


def has_workers(loader: Any) -> bool:
    """Whether workers of a loader live now."""
    return getattr(loader, "_iterator", None) is not None


def opened(loader: Any, workers_lived: bool = False) -> Iterator[Any]:
    """The loader's iterator. Persistent workers draw random numbers as new ones would, anew in each pass.

    `workers_lived`: they had been started before the pass that this one repeats.
    """
    if not keeps_workers(loader):
        return iter(loader)
    if workers_lived and not has_workers(loader):
        _start_workers(loader)
    if has_workers(loader):
        _seed_workers(loader)
    return iter(loader)


def _start_workers(loader: DataLoader[Any]) -> None:
    """Have workers that have loaded nothing; what starting them draws leaves no trace."""
    state, own = collect_rng_state(), loader.generator and loader.generator.get_state()
    idle = twin_of(loader, **{"sampler" if loader.batch_sampler is None else "batch_sampler": ()})
    iterator: Any = iter(idle)
    iterator._index_sampler = loader._index_sampler
    loader._iterator = iterator
    restore_rng_state(state)
    if own is not None:
        loader.generator.set_state(own)


def _seed_workers(loader: DataLoader[Any]) -> None:
    """Draw what torch draws for new workers, and have the living ones take their seeds from it."""
    iterator: Any = loader._iterator
    iter(iterator._index_sampler)  # torch asks for the indices twice, and a sampler may draw each time
    base = int(torch.empty((), dtype=torch.int64).random_(generator=loader.generator).item())
    iterator._base_seed, iterator._shared_seed = base, _Seed(base, _own_seeding(loader.worker_init_fn))


def _own_seeding(init: Any) -> Any:
    """A worker's `worker_init_fn` where it does nothing but seed, and so may be called again: our own."""
    own = init.func if isinstance(init, functools.partial) else init
    return init if own is pl_worker_init_function else None


class _Seed:
    """Travels to a worker with torch's message that a new pass begins, and seeds the process that unpickles it."""

    def __init__(self, base: int, init: Any) -> None:
        self.base, self.init = base, init

    def __reduce__(self) -> Any:
        return _seed_this_worker, (self.base, self.init)


def _seed_this_worker(base: int, init: Any) -> None:
    """As torch seeds a new worker."""
    worker: Any = get_worker_info()
    seed = base + worker.id
    object.__setattr__(worker, "seed", seed)  # which torch forbids to assign
    random.seed(seed)
    torch.manual_seed(seed)
    if (np := sys.modules.get("numpy")) is not None:
        np.random.seed(_generate_state(base, worker.id))  # type: ignore[no-untyped-call]  # torch's own
    if init is not None:
        init(worker.id)
