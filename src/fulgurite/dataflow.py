"""From loaders to batches: limits, looking ahead for the last batch, transfer to the device, exact resume.

A training loop must know its last batch before it ends, for the last step of an epoch takes whatever window it has.
torch's own samplers say their length truly and are believed. Any other map-style loader is looked ahead in batch
*indices*, so no item is loaded early; anything else is looked ahead by one batch.
"""

from __future__ import annotations

import functools
import math
import os
import random
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from fulgurite.callbacks.prediction_writer import BasePredictionWriter
from fulgurite.hooks import overrides
from fulgurite.machine.precision import Precision
from fulgurite.machine.requeue import requeue
from fulgurite.machine.strategy import Strategy
from fulgurite.shards import (
    TRUE_LENGTHS,
    EvalShare,
    Part,
    Share,
    TrainShare,
    can_share,
    declared_sizes,
    draws_indices,
    in_order,
    keeps_its_order_to_itself,
    parts_by_size,
    share_of,
)
from fulgurite.utilities.combined_loader import CombinedLoader, loaders_of
from fulgurite.utilities.data import extract_batch_size, sized_len, twin_of
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.seed import collect_rng_state, pl_worker_init_function, restore_rng_state
from fulgurite.utilities.tree import apply_to_collection, move_data_to_device

if TYPE_CHECKING:
    from fulgurite.run import Run

_END = object()
Batches = Iterator[tuple[Any, bool]]


