"""How several processes share one order of samples: who takes which, and how much each counts in a step.

The order is the user's own sampler's. Where it is not simply 0, 1, 2, ... process 0 draws it and tells the others,
so that all follow one order although each draws random numbers of its own. In training a batch of all processes
together is what one process with that batch size would have taken: process r takes r::N of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from fulgurite.utilities.data import sized_len

CHUNK = 1 << 16  # samples of the order told to the other processes at once: one broadcast for most epochs
TRUE_LENGTHS = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)  # these say their length


class Part(NamedTuple):
    """A batch's place in the step of all processes: samples of this process, and of all; whether it is the last."""

    is_last: bool
    mine: int
    total: int
    some_idle: bool = False  # some process has no sample of it


WHOLE = Part(False, 1, 1)


@dataclass(eq=False)
class Share(Sampler[Any]):
    """One process's share of a loader's order; takes the place of the loader's batch sampler."""

    sampler: Any  # the user's, of samples, or with `batch_size` None of batches
    batch_size: int | None  # samples of a batch of one process; None where `sampler` gives whole batches (or items)
    drop_last: bool  # leave out what does not fill a batch; False without a `batch_size`
    rank: int
    world_size: int  # how many share
    tell: Callable[[Any], Any]  # gives process 0's object to all
    items: bool = False  # `sampler` gives single items that the loader does not collate

    def told(self) -> Iterator[Any]:
        """The order, the same on all processes."""
        if type(self.sampler) is SequentialSampler:
            yield from self.sampler
            return
        size = CHUNK if self.batch_size is not None else CHUNK // 32
        drawn = iter(self.sampler) if self.rank == 0 else iter(())
        while True:
            chunk = self.tell(list(islice(drawn, size)) if self.rank == 0 else None)
            yield from chunk
            if len(chunk) < size:
                return


class TrainShare(Share):
    """Batches of equal number on all processes. Together, the n-th ones of all are one batch of the whole order.

    A process for which the last batch has nothing left gets one sample of another's, and `parts` says so: 0 of it are
    its own.
    """

    start = start_batch = 0  # samples (or batches of a sampler), and batches, of this epoch taken before a resume
    rest: Iterator[Any] | None = None  # of the order, where the epoch was begun by another number of processes

    def begin(self) -> None:
        """A new epoch."""
        self.start, self.start_batch, self.rest = 0, 0, None

    def go_on(self, taken: int, batches: int) -> None:
        """The rest of an epoch: the order is drawn now, and what was taken is left out."""
        self.rest = self.told()
        self.start, self.start_batch = sum(1 for _ in islice(self.rest, taken)), batches

    def taken(self, batches: int) -> int:
        """How much of the order all processes have taken after so many batches of the epoch."""
        return self.start + (batches - self.start_batch) * self.unit

    @property
    def unit(self) -> int:
        """Samples, or batches of a batch sampler, that all processes take together."""
        return self.world_size * (self.batch_size or 1)

    def __iter__(self) -> Iterator[Any]:
        self.parts: deque[Part] = deque()
        order, self.rest = self.rest or self.told(), None
        group = list(islice(order, self.unit))
        while group:
            if self.drop_last and len(group) < self.unit:
                return
            following = list(islice(order, self.unit))
            is_last = not following or (self.drop_last and len(following) < self.unit)
            yield self._mine(group, is_last)
            group = following

    def _mine(self, group: list[Any], is_last: bool) -> Any:
        if self.batch_size is not None:
            mine = group[self.rank :: self.world_size]
            self.parts.append(Part(is_last, len(mine), len(group), len(group) < self.world_size))
            return mine or group[:1]
        if self.items:
            has = self.rank < len(group)
            self.parts.append(Part(is_last, int(has), len(group), len(group) < self.world_size))
            return group[self.rank if has else 0]
        batches = [list(batch) for batch in group]
        mine = batches[self.rank] if self.rank < len(batches) else []
        total, some_idle = sum(map(len, batches)), len(batches) < self.world_size
        self.parts.append(Part(is_last, len(mine), total, some_idle))
        return mine or batches[0][:1]

    def __len__(self) -> int:
        left = max(len(self.sampler) - self.start, 0)
        return left // self.unit if self.drop_last else math.ceil(left / self.unit)


class EvalShare(Share):
    """Every sample once, on one process; processes may have different numbers of batches, or none."""

    def __iter__(self) -> Iterator[Any]:
        order = self.told()
        if self.drop_last:
            sized = sized_len(self.sampler) is not None
            order = islice(order, self._whole_batches()) if sized else self._filling_batches(order)
        mine = islice(order, self.rank, None, self.world_size)
        if self.batch_size is None:
            yield from mine
            return
        while batch := list(islice(mine, self.batch_size)):
            yield batch

    def _filling_batches(self, order: Iterator[Any]) -> Iterator[Any]:
        while len(batch := list(islice(order, self.batch_size))) == self.batch_size:
            yield from batch

    def __len__(self) -> int:
        return self.length_of(self.rank)

    def length_of(self, rank: int) -> int:
        """Batches of the process `rank`."""
        count = self._whole_batches() if self.drop_last else len(self.sampler)
        return math.ceil(max(count - rank, 0) / self.world_size / (self.batch_size or 1))

    def _whole_batches(self) -> int:
        """Samples that fill batches as one process would make them."""
        size = self.batch_size or 1
        return len(self.sampler) // size * size


