"""Logged values of several processes: kept apart while they are logged, put together where an epoch ends.

`self.log` never communicates, nor does reading. What a training batch logs with `sync_dist=True` goes to all processes
together before its end hooks; what evaluation batches do, once they are over, for processes may have different numbers
of them. At the end of an epoch all running values go to all processes in one exchange, so that
means are over all samples, and every process sees the same numbers. A name that some processes logged and others did
not is an error, unless those others had no batch to log it in.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fulgurite.results import NoResults, Options, Results, Slot, as_numbers, narrowest
from fulgurite.utilities.rank_zero import warn_once
from fulgurite.utilities.tree import apply_to_collection, recursive_detach

Key = tuple[str, str, int | None]


class _Row(NamedTuple):
    """What one process tells of one logged value."""

    options: Options
    where: str
    metric: str | None  # the attribute of the module that holds the metric object
    total: float
    weight: float
    dtype: str  # of a total of whole numbers what its digits need


SyncedSteps = list[tuple[tuple[int, int], dict[Key, _Row]]]  # by loader and batch


class SharedResults(Results):
    """The results of a stage on one of several processes."""

    steps_come_later = True

    def __init__(self, run: Any, stage: str) -> None:
        super().__init__(run, stage)
        self.values: dict[Key, Any] = {}  # of the epoch, over all processes
        self.put_together: dict[Key, Any] = {}  # the running value of this process that went into it
        self.own_batches = 0
        self.synced: dict[Key, float] = {}  # logged in this batch with sync_dist=True, and what each counts
        self.synced_steps: SyncedSteps = []  # of an evaluation

    def log(self, name: str, value: Any, raw: tuple[Any, ...], batch_size: int | None, attribute: str | None) -> None:
        idle = self.training and self.run.idle and self.batch is not None
        if not idle:  # else it has nothing to say: a batch without a sample of its own
            super().log(name, value, raw, batch_size, attribute)
        if raw[6] and not raw[8]:
            self._note_synced(name, value, raw, batch_size, idle)

    def _note_synced(self, name: str, value: Any, raw: tuple[Any, ...], batch_size: int | None, idle: bool) -> None:
        key = self.run.fx, name, self.loader if raw[7] else None
        options = self._options(self.run.fx, name, value, raw) if idle else self.slots[key].options
        if options.on_step:
            own = self.run.part.mine if self.training else self._batch_size()
            self.synced[key] = float(own if batch_size is None else batch_size)

    # the end of an epoch
    def _waiting(self) -> dict[Key, Slot]:
        """What was logged since it was last put together."""
        return {
            key: slot
            for key, slot in self.slots.items()
            if slot.fresh
            and slot.options.on_epoch
            and not slot.options.rank_zero_only
            and (slot.total is not None or slot.metric is not None)
            and (key not in self.put_together or self.put_together[key] is not slot.total)
        }

    def put_values_together(self) -> None:
        """Every process tells what it has, and computes the same values from all."""
        run, mine = self.run, self._waiting()
        numbers = as_numbers({str(i): slot.total for i, slot in enumerate(mine.values()) if slot.total is not None})
        rows = {
            key: _Row(
                slot.options,
                slot.where,
                None if slot.metric is None else run.attribute_of(slot.metric),
                numbers.get(str(i), 0.0),
                float(slot.weight),
                "whole" if slot.whole else "" if slot.total is None else _name(slot.total),
            )
            for i, (key, slot) in enumerate(mine.items())
        }
        told = run.strategy.gather_of_shares(
            (rows, self.own_batches, run.agreement.own_signal, self.synced_steps),
            f"the putting together of the values of {self.stage}",
        )
        all_rows: list[dict[Key, _Row]]
        all_rows, batches, signals, steps = map(list, zip(*told, strict=True))
        run.agreement.hear(signals)
        run.agreement.raise_signal()
        keys = list(dict.fromkeys(key for rows in all_rows for key in rows))
        self._check_keys(keys, all_rows, batches)
        metrics = {}
        for key in keys:
            row = next(rows[key] for rows in all_rows if key in rows)
            slot = self.slots.get(key) or self._empty_slot(key, row)
            slot.fresh = True
            self.put_together[key] = slot.total
            if row.metric is not None:
                metrics[key] = slot
            else:
                found = [(rows[key].total, rows[key].weight) for rows in all_rows if key in rows]
                value, whole = _combined(row.options.reduce, found), row.dtype == "whole"
                dtype = narrowest(sum(total for total, _ in found)) if whole else getattr(torch, row.dtype)
                self.values[key] = torch.tensor(value, dtype=dtype, device=run.device)
        self._write_synced_steps(steps)
        if metrics:
            with _merged([slot.metric for slot in metrics.values()], run.strategy) as computed:
                pairs = zip(metrics.items(), computed, strict=True)
                self.values.update({key: slot.single(value) for (key, slot), value in pairs})

    def _empty_slot(self, key: Key, row: _Row) -> Slot:
        """Of a value that only other processes have logged."""
        slot = self.slots[key] = Slot(*key, row.options, (), row.where)
        if row.metric is not None:
            slot.metric = self.run.module.get_submodule(row.metric)
        return slot

    def _check_keys(self, keys: list[Key], all_rows: list[dict[Key, _Row]], batches: list[int]) -> None:
        most = max(batches)
        for rank, rows in enumerate(all_rows):
            lacking = [key for key in keys if key not in rows]
            if not lacking or batches[rank] < most:
                continue
            other = next(r for r, theirs in enumerate(all_rows) if lacking[0] in theirs)
            names = sorted({name for _, name, _ in lacking if any(name == key[1] for key in all_rows[other])})
            where = all_rows[other][lacking[0]].where
            raise RuntimeError(
                f"rank {other} logged {names} in {lacking[0][0]} that rank {rank} did not ({where}). Log the same "
                "names on every process, or write self.log(..., rank_zero_only=True) for a value of the first alone."
            )

    def value(self, slot: Slot) -> Any:
        if slot.options.rank_zero_only:
            return super().value(slot)
        return self.values.get(slot.key)

    def last_batch_done(self, batches: int) -> None:
        super().last_batch_done(batches)
        self.own_batches = batches
        self.put_values_together()

    def publish_epoch(self) -> None:
        self.put_values_together()
        super().publish_epoch()
        if self.training:
            self.run.strategy.check_weights()
            self.run.agreement.exchange()

    def reset(self) -> None:
        super().reset()
        self.values.clear()
        self.put_together.clear()
        self.own_batches = 0

    # steps
    def share_step(self, *_: Any) -> None:
        """What this training batch has logged with `sync_dist=True`, as the values of all processes."""
        # a process without a sample of its own has made no step, and cannot know what others have logged in theirs
        if self.synced or self.run.part.some_idle:
            self._share()

    def _share(self) -> None:
        mine = self._synced_rows()
        told = self.run.strategy.gather_of_shares(
            None if self.run.idle else mine,
            "the sharing of what a batch has logged with sync_dist=True",
            ", ".join(f"{name!r} at {row.where}" for (_, name, _), row in mine.items()),
        )
        self.synced.clear()
        keys = list(dict.fromkeys(key for rows in told if rows is not None for key in rows))
        self._check_keys(keys, [rows or {} for rows in told], [rows is not None for rows in told])
        for key in keys:
            rows = [theirs[key] for theirs in told if theirs is not None]
            slot = self.slots.get(key) or self._empty_slot(key, rows[0])
            slot.fresh, slot.last = True, _of_all(rows, self.run.device)

    def _synced_rows(self) -> dict[Key, _Row]:
        """This process's values of the batch in work."""
        slots = {key: slot for key in self.synced if (slot := self.slots.get(key)) and isinstance(slot.last, Tensor)}
        numbers = as_numbers({str(i): slot.last for i, slot in enumerate(slots.values())})
        rows = {}
        for number, (key, slot) in zip(numbers.values(), slots.items(), strict=True):
            counts = self.synced[key]
            total = number * counts if slot.options.reduce == "mean" else number
            assert slot.last is not None
            rows[key] = _Row(slot.options, slot.where, None, total, counts, _name(slot.last))
        return rows

    def publish_step(self) -> None:
        if self.synced:  # by the hooks of the batch's end
            self._share()
        if self.run.agreement.due:
            self.run.agreement.exchange()
        super().publish_step()

    def publish_eval_step(self, step: int) -> None:
        if self.synced and not self.run.in_sanity_check:
            self.synced_steps.append(((self.loader or 0, step), self._synced_rows()))
        self.synced.clear()
        super().publish_eval_step(step)

    def _write_synced_steps(self, told: list[SyncedSteps]) -> None:
        """The rows of an evaluation's batches, each of the processes that had so many."""
        for number in sorted({number for steps in told for number, _ in steps}):
            batches = [rows for steps in told for own, rows in steps if own == number]
            values = {}
            for key in dict.fromkeys(key for rows in batches for key in rows):
                slot = self.slots.get(key) or self._empty_slot(key, next(rows[key] for rows in batches if key in rows))
                slot.last = _of_all([rows[key] for rows in batches if key in rows], self.run.device)
                if slot.options.logger:
                    values[slot.step_name] = slot.last
            self.run.write(values, number[1])
        self.synced_steps.clear()

    # a checkpoint in mid-epoch
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "own_batches": self.own_batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.own_batches = state.get("own_batches", 0)


