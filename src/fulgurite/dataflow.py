"""From loaders to batches: limits, looking ahead for the last batch, transfer to the device, exact resume.

A training loop must know its last batch before it ends, for the last step of an epoch takes whatever window it has.
torch's own samplers say their length truly and are believed. Any other map-style loader is looked ahead in batch
*indices*, so no item is loaded early; anything else is looked ahead by one batch.
"""

from __future__ import annotations

import copy
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
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, SequentialSampler

from fulgurite.callbacks.prediction_writer import BasePredictionWriter
from fulgurite.core.expected import part as reading
from fulgurite.core.hparams import is_equal
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
from fulgurite.utilities.combined_loader import Combination, CombinedLoader, loaders_of
from fulgurite.utilities.data import extract_batch_size, has_workers, keeps_workers, opened, sized_len, twin_of
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.seed import collect_rng_state, pl_worker_init_function, restore_rng_state
from fulgurite.utilities.tree import apply_to_collection, move_data_to_device

if TYPE_CHECKING:
    from fulgurite.run import Run

_END = object()
_GENERATORS = (torch.Generator, random.Random)
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
        self.loaded_at: dict[str, int] = {}  # the epoch in which a stage's loaders were made
        self._first: Iterator[Any] | None = None
        self.now: dict[str, Any] | None = None  # the random state of the save, to walk on with
        self.rng: dict[str, Any] = {}  # when this epoch's loader was opened, and before its first batch
        self._walk: Combination | None = None  # of several loaders, how far each has come
        self._lived: list[Any] = []  # loaders that had living workers when the run was saved
        self._before_ahead: dict[str, Any] | None = None  # where it stood before the batch that was looked ahead
        self._kept: dict[str, dict[str, Any]] = {}  # of a resumed run, what loaders of a stage are to be put back to
        self._mixed_draws: set[str] = set()  # sources of random numbers of which a stream draws, and others in between
        self._traces: _Traces | None = None  # of the loaders that the sanity check walks over

    # opening
    def open(self) -> None:
        """Load what fit needs; the first epoch's iterator too, before any hook of training may draw numbers."""
        run = self.run
        goes_on = self.now is not None and not run.progress.in_epoch
        if self.train is None:
            made_anew = goes_on and self._reload_is_due("train")
            if made_anew:  # with the draws that the run which goes on would have made
                restore_rng_state(cast("dict[str, Any]", self.now))
            self.open_train()
            if made_anew:
                self.now = self.draw_state()
                self._kept.pop("train", None)
        if run.validates_in_epoch(run.progress.epoch) and "validation" not in self.evaluation:
            self.open_evaluation("validation")
        if self.train_batches_count and not run.progress.in_epoch and not goes_on:
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
        self._note_loading("train")
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
        made_anew = self._note_loading(stage)
        self.evaluation[stage] = flat = self._prepare(loaders, stage)
        if (kept := self._kept.pop(stage, None)) is not None and not made_anew:
            self._lived += self._put_back(flat, kept, True, _generators(self.train))
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
        if self.run.trainer.overfit_batches and combined is not loaders:
            self.given[stage] = combined.iterables  # with their samplers replaced
        if training:
            return combined
        return list(combined.flattened) if combined.mode == "sequential" else [combined]

    def _prepared(self, loader: Any, stage: str) -> Any:
        if not isinstance(loader, DataLoader):
            return loader
        draws = not isinstance(loader.dataset, IterableDataset) and not isinstance(loader.sampler, SequentialSampler)
        if self.run.trainer.overfit_batches and draws and stage in ("train", "validation"):
            loader = _in_order(loader, stage)
        if stage == "predict" and type(batches := loader.batch_sampler) is BatchSampler and batches.drop_last:
            whole = BatchSampler(batches.sampler, batches.batch_size, False)  # each sample is to be predicted
            loader = twin_of(loader, batch_sampler=whole, drop_last=False)
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

    def begin_epoch(self) -> None:
        """Walk on where a saved run stood; ask for the training loaders again where that is due."""
        if self.now is not None:
            self.restore_draws(self.now)
            if (kept := self._kept.pop("train", None)) is not None:
                self._lived += self._put_back([self.train], kept, True)
            self.now = None
        if self.train is not None and self._reload_is_due("train"):
            self.open_train()

    def _reload_is_due(self, stage: str) -> bool:
        """Whether `reload_dataloaders_every_n_epochs` epochs are over since the loaders were made."""
        n, epoch = self.run.trainer.reload_dataloaders_every_n_epochs, self.run.progress.epoch
        return bool(n) and epoch - self.loaded_at.get(stage, epoch) >= n

    def _note_loading(self, stage: str) -> bool:
        """Loaders are made; whether it was their turn, and not that a resumed run has none yet."""
        due = self._reload_is_due(stage) and not self.run.in_sanity_check
        if due or stage not in self.loaded_at:
            self.loaded_at[stage] = self.run.progress.epoch
        return due

    def open_if_due(self, stage: str) -> None:
        """Load what is to be evaluated, where that has not happened yet or is to happen again."""
        if stage not in self.evaluation or (stage == "validation" and self._reload_is_due(stage)):
            self.open_evaluation(stage)

    def open_for_validation(self) -> bool:
        """Have the loaders of the sanity check."""
        if "validation" not in self.evaluation:
            self.open_evaluation("validation")
        self._traces = _Traces(self.evaluation["validation"])
        return self.has_batches("validation")

    def forget_sanity_check(self) -> None:
        """Loaders, samplers and iterables are as they were before it; workers that it started have ended."""
        if self._traces is not None:
            _end_workers(self.evaluation["validation"])
            self._traces.remove()
            self._traces = None

    def close(self) -> None:
        """The run is over: no data worker outlives it, also where workers are persistent."""
        self._first = None
        self._walk = None
        _end_workers([*(self._looks_ahead or ()), self.train, *chain(*self.evaluation.values())])

    def may_validate(self) -> bool:
        """Whether there is something to validate, as far as is known before the loaders are asked for."""
        return "validation" not in self.evaluation or self.has_batches("validation")

    # training
    def train_batches(self, epoch: int, skip: int = 0) -> Batches:
        """The batches of an epoch, each with whether it is the last; the loader is opened by this call.

        `skip` batches are done already: a resumed epoch replays the random draws that chose them.
        """
        self.run.strategy.renew()
        self._before_ahead = None
        if skip:
            batches = self._resumed(epoch, skip)
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
        if isinstance(loader, CombinedLoader):
            self._walk = Combination(loader, lambda part: _Walk(self, part, self._workers_lived(part)))
            return map(itemgetter(0), self._walk)
        workers_lived = self._workers_lived(loader)
        if self.run.alone and _batches_indices(loader) and not _true_length(loader) and _stateful(loader) is None:
            if self._looks_ahead is None or self._looks_ahead[0] is not loader:
                self._looks_ahead = (
                    loader,
                    twin_of(loader, batch_sampler=_LookingAhead(loader.batch_sampler, self._watched)),
                )
            twin = self._looks_ahead[1]  # the same one in each epoch: its workers may be persistent
            self.rng["lived"] = workers_lived or has_workers(twin)
            batches = opened(twin, workers_lived)
            self._ahead = cast("_LookingAhead", twin.batch_sampler).is_last
            return batches
        self.rng["lived"] = workers_lived or has_workers(loader)
        return opened(loader, workers_lived)

    def _workers_lived(self, loader: Any) -> bool:
        return any(loader is one for one in self._lived)

    def _indices(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The batches of indices that are to feed the loader."""
        self._ahead = None
        if _true_length(loader) or not self.run.alone:
            return iter(cast("Iterable[Any]", loader.batch_sampler))
        sampler = _LookingAhead(loader.batch_sampler, self._watched)
        indices = iter(sampler)
        self._ahead = sampler.is_last
        return indices

    def _with_last(self, batches: Iterator[Any], done: int = 0, ahead: dict[str, Any] | None = None) -> Batches:
        limit = self.train_batches_count
        self.rng["first"] = self.draw_state()
        if not self.run.alone or _share(self.train) is not None:
            return self._together(batches, done)
        if self._ahead is not None:
            return self._told_by_sampler(batches, done)
        if not math.isinf(limit) and (_true_length(self.train) or _stateful(self.train) is not None):
            return self._counted(batches, int(limit), done)
        own = self._watched(islice(batches, None if math.isinf(limit) else int(limit) - done))
        if ahead is None:
            return _one_ahead(own, self._note_before_ahead)
        following = self.draw_state()
        self.restore_draws(ahead)  # the batch looked ahead was fetched before the step of the one before it
        self._note_before_ahead()
        first = list(islice(own, 1))
        self.restore_draws(following)
        return _one_ahead(own, self._note_before_ahead, first)

    def _watched(self, stream: Iterator[Any]) -> Iterator[Any]:
        """The stream; of its first fetches is noted whether it draws numbers that others draw from, too."""
        after, fetched, between = None, set[str](), set[str]()
        for k in range(4):
            before = collect_rng_state()
            between |= _differing(after, before)
            if not (taken := list(islice(stream, 1))):
                return
            after = collect_rng_state()
            if k:  # the first may draw an order, which is exact
                fetched |= _differing(before, after)
            self._mixed_draws |= fetched & between
            yield taken.pop()
        yield from stream

    def _note_before_ahead(self) -> None:
        """Where the loader stands before a batch is fetched a step early: there a resumed run begins to fetch."""
        self._before_ahead = {"draws": self.draw_state(), "walk": self._position(), "states": self._states()}

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
            if i == count and count == sized_len(self.train):
                self._let_end(batches)
            yield taken.pop(), i == count

    def _let_end(self, batches: Iterator[Any]) -> None:
        """What an iterable does after its last `yield`, such as going back to its start, is done before it is asked
        for its state or walked over again."""
        loader = self.train
        if (stateful := _stateful(loader)) is not None:
            before = copy.deepcopy(stateful.state_dict())
            if next(batches, _END) is not _END:  # its length was that of an epoch, and not all that it has
                stateful.load_state_dict(before)

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
        now, saved, done = self.now or self.draw_state(), dict(self.rng), self.run.progress
        self.now, kept = None, self._kept.pop("train", None)
        ended = done.is_last_batch or done.epoch_closed
        lived = [] if kept is None else self._put_back([self.train], kept, ended)
        if ended:
            self._lived += lived
            self.restore_draws(now)
            return iter(())
        set_epoch(self.train, epoch)
        if not saved:
            rank_zero_warn(
                f"this checkpoint was saved in mid-epoch and holds no random state of its data loader: the first "
                f"{skip} batches of the epoch are left out, the ones already seen unless it shuffles."
            )
            following = self._with_last(self._fresh(epoch))
            for _ in range(skip):
                next(following)
            return following
        with reading(self.run.trainer.ckpt_path, "fulgurite.loader"):
            opening, first = saved["open"], saved["first"]
        self._lived += [self.train] if saved.get("lived") else []
        begun_by_others = saved.get("world_size", 1) != self.run.world_size or saved.get("start")
        share = self._share_to_go_on(saved) if begun_by_others else _share(self.train)
        ahead, walk = saved.pop("ahead", None), saved.pop("walk", None)
        if isinstance(self.train, CombinedLoader) and walk is not None and not begun_by_others:
            batches: Iterator[Any] = self._walked(walk)
        else:
            self.restore_draws(opening)
            batches = self._skipping(saved, first, skip, share, bool(begun_by_others and share is not None))
        self.restore_draws(now)
        following = self._with_last(batches, skip, ahead)
        self.rng = saved
        return following

    def _skipping(
        self, saved: dict[str, Any], first: dict[str, Any], skip: int, share: Any, goes_on: bool
    ) -> Iterator[Any]:
        """The one loader's batches that are left."""
        if goes_on:
            self.restore_draws(first)
            share.go_on(saved["taken"], skip)
            return self._iterator(self.train)
        if _stateful(self.train) is not None:
            return self._iterator(self.train)
        if _batches_indices(self.train) and self.train.num_workers == 0:
            # the skipped items are not even loaded; workers draw numbers of their own while loading, so not with these
            indices = self._indices(self.train)
            batches: Iterator[Any] = iter(twin_of(self.train, batch_sampler=indices))
        else:
            batches = indices = self._iterator(self.train)
        self.restore_draws(first)
        for _ in range(skip):
            next(indices)
            if self._ahead is not None:
                self._ahead.popleft()
            if share is not None and share.parts:
                share.parts.popleft()
        return batches

    def _walked(self, walk: dict[str, Any]) -> Iterator[Any]:
        """Several loaders, each of them where it was: the shorter ones may have begun more than once."""
        places = iter(walk["parts"])

        def placed(part: Any) -> Iterator[Any]:
            place = next(places, None)
            return _Walk(self, part) if place is None else _Walk.at(self, part, place)

        self._ahead = None
        self._walk = Combination(self.train, placed, walk["i"], walk["k"], walk["ended"])
        return map(itemgetter(0), self._walk)

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
        before, done = self._before_ahead, self.run.progress
        if done.is_last_batch or done.epoch_closed:
            return state  # nothing of it is left
        if before is not None:
            return {**state, "walk": before["walk"], "ahead": before["draws"]}
        return {**state, "walk": self._position()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng = state

    def _position(self) -> dict[str, Any] | None:
        """Of several loaders, how far each has come."""
        if (walk := self._walk) is None or not isinstance(self.train, CombinedLoader):
            return None
        parts = [cast("_Walk", part).place() for part in walk.parts]
        return {"i": walk.i, "k": walk.k, "ended": list(walk.ended), "parts": parts}

    def _states(self) -> list[Any]:
        return _states(loaders_of(self.train))

    def kept(self) -> dict[str, Any]:
        """What belongs to the loaders themselves, whether an epoch is open or not."""
        before = self._before_ahead
        ahead = before is not None and self.run.progress.in_epoch and not self.run.progress.is_last_batch
        stages = {"train": loaders_of(self.train), "validation": self.evaluation.get("validation", [])}
        kept: dict[str, Any] = {"loaded_at": dict(self.loaded_at)}
        for stage, loaders in stages.items():
            parts = [part for loader in loaders for part in loaders_of(loader)]
            states = before["states"] if ahead and before and stage == "train" else _states(parts)
            lived = [has_workers(part) or self._workers_lived(part) for part in parts]
            if self._looks_ahead is not None and parts == [self._looks_ahead[0]]:
                lived = [lived[0] or has_workers(self._looks_ahead[1])]
            own = [] if stage == "train" else [_generator_state(g) for g in _generators_of(loaders)]
            kept[stage] = {"states": states, "lived": lived, "generators": own}
        return kept

    def inexact(self) -> list[str]:
        """What a resumed run cannot repeat, a line each."""
        lines = []
        in_epoch = self.run.progress.in_epoch and not self.run.progress.is_last_batch
        parts = loaders_of(self.train) if self.train is not None else []
        if in_epoch and any(isinstance(part, Iterator) for part in parts):
            lines.append(
                "the training data are an iterator, which can be walked over once: a run resumed from a checkpoint in "
                "mid-epoch leaves out as many batches of the one it gets. Pass an object whose __iter__ starts anew."
            )
        if in_epoch and self._mixed_draws and any(_stateful(part) is None for part in parts):
            lines.append(
                f"the training data draw random numbers ({', '.join(sorted(self._mixed_draws))}) while they are walked "
                "over, and the training draws in between: where those choose the samples, a run resumed from a "
                "checkpoint in mid-epoch gets others. Draw from a generator of the data's own, or give the iterable "
                "state_dict() and load_state_dict(state)."
            )
        for part in chain(parts, *map(loaders_of, self.evaluation.get("validation", ()))):
            data = getattr(part, "dataset", None)
            by_itself = isinstance(data, IterableDataset) and hasattr(data, "state_dict")
            if keeps_workers(part) and (by_itself or any(_is_generator(value) for value in _attributes(data))):
                lines.append(
                    f"{type(data).__name__} keeps a state of its own in persistent workers, which no checkpoint holds: "
                    "a resumed run begins with a new one. Draw from torch, numpy or random, which are seeded for each "
                    "epoch, or use persistent_workers=False."
                )
        return lines

    def load_kept(self, kept: dict[str, Any]) -> None:
        self.loaded_at = dict(kept.get("loaded_at", {}))
        self._kept = {stage: dict(kept[stage]) for stage in ("train", "validation") if stage in kept}

    def draw_state(self) -> dict[str, Any]:
        """Every random state that the rest of the run depends on."""
        own = [_generator_state(g) for g in _generators(self.train)]
        return {**collect_rng_state(), **({"generators": own} if own else {})}

    def restore_draws(self, state: dict[str, Any]) -> None:
        with reading(self.run.trainer.ckpt_path, "fulgurite.loader"):
            restore_rng_state(state)
            for generator, saved in zip(_generators(self.train), state.get("generators", ()), strict=False):
                _restore_generator(generator, saved)

    def _put_back(self, loaders: list[Any], kept: dict[str, Any], ended: bool, but: Iterable[Any] = ()) -> list[Any]:
        """Stateful loaders, and random generators `but` some, are as when the run was saved; those with workers then.

        `ended`: the data of an epoch had been walked over. One that begins anew by itself is left as it is: to some,
        the state of the beginning and that after the first batch are the same.
        """
        parts = [part for loader in loaders for part in loaders_of(loader)]
        with reading(self.run.trainer.ckpt_path, "fulgurite.data"):
            for part, state in zip(parts, kept["states"], strict=False):
                own = _stateful(part)
                if own is not None and state is not None and not (ended and is_equal(own.state_dict(), state)):
                    own.load_state_dict(copy.deepcopy(state))
            others = {id(generator) for generator in but}
            for generator, state in zip(_generators_of(loaders), kept["generators"], strict=False):
                if id(generator) not in others:
                    _restore_generator(generator, state)
        return [part for part, lived in zip(parts, kept["lived"], strict=False) if lived]

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
            own = islice(self._batches(iterated[k]), None if math.isinf(count) else int(count))
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

    def _batches(self, loader: Any) -> Iterator[Any]:
        """What a loader yields; of a CombinedLoader the collections of batches, without their numbers."""
        if not isinstance(loader, CombinedLoader):
            return opened(loader, self._workers_lived(loader))
        walk = Combination(loader, lambda part: opened(part, self._workers_lived(part)))
        return map(itemgetter(0), walk)

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


def _stateful(loader: Any) -> Any:
    """The loader, or the iterable in it, that says where it is and can be put there; None where neither does."""
    inner = getattr(loader, "dataset", None)
    if isinstance(inner, IterableDataset) and isinstance(loader, DataLoader) and loader.num_workers == 0:
        candidates: tuple[Any, ...] = (loader, inner)
    else:
        candidates = (loader,)
    return next((c for c in candidates if hasattr(c, "state_dict") and hasattr(c, "load_state_dict")), None)


def _states(parts: list[Any]) -> list[Any]:
    """Where stateful loaders are, and None for each that is not."""
    return [None if (own := _stateful(part)) is None else copy.deepcopy(own.state_dict()) for part in parts]


def _end_workers(loaders: Iterable[Any]) -> None:
    for part in chain(*map(loaders_of, loaders)):
        iterator = getattr(part, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            part._iterator = None


class _Walk(Iterator[Any]):
    """One of several training loaders on its way, with what a resumed run needs to stand where it stands."""

    def __init__(self, flow: DataFlow, loader: Any, workers_lived: bool = False) -> None:
        self.flow, self.taken = flow, 0
        self.lived, self.open = workers_lived or has_workers(loader), flow.draw_state()
        self.first: dict[str, Any] | None = None
        self.batches = opened(loader, workers_lived)

    @classmethod
    def at(cls, flow: DataFlow, loader: Any, place: dict[str, Any]) -> _Walk:
        """The walk that had come to a place; a stateful loader knows it by itself."""
        flow.restore_draws(place["open"])
        walk = cls(flow, loader, place["lived"])
        if _stateful(loader) is not None:
            walk.taken, walk.first = place["taken"], place["first"]
        elif place["taken"]:
            flow.restore_draws(place["first"])
            for _ in range(place["taken"]):
                next(walk, None)  # its end may be among what was taken
        return walk

    def __next__(self) -> Any:
        if self.first is None:
            self.first = self.flow.draw_state()
        self.taken += 1
        return next(self.batches)

    def place(self) -> dict[str, Any]:
        return {"open": self.open, "first": self.first, "taken": self.taken, "lived": self.lived}


class _Traces:
    """What walking over loaders changes in them, in samplers, in iterables and in random generators; to be undone."""

    def __init__(self, loaders: list[Any]) -> None:
        self._undo: list[Callable[[], Any]] = []
        self._seen: dict[int, Any] = {}
        for generator in _generators_of(loaders):
            self._undo.append(functools.partial(_restore_generator, generator, _generator_state(generator)))
        for part in (part for loader in loaders for part in loaders_of(loader)):
            data = getattr(part, "dataset", None)
            self._remember([part, *_samplers(part), data if isinstance(data, IterableDataset) else None])

    def _remember(self, owners: Iterable[Any]) -> None:
        """Attributes by reference, and the contents of collections among them; what else they refer to stays."""
        for owner in owners:
            if isinstance(owner, (list, deque, dict, set)):
                self._remember_content(owner)
            elif isinstance(getattr(owner, "__dict__", None), dict):
                self._remember_content(vars(owner))

    def _remember_content(self, collection: Any) -> None:
        if id(collection) in self._seen:
            return
        self._seen[id(collection)] = collection
        content = copy.copy(collection)

        def undo() -> None:
            collection.clear()
            (collection.extend if isinstance(collection, (list, deque)) else collection.update)(content)

        self._undo.append(undo)
        if len(content) <= 1000:  # more are the data
            values = content.values() if isinstance(content, dict) else content
            self._remember(value for value in values if isinstance(value, (list, deque, dict, set, Sampler)))

    def remove(self) -> None:
        for undo in self._undo:
            undo()


class _LookingAhead:
    """The batch sampler's batches of indices, noting of each whether another follows."""

    def __init__(self, batch_sampler: Any, watched: Callable[[Iterator[Any]], Iterator[Any]]) -> None:
        self.batch_sampler, self.watched = batch_sampler, watched
        self.is_last: deque[bool] = deque()

    def __iter__(self) -> Iterator[Any]:
        self.is_last = deque()
        return self._noting(self.is_last)

    def _noting(self, is_last: deque[bool]) -> Iterator[Any]:
        for batch, last in _one_ahead(self.watched(iter(self.batch_sampler))):
            is_last.append(last)
            yield batch


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
    return _generators_of([loader])


def _generators_of(loaders: list[Any]) -> list[Any]:
    found: dict[int, Any] = {}
    for part in (part for loader in loaders for part in loaders_of(loader)):
        for owner in (part, *_samplers(part), getattr(part, "dataset", None)):
            found.update({id(value): value for value in _attributes(owner) if _is_generator(value)})
    return list(found.values())


def _attributes(owner: Any) -> Iterable[Any]:
    return getattr(owner, "__dict__", {}).values()


def _is_generator(value: Any) -> bool:
    of_numpy = type(value).__module__.startswith("numpy.random") and not hasattr(value, "spawn_key")
    return of_numpy or isinstance(value, _GENERATORS)


def _differing(one: dict[str, Any] | None, other: dict[str, Any]) -> set[str]:
    """The sources of random numbers that were drawn from between two states."""
    return set() if one is None else {name for name in other if not is_equal(one.get(name), other[name])}


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
def _one_ahead(
    batches: Iterator[Any], note: Callable[[], Any] | None = None, first: list[Any] | None = None
) -> Batches:
    following = list(islice(batches, 1)) if first is None else first
    if not following:
        raise _no_batch()
    while taken := following:
        if note is not None:
            note()
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