def draws_indices(loader: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether a loader iterates as torch's own class does, over samples that a sampler chooses by their indices."""
    return (
        isinstance(loader, DataLoader)
        and type(loader).__iter__ is DataLoader.__iter__
        and not isinstance(loader.dataset, IterableDataset)
    )


def can_share(loader: Any) -> bool:
    """Whether a loader's order is known, so that it can be shared out; one that the user has shared out is not."""
    return draws_indices(loader) and not hasattr(loader, "load_state_dict") and not _shared_by_user(loader)


def keeps_its_order_to_itself(loader: Any) -> bool:
    """Whether a loader of a data set with a length gives every process all of it, because nobody can share it out."""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and not can_share(loader)
        and not _shared_by_user(loader)
    )


def _shared_by_user(loader: DataLoader[Any]) -> bool:
    inner = getattr(loader.batch_sampler, "sampler", None)
    return isinstance(loader.sampler, DistributedSampler) or isinstance(inner, DistributedSampler)


def share_of(
    loader: DataLoader[Any], kind: type[Share], rank: int, world_size: int, tell: Callable[[Any], Any]
) -> Share:
    """This process's share of the batches (without automatic batching: of the items) of a loader."""
    batches = loader.batch_sampler
    if batches is None:
        return kind(loader.sampler, None, False, rank, world_size, tell, items=True)
    if type(batches) is BatchSampler:
        return kind(batches.sampler, batches.batch_size, batches.drop_last, rank, world_size, tell)
    return kind(batches, None, False, rank, world_size, tell)


def declared_sizes(loader: Any) -> tuple[int, int, bool] | None:
    """(samples, batch size, drop_last) of a loader that torch's own samplers feed; None where sizes are not known."""
    if not draws_indices(loader) or type(loader.batch_sampler) is not BatchSampler:
        return None
    count = sized_len(loader.sampler) if type(loader.sampler) in (*TRUE_LENGTHS, DistributedSampler) else None
    return None if count is None else (count, loader.batch_sampler.batch_size, loader.batch_sampler.drop_last)


def parts_by_size(declared: list[tuple[int, int, bool]], rank: int, limit: float) -> Iterator[Part]:
    """What each batch counts, where all processes have said how many samples they have."""

    def sizes(samples: int, batch_size: int, drop_last: bool) -> list[int]:
        full, rest = divmod(samples, batch_size)
        return [batch_size] * full + [rest] * (rest > 0 and not drop_last)

    each = [sizes(*one) for one in declared]
    count = int(min(limit, max(map(len, each))))
    for i, row in enumerate(islice(zip_longest(*each, fillvalue=0), count), 1):
        yield Part(i == count, row[rank], sum(row), 0 in row)


# predictions
def in_order(ranks: list[list[Any]], share: Share | None) -> list[Any]:
    """What all processes predicted, in the order of the data set, in batches as one process would have them."""
    if share is None:  # shared out by the user: one process after the other
        return [output for outputs in ranks for output in outputs]
    if share.batch_size is None:
        return _interleaved(ranks)
    samples = [[sample for output in outputs for sample in _of_each_sample(output)] for outputs in ranks]
    ordered, size = _interleaved(samples), share.batch_size
    return [_batch(ordered[i : i + size]) for i in range(0, len(ordered), size)]


def _interleaved(ranks: list[list[Any]]) -> list[Any]:
    longest = max(map(len, ranks), default=0)
    return [row[i] for i in range(longest) for row in ranks if i < len(row)]


def _of_each_sample(output: Any) -> list[Any]:
    if isinstance(output, Tensor) and output.dim():
        return list(output.unbind())
    if isinstance(output, Mapping):
        parts = {name: _of_each_sample(value) for name, value in output.items()}
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]
    if isinstance(output, tuple):
        return list(zip(*map(_of_each_sample, output), strict=True))
    if isinstance(output, list):
        return list(output)
    raise TypeError(
        f"predict(gather=True) puts predictions in the order of the samples, and predict_step returned "
        f"{type(output).__name__}, which has no entry a sample. Return a tensor, a list, or a dictionary or tuple of "
        "these, with one entry a sample."
    )


def _batch(samples: list[Any]) -> Any:
    first = samples[0]
    if isinstance(first, Tensor):
        return torch.stack(samples)
    if isinstance(first, dict):
        return {name: _batch([sample[name] for sample in samples]) for name in first}
    if isinstance(first, tuple):
        return tuple(_batch(list(column)) for column in zip(*samples, strict=True))
    return samples