class SharedNoResults(NoResults, SharedResults):
    """Of a barebones run: `self.log` does nothing; stops and signals are agreed on all the same."""


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _of_all(rows: list[_Row], device: torch.device) -> Tensor:
    """One value of those of several processes, on this one's device."""
    value = _combined(rows[0].options.reduce, [(row.total, row.weight) for row in rows])
    dtype = getattr(torch, rows[0].dtype)
    whole = dtype.is_floating_point or (value.is_integer() and dtype is not torch.bool)
    return torch.tensor(value, dtype=dtype if whole else torch.get_default_dtype(), device=device)


def _combined(reduce: str, found: list[tuple[float, float]]) -> float:
    """One value of the running totals and weights of several processes, the same on each of them."""
    totals, weights = [total for total, _ in found], [weight for _, weight in found]
    if reduce in ("min", "max"):
        return math.nan if any(map(math.isnan, totals)) else min(totals) if reduce == "min" else max(totals)
    if reduce == "sum":
        return sum(totals)
    if len({*zip(totals, weights, strict=True)}) == 1:  # equal everywhere, and so is their mean, to the last bit
        totals, weights = totals[:1], weights[:1]
    weight = sum(weights)
    return sum(totals) / weight if weight else math.nan


# metric objects
@contextmanager
def _merged(metrics: list[Any], strategy: Any) -> Iterator[list[Any]]:
    """What metric objects compute of the samples of all processes; their own states are as before afterwards.

    torchmetrics would do this itself, if every process had the same number of states of the same shapes: a process
    without a batch has none.
    """
    parts = [part for metric in metrics for part in _stateful_parts(metric)]
    before = [_state(part) for part in parts]
    told = strategy.gather_of_shares(recursive_detach(before, to_cpu=True), "the merging of metric objects")
    foreign = [copy.deepcopy(metric) if not _stateful_parts(metric) else None for metric in metrics]
    switches = [(part, part._to_sync) for metric in metrics for part in _parts(metric) if hasattr(part, "_to_sync")]
    try:
        for part, *states in zip(parts, *told, strict=True):
            for name, value in merged_states(part, states).items():
                setattr(part, name, apply_to_collection(value, Tensor, Tensor.to, strategy.root_device))
            part._computed = None
        for part, _ in switches:
            part._to_sync = False
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*``compute`` method of metric.*before the ``update``")
            values = [
                metric.compute() if own is None else _of_foreign(metric, own, strategy)
                for metric, own in zip(metrics, foreign, strict=True)
            ]
    finally:
        for part, state in zip(parts, before, strict=True):
            for name, value in state.items():
                setattr(part, name, value)
            part._computed = None
        for part, switch in switches:
            part._to_sync = switch
    yield values