class DataFlow:
    """The data of one run: where each stage's loaders come from, and the batches made of them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._ahead: deque[bool] | None = None  # what a sampler that looks ahead says of the batches to come
        self._looks_ahead: tuple[DataLoader[Any], DataLoader[Any]] | None = None  # a loader, and its twin that does
        self.train: Any = None  # one iterable: the loader, or a CombinedLoader of several
        self.evaluation: dict[str, list[Any]] = {}  # the loaders of a stage, flattened
        self.given: dict[str, Any] = {}  # as the user gave them, for trainer.train_dataloader and its siblings
        self.train_batches_count: int | float = 0
        self.limits: dict[str, list[int | float]] = {}
        self.reloaded_at = -1
        self._first: Iterator[Any] | None = None
        self.now: dict[str, Any] | None = None  # the random state of the save, to walk on with
        self._loader_state: dict[str, Any] | None = None  # of a loader that keeps its own position
        self.rng: dict[str, Any] = {}  # when this epoch's loader was opened, and before its first batch

    # opening
    def open(self) -> None:
        """Load what fit needs; the first epoch's iterator too, before any hook of training may draw numbers."""
        run = self.run
        if self.train is None:
            self.open_train()
        if run.validates_in_epoch(run.progress.epoch) and "validation" not in self.evaluation:
            self.open_evaluation("validation")
        if self.train_batches_count and not run.progress.in_epoch:
            if self.now is not None:
                self.restore_draws(self.now)
                self.now = None
            self._first = self._fresh(run.progress.epoch)
        if not run.alone:
            run.agreement.exchange()  # hooks of the start may have said to stop

    def open_train(self) -> None:
        run, limit = self.run, self.run.trainer.limit_train_batches
        if limit == 0:
            self.train_batches_count = 0
            return
        self.given["train"] = loaders = run.load("train")
        self.train = self._prepare(loaders, "train")
        if isinstance(self.train, DataLoader):
            self.given["train"] = self.train  # with its sampler replaced under overfit_batches
        count = sized_len(self.train)
        if count == 0:
            raise ValueError(
                "the training loader has no batches (its length is 0). Check the data set's size, batch_size with "
                "drop_last=True, or write limit_train_batches=0 to skip training."
            )
        self.train_batches_count = limited(count, limit, "limit_train_batches")
        self.reloaded_at = run.progress.epoch
        run.set_validation_interval()

    def open_evaluation(self, stage: str) -> bool:
        """Load the loaders of "validation", "test" or "predict"; whether there is anything to evaluate."""
        run = self.run
        name = {"validation": "val"}.get(stage, stage)
        limit = getattr(run.trainer, f"limit_{name}_batches")
        if limit == 0 or not run.has_loader(stage):
            self.evaluation[stage], self.limits[stage] = [], []
            return False
        self.given[stage] = loaders = run.load(stage)
        self.evaluation[stage] = flat = self._prepare(loaders, stage)
        self.limits[stage] = [limited(_most(loader), limit, f"limit_{name}_batches") for loader in flat]
        run.check_dataloader_idx(stage)
        if not self.has_batches(stage):
            rank_zero_warn(f"the {stage} loaders have no batches, so {stage} is skipped.")
            return False
        return True

    def has_batches(self, stage: str) -> bool:
        """Whether there is anything to evaluate, on this process or another."""
        return any(n > 0 for n in self.limits[stage])

    def _prepare(self, loaders: Any, stage: str) -> Any:
        training = stage == "train"
        if isinstance(loaders, CombinedLoader):
            combined = loaders
        elif isinstance(loaders, (list, tuple, Mapping)):
            combined = CombinedLoader(loaders, mode="max_size_cycle" if training else "sequential")
        else:
            loader = self.run.strategy.process_dataloader(self._prepared(loaders, stage))
            return loader if training else [loader]
        process = self.run.strategy.process_dataloader
        combined.flattened = [process(self._prepared(loader, stage)) for loader in combined.flattened]
        if training:
            return combined
        return list(combined.flattened) if combined.mode == "sequential" else [combined]

    def _prepared(self, loader: Any, stage: str) -> Any:
        if not isinstance(loader, DataLoader):
            return loader
        draws = not isinstance(loader.dataset, IterableDataset) and not isinstance(loader.sampler, SequentialSampler)
        if self.run.trainer.overfit_batches and draws and stage in ("train", "validation"):
            loader = _in_order(loader, stage)
        if os.environ.get("PL_SEED_WORKERS", "0") == "1" and loader.worker_init_fn is None:
            loader.worker_init_fn = functools.partial(pl_worker_init_function, rank=self.run.strategy.global_rank)
        if not self.run.alone and self.run.trainer.use_distributed_sampler:
            loader = self._shared(loader, stage)
        return loader

    def _shared(self, loader: DataLoader[Any], stage: str) -> DataLoader[Any]:
        """A twin of the loader that gives this process's share of it."""
        strategy = self.run.strategy
        if keeps_its_order_to_itself(loader):
            rank_zero_warn(
                f"the {stage} loader ({type(loader).__name__}) has its own way of iterating and cannot be shared out, "
                f"so each of the {strategy.world_size} processes gets all of it. Give it a "
                "torch.utils.data.DistributedSampler, or use a plain DataLoader."
            )
        if not can_share(loader):
            return loader
        kind = TrainShare if stage == "train" else EvalShare
        share = share_of(loader, kind, strategy.data_rank, strategy.data_size, strategy.broadcast)
        return _with_share(loader, share)

    def reload_if_due(self) -> None:
        """Ask for the loaders again every `reload_dataloaders_every_n_epochs` epochs."""
        n, epoch = self.run.trainer.reload_dataloaders_every_n_epochs, self.run.progress.epoch
        if n and self.train is not None and epoch - self.reloaded_at >= n:
            self.open_train()
            self.evaluation.pop("validation", None)

    def open_for_validation(self) -> bool:
        """Have validation loaders, loading them where that has not happened yet or they are to be reloaded."""
        if "validation" not in self.evaluation:
            return self.open_evaluation("validation")
        return self.has_batches("validation")

    def close(self) -> None:
        """The run is over: no data worker outlives it, also where workers are persistent."""
        self._first = None
        twins = self._looks_ahead or ()
        for loader in (*twins, *loaders_of(self.train), *chain(*self.evaluation.values())):
            for part in loaders_of(loader):
                iterator = getattr(part, "_iterator", None)
                if iterator is not None and hasattr(iterator, "_shutdown_workers"):
                    iterator._shutdown_workers()
                    part._iterator = None

    def may_validate(self) -> bool:
        """Whether there is something to validate, as far as is known before the loaders are asked for."""
        return "validation" not in self.evaluation or self.has_batches("validation")

    # training
    def train_batches(self, epoch: int, skip: int = 0) -> Batches:
        """The batches of an epoch, each with whether it is the last; the loader is opened by this call.

        `skip` batches are done already: a resumed epoch replays the random draws that chose them.
        """
        self.run.strategy.renew()
        if skip:
            batches = self._resumed(epoch, skip)
        elif self.run.progress.epoch_closed:
            batches = iter(())
        else:
            opened, self._first = self._first if self._first is not None else self._fresh(epoch), None
            batches = self._with_last(opened)
        return self._delivered(batches)

    def _fresh(self, epoch: int) -> Iterator[Any]:
        set_epoch(self.train, epoch)
        if (share := _share(self.train)) is not None:
            share.begin()
        self.rng = {"open": self.draw_state()}  # a sampler draws its seed here, or at the first batch: two states
        return self._iterator(self.train)

    def _iterator(self, loader: Any) -> Iterator[Any]:
        self._ahead = None
        if self.run.alone and _batches_indices(loader) and not _true_length(loader) and not _is_stateful(loader):
            if self._looks_ahead is None or self._looks_ahead[0] is not loader:
                self._looks_ahead = loader, twin_of(loader, batch_sampler=_LookingAhead(loader.batch_sampler))
            twin = self._looks_ahead[1]  # the same one in each epoch: its workers may be persistent
            batches = iter(twin)
            self._ahead = cast("_LookingAhead", twin.batch_sampler).is_last
            return batches
        return iter(_batches(loader))

    def _indices(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The batches of indices that are to feed the loader."""
        self._ahead = None
        if _true_length(loader) or not self.run.alone:
            return iter(cast("Iterable[Any]", loader.batch_sampler))
        sampler = _LookingAhead(loader.batch_sampler)
        indices = iter(sampler)
        self._ahead = sampler.is_last
        return indices

    def _with_last(self, batches: Iterator[Any], done: int = 0) -> Batches:
        limit = self.train_batches_count
        self.rng["first"] = self.draw_state()
        if not self.run.alone or _share(self.train) is not None:
            return self._together(batches, done)
        if self._ahead is not None:
            return self._told_by_sampler(batches, done)
        if not math.isinf(limit) and (_true_length(self.train) or _is_stateful(self.train)):
            return self._counted(batches, int(limit), done)
        return _one_ahead(islice(batches, None if math.isinf(limit) else int(limit) - done))

    def _told_by_sampler(self, batches: Iterator[Any], done: int) -> Batches:
        assert self._ahead is not None
        ahead, limit = self._ahead, self.train_batches_count
        i = done
        while i < limit and (taken := list(islice(batches, 1))):
            i += 1
            yield taken.pop(), ahead.popleft() or i >= limit  # popped: no frame holds a batch while it waits
        if i == 0:
            raise _no_batch()

    # several processes: as many batches on each, and what each counts in its step
    def _together(self, batches: Iterator[Any], done: int) -> Batches:
        share = _share(self.train)
        if isinstance(share, TrainShare) and not share.items:
            return self._parts_of_share(batches, share, done)
        declared = self.run.strategy.gather_of_shares(
            declared_sizes(self.train) if share is None else None, "the sizes of the training batches"
        )
        if None not in declared:
            return self._parts_declared(batches, declared, done)
        return self._parts_exchanged(batches, share, done)

    def _parts_of_share(self, batches: Iterator[Any], share: TrainShare, done: int) -> Batches:
        limit, i = self.train_batches_count, done
        if share.start and self.run.trainer.limit_train_batches == 1.0:
            limit = math.inf  # the rest of an epoch has as many batches as this number of processes makes of it
        for i, batch in enumerate(batches, done + 1):
            part = share.parts.popleft()
            self.run.take(part)
            yield batch, part.is_last or i >= limit
            if i >= limit:
                return
        if i == done:
            raise _no_batch()

    def _parts_declared(self, batches: Iterator[Any], declared: list[Any], done: int) -> Batches:
        parts = parts_by_size(declared, self.run.strategy.data_rank, self.train_batches_count)
        batch = None
        for part in islice(parts, done, None):
            if part.mine or batch is None:
                batch = next(batches, batch)
            self.run.take(part)
            yield batch, part.is_last

    def _parts_exchanged(self, batches: Iterator[Any], share: Any, done: int) -> Batches:
        """Sizes that nobody can know ahead: one exchange a step, of whether and how much each process has."""
        strategy, limit = self.run.strategy, self.train_batches_count
        mine = islice(batches, None if math.isinf(limit) else int(limit) - done)
        batch, following = None, next(mine, _END)
        while True:
            if following is not _END:
                batch, size = following, _size(following)
                if share is not None and not share.parts.popleft().mine:
                    size = 0
                following = next(mine, _END)
            else:  # this process has run out, and helps the others with the batch it had last
                size = -1 if batch is None else 0
            told = strategy.gather_of_shares((size, following is not _END), "the sizes of the next training batch")
            sizes, more = [size for size, _ in told], [further for _, further in told]
            if max(sizes) == -1:
                raise _no_batch()
            if -1 in sizes:
                raise ValueError(
                    f"the training loader of process {sizes.index(-1)} yields no batch, and those of others do. Give "
                    "every process at least one."
                )
            self.run.take(Part(not any(more), size, sum(sizes), 0 in sizes))
            yield batch, not any(more)
            if not any(more):
                return

    def _counted(self, batches: Iterator[Any], count: int, done: int) -> Batches:
        for i in range(done + 1, count + 1):
            try:
                taken = [next(batches)]
            except StopIteration as stop:
                raise RuntimeError(_ended_early(stop, i - 1, count)) from stop
            yield taken.pop(), i == count

    def _delivered(self, batches: Batches) -> Batches:
        run, results = self.run, self.run.results
        fetch = batches.__next__ if run.profiler is None else run.profiled_fetch(batches.__next__)
        trainer, agreement = run.trainer, run.agreement
        while True:
            run.raise_signal()
            if trainer._requeue_asked and (run.alone or agreement.requeues):
                trainer._requeue_asked = agreement.requeues = False
                requeue(trainer)
            try:
                batch, last = fetch()
            except StopIteration:
                return
            if (transfer := run.transfer) is not None:
                batch = transfer(batch, 0)
            results.batch, results.batch_size = batch, None
            taken = [batch]
            del batch
            yield taken.pop(), last

    # exact resume
    def _resumed(self, epoch: int, skip: int) -> Batches:
        """The rest of an epoch of which `skip` batches are done, as it would have gone on."""
        now, saved = self.now or self.draw_state(), dict(self.rng)
        self.now = None
        if self.run.progress.is_last_batch:
            self.restore_draws(now)
            return iter(())
        set_epoch(self.train, epoch)
        if _is_stateful(self.train) and self._loader_state is not None:
            self.train.load_state_dict(self._loader_state)
            following = self._with_last(self._iterator(self.train), skip)
            self.restore_draws(now)
            return following
        if not saved:
            rank_zero_warn(
                f"this checkpoint was saved in mid-epoch and holds no random state of its data loader: the first "
                f"{skip} batches of the epoch are left out, the ones already seen unless it shuffles."
            )
            following = self._with_last(self._fresh(epoch))
            for _ in range(skip):
                next(following)
            return following
        begun_by_others = saved.get("world_size", 1) != self.run.world_size or saved.get("start")
        share = self._share_to_go_on(saved) if begun_by_others else _share(self.train)
        self.restore_draws(saved["open"])
        if begun_by_others and share is not None:
            self.restore_draws(saved["first"])
            share.go_on(saved["taken"], skip)
            following = self._with_last(self._iterator(self.train), skip)
        elif _batches_indices(self.train) and self.train.num_workers == 0:
            # the skipped items are not even loaded; workers draw numbers of their own while loading, so not with these
            indices = self._indices(self.train)
            batches: Iterator[Any] = iter(twin_of(self.train, batch_sampler=indices))
            self.restore_draws(saved["first"])
            for _ in range(skip):
                next(indices)
                if self._ahead is not None:
                    self._ahead.popleft()
                if share is not None:
                    share.parts.popleft()
            following = self._with_last(batches, skip)
        else:
            batches = self._iterator(self.train)
            self.restore_draws(saved["first"])
            following = self._with_last(batches)
            for _ in range(skip):
                next(following)
        self.rng = saved
        self.restore_draws(now)
        return following

    def _share_to_go_on(self, saved: dict[str, Any]) -> TrainShare | None:
        """What counts samples in the order of all processes; one process needs it where several began the epoch."""
        share, counted = _share(self.train), saved.get("taken") is not None
        if share is None and can_share(self.train) and counted:
            share = share_of(self.train, TrainShare, 0, 1, lambda order: order)
            self.train = _with_share(self.train, share)
        if share is None or not counted:
            rank_zero_warn(
                f"this epoch was begun by {saved.get('world_size', 1)} processes and goes on with "
                f"{self.run.world_size}, and its loader is not shared out by the trainer: each process leaves out as "
                "many batches as each had taken."
            )
            return None
        return share  # type: ignore[no-any-return]  # of a training loader

    def _taken(self) -> int | None:
        """How much of the loader's order is done, counted in samples, or in batches of the user's own sampler."""
        share, batches = _share(self.train), self.run.progress.batch
        if share is not None:
            return share.taken(batches)  # type: ignore[no-any-return]  # of a training loader
        if not can_share(self.train):
            return None
        own = self.train.batch_sampler
        return batches * own.batch_size if type(own) is BatchSampler else batches

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in mid-epoch needs to open this epoch's loader again."""
        share = _share(self.train)
        state = {**self.rng, "world_size": self.run.world_size, "taken": self._taken()}
        state["start"] = 0 if share is None else share.start
        if _is_stateful(self.train):
            state["loader"] = self.train.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loader_state = state.pop("loader", None)
        self.rng = state

    def draw_state(self) -> dict[str, Any]:
        """Every random state that the rest of the run depends on."""
        own = [_generator_state(g) for g in _generators(self.train)]
        return {**collect_rng_state(), **({"generators": own} if own else {})}

    def restore_draws(self, state: dict[str, Any]) -> None:
        restore_rng_state(state)
        for generator, saved in zip(_generators(self.train), state.get("generators", ()), strict=False):
            _restore_generator(generator, saved)

    def gathered_predictions(self, predictions: list[list[Any]]) -> list[list[Any]]:
        """The predictions of all processes for each loader, in the order of its data set."""
        on_cpu = apply_to_collection(predictions, Tensor, lambda t: t.cpu())
        ranks = self.run.strategy.gather_objects(on_cpu, "the gathering of predictions")
        loaders = self.evaluation["predict"]
        return [in_order([rank[k] for rank in ranks], _share(loader)) for k, loader in enumerate(loaders)]

    # evaluation
    def eval_batches(self, stage: str, limit: int | float) -> Iterator[tuple[Any, ...]]:
        """(batch, i), or (batch, i, k) with several loaders; at most `limit` of each."""
        run = self.run
        results, loaders = run.results, self.evaluation[stage]
        several = len(loaders) > 1
        seen = run.progress.eval_batches.setdefault(stage, [0] * len(loaders))
        batches, iterated = 0, loaders
        if stage == "predict":
            for writer in (callback for callback in run.callbacks if isinstance(callback, BasePredictionWriter)):
                iterated = writer._recording(iterated)
        for k, loader in enumerate(loaders):
            count = min(limit, self.limits[stage][k])
            if not count:
                continue
            results.loader = k if several else None
            set_epoch(loader, run.progress.epoch)
            i = -1
            own = islice(_batches(iterated[k]), None if math.isinf(count) else int(count))
            for i, batch in enumerate(run.strategy.in_company(own, self._is_over)):
                batches += 1
                if (transfer := run.transfer) is not None:
                    batch = transfer(batch, k)
                results.batch, results.batch_size = batch, None
                yield (batch, i, k) if several else (batch, i)
                results.publish_eval_step(seen[k])
                seen[k] += 1
            if not math.isinf(count) and i + 1 < count and _true_length(loader) and run.trainer._signal is None:
                raise RuntimeError(_ended_early(None, i + 1, int(count), stage))
        results.last_batch_done(batches)

    def _is_over(self) -> bool:
        """A signal has come. Alone, this process acts on it; the others of several hear of it after their batches."""
        if self.run.trainer._signal is None:
            return False
        if self.run.alone:
            self.run.raise_signal()
        return True


# limits
def limited(count: int | None, limit: int | float, name: str) -> int | float:
    """How many of `count` batches (None: unknown) a `limit_*` argument leaves; inf when it cannot be known."""
    if isinstance(limit, int):
        return limit if count is None else min(count, limit)
    if limit == 1.0:
        return math.inf if count is None else count
    if count is None:
        raise MisconfigurationException(
            f"{name}={limit} is a fraction, and the loader has no length to take it of. "
            "Use a whole number of batches, or 1.0 for all."
        )
    batches = int(count * limit)
    if count and not batches:
        raise MisconfigurationException(
            f"{name}={limit} of {count} batches rounds to 0 batches. Use at least {name}={round(1 / count, 3)}, a "
            f"whole number of batches such as {name}=1, or 0 to switch it off."
        )
    return batches


# what kind of loader
def _true_length(loader: Any) -> bool:
    """Whether `len(loader)` is what torch computed from samplers of its own."""
    if isinstance(loader, CombinedLoader):
        return all(_true_length(part) for part in loader.flattened)
    if type(loader) is not DataLoader:
        return isinstance(loader, (list, tuple))
    if isinstance(loader.dataset, IterableDataset):
        return False
    own_batches = loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
    return own_batches and type(loader.sampler) in TRUE_LENGTHS


def _batches_indices(loader: Any) -> TypeGuard[DataLoader[Any]]:
    return draws_indices(loader) and loader.batch_sampler is not None


def _is_stateful(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


class _LookingAhead:
    """The batch sampler's batches of indices, noting of each whether another follows."""

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.is_last: deque[bool] = deque()

    def __iter__(self) -> Iterator[Any]:
        self.is_last = deque()
        return self._noting(self.is_last)

    def _noting(self, is_last: deque[bool]) -> Iterator[Any]:
        for batch, last in _one_ahead(iter(self.batch_sampler)):
            is_last.append(last)
            yield batch


def _batches(loader: Any) -> Iterable[Any]:
    """What a loader yields; of a CombinedLoader the collections of batches, without their numbers."""
    return map(itemgetter(0), loader) if isinstance(loader, CombinedLoader) else loader


def _share(loader: Any) -> Any:
    """The share that stands in for a loader's sampler, if one does."""
    return next((sampler for sampler in _samplers(loader) if isinstance(sampler, Share)), None)


def _most(loader: Any) -> int | None:
    """Batches of a loader; where processes share it, of the one with most."""
    share = _share(loader)
    if isinstance(share, EvalShare) and sized_len(share) is not None:
        return share.length_of(0)
    return sized_len(loader)


def _size(batch: Any) -> int:
    try:
        return extract_batch_size(batch)
    except MisconfigurationException:
        return 1  # no tensor in it: batches count alike


def _with_share(loader: DataLoader[Any], share: Any) -> DataLoader[Any]:
    return twin_of(loader, sampler=share) if loader.batch_sampler is None else twin_of(loader, batch_sampler=share)


def _in_order(loader: DataLoader[Any], stage: str) -> DataLoader[Any]:
    rank_zero_warn(
        f"overfit_batches: the {stage} loader's {type(loader.sampler).__name__} is replaced by a SequentialSampler, "
        "so that every epoch sees the same batches."
    )
    sampler = SequentialSampler(loader.dataset)  # type: ignore[arg-type]  # map-style: an IterableDataset has no sampler
    if loader.batch_sampler is None:
        return twin_of(loader, sampler=sampler)
    if loader.batch_size is None:
        raise MisconfigurationException(
            "overfit_batches needs batches in a fixed order, and this loader's batch_sampler is its own. "
            "Pass a loader without it, or use limit_train_batches."
        )
    batches = BatchSampler(sampler, loader.batch_size, loader.drop_last)
    return twin_of(loader, sampler=sampler, batch_sampler=batches)


def _samplers(loader: Any) -> list[Any]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    return [getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell samplers that shuffle by epoch which one it is."""
    for part in loaders_of(loader):
        for sampler in {id(s): s for s in _samplers(part)}.values():
            setter = getattr(sampler, "set_epoch", None)
            if callable(setter):
                setter(epoch)


# random generators of the user's own
def _generators(loader: Any) -> list[Any]:
    """Generators that loaders, samplers and data sets hold, in a fixed order: each draws apart from the global one."""
    found: dict[int, Any] = {}
    for part in loaders_of(loader):
        for owner in (part, *_samplers(part), getattr(part, "dataset", None)):
            for value in getattr(owner, "__dict__", {}).values():
                of_numpy = type(value).__module__.startswith("numpy.random") and not hasattr(value, "spawn_key")
                if of_numpy or isinstance(value, (torch.Generator, random.Random)):
                    found.setdefault(id(value), value)
    return list(found.values())


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    source = getattr(generator, "bit_generator", generator)
    return source.state if hasattr(source, "state") else source.get_state(legacy=False)


def _restore_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, internal, gauss = state
        generator.setstate((version, tuple(internal), gauss))
    else:
        source = getattr(generator, "bit_generator", generator)
        if hasattr(source, "state"):
            source.state = state
        else:
            source.set_state(state)


# looking ahead, and what goes wrong
def _one_ahead(batches: Iterator[Any]) -> Batches:
    following = list(islice(batches, 1))
    if not following:
        raise _no_batch()
    while taken := following:
        following = list(islice(batches, 1))
        yield taken.pop(), not following


def _no_batch() -> ValueError:
    return ValueError(
        "the training loader yields no batch. An iterable that can be walked once only is empty the second time: "
        "pass an object whose __iter__ starts anew."
    )


def _ended_early(stop: StopIteration | None, done: int, count: int, stage: str = "training") -> str:
    where = ""
    if stop is not None and (frames := traceback.extract_tb(stop.__traceback__)):
        where = f" The last line to run was {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
    return (
        f"the {stage} loader ended after {done} of {count} batches. A StopIteration raised by the data set or its "
        f"collate function looks like the end of the data; raise another exception, or mend the length.{where}"
    )


def own_transfer(run: Run) -> Callable[[Any, int], Any] | None:
    """Everything that happens to a batch between loader and step, as one function; None where nothing does."""
    strategy, steps = run.strategy, list[Callable[[Any, int], Any]]()
    if type(run.precision).convert_input is not Precision.convert_input:
        steps.append(lambda batch, k: run.precision.convert_input(batch))
    if before := run.data_hook("on_before_batch_transfer"):
        steps.append(before)
    if overrides(strategy, "batch_to_device", Strategy):
        steps.append(lambda batch, k: strategy.batch_to_device(batch, dataloader_idx=k))
    else:
        steps += moving(run, run.device)
    if len(steps) < 2:
        return steps[0] if steps else None

    def all_steps(batch: Any, loader: int) -> Any:
        for step in steps:
            batch = step(batch, loader)
        return batch

    return all_steps


def moving(run: Run, device: torch.device) -> list[Callable[[Any, int], Any]]:
    """What brings a batch to a device, by the hooks that somebody overrides."""
    steps = list[Callable[[Any, int], Any]]()
    if transfer := run.data_hook("transfer_batch_to_device"):
        steps.append(lambda batch, k: transfer(batch, device, k))
    elif device.type != "cpu":
        steps.append(lambda batch, k: move_data_to_device(batch, device))
    if after := run.data_hook("on_after_batch_transfer"):
        steps.append(after)
    return steps