def _parts(metric: Any) -> list[Any]:
    return list(metric.modules()) if hasattr(metric, "modules") else [metric]


def _stateful_parts(metric: Any) -> list[Any]:
    return [p for p in _parts(metric) if isinstance(getattr(p, "_defaults", None), dict) and hasattr(p, "_reductions")]


def _state(part: Any) -> dict[str, Any]:
    return {**{name: getattr(part, name) for name in part._defaults}, "_update_count": part._update_count}


def merged_states(part: Any, states: list[dict[str, Any]]) -> dict[str, Any]:
    """One state of several; of those that were never updated, only where none was."""
    states = [state for state in states if state["_update_count"]] or states[:1]
    merged: dict[str, Any] = {"_update_count": sum(state["_update_count"] for state in states)}
    for name, reduction in part._reductions.items():
        values = [state[name] for state in states]
        joins = getattr(reduction, "__name__", "") == "dim_zero_cat"
        if isinstance(values[0], list):
            joined = [item for value in values for item in value]
            merged[name] = joined if joins or reduction is None or not joined else reduction(joined)
        elif reduction is None:
            merged[name] = torch.stack(values) if len(values) > 1 else values[0]
        else:
            merged[name] = torch.cat(values) if joins else reduction(torch.stack(values))
    return merged


def _of_foreign(metric: Any, own: Any, strategy: Any) -> Any:
    """A metric that does not declare its states: merged by its own `merge_state`, else of this process alone."""
    others = strategy.gather_of_shares(own, "the merging of metric objects")
    if hasattr(own, "merge_state"):
        own.merge_state([other for rank, other in enumerate(others) if rank != strategy.data_rank])
        return own.compute()
    warn_once(
        f"{type(metric).__name__} neither declares its states as torchmetrics' do nor has merge_state(metrics), so its "
        "value is the mean of those of the single processes."
    )
    values = [torch.as_tensor(other.compute(), dtype=torch.float64) for other in others]
    return torch.stack(values).mean().to(torch.get_default_dtype())


def merged_slots(states: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The saved running values of several processes as those of one."""
    merged: dict[Key, dict[str, Any]] = {}
    for saved in (slot for slots in states for slot in slots):
        known = merged.setdefault(tuple(saved["key"]), saved)
        if known is saved or saved["total"] is None:
            continue
        reduce = Options(*saved["options"]).reduce
        if known["total"] is None:
            total = saved["total"]
        elif reduce in ("mean", "sum"):
            total = known["total"] + saved["total"]
        else:
            total = (torch.minimum if reduce == "min" else torch.maximum)(known["total"], saved["total"])
        merged[tuple(saved["key"])] = {**known, "total": total, "weight": known["weight"] + saved["weight"]}
    return list(merged.values())
