"""What `self.log` keeps and who reads it: logged values become callback, logger and progress-bar metrics.

Values stay tensors on their device. Logging adds two of them at most and never communicates; the readers pull:
loggers when a row is due, the bar when it draws, callbacks when they look at `trainer.callback_metrics`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fulgurite.hooks import TABLE
from fulgurite.utilities.data import extract_batch_size, first_size
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn, warn_once
from fulgurite.utilities.tree import move_data_to_device

if TYPE_CHECKING:
    from fulgurite.run import Run

_HERE = str(Path(__file__).parent)
_REDUCTIONS: dict[Any, str] = {
    **dict.fromkeys(("mean", "avg", torch.mean), "mean"),
    **dict.fromkeys(("sum", torch.sum, sum), "sum"),
    **dict.fromkeys(("min", torch.min, min), "min"),
    **dict.fromkeys(("max", torch.max, max), "max"),
}


class MetricSource(NamedTuple):
    """Who logged a metric: the stage, and how many training batches were done then (-1: in the sanity check)."""

    stage: str
    total_batch: int


@dataclass
class Metrics:
    """The three dictionaries a trainer shows, and where each callback metric came from."""

    callback: dict[str, Any] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    bar: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, MetricSource] = field(default_factory=dict)

    def copy(self) -> Metrics:
        return Metrics(dict(self.callback), dict(self.logged), dict(self.bar), dict(self.sources))

    def restore(self, saved: Metrics) -> None:
        """Go back to a copy, keeping the dictionaries that others hold."""
        for name, values in vars(saved).items():
            getattr(self, name).clear()
            getattr(self, name).update(values)


class Options(NamedTuple):
    """The arguments of one `self.log` call, as they decide what becomes of the value."""

    prog_bar: bool
    logger: bool
    on_step: bool
    on_epoch: bool
    reduce: str
    sync_dist: bool
    add_dataloader_idx: bool
    rank_zero_only: bool


_RUNNING = ("last", "total", "weight", "whole", "fresh")  # what a checkpoint keeps of a slot besides its options


@dataclass(slots=True, eq=False)
class Slot:
    """One logged name of one hook: its running value."""

    fx: str
    raw_name: str
    loader: int | None
    options: Options
    raw: tuple[Any, ...]
    where: str
    enable_graph: bool = False
    metric: Any = None  # an object with update, compute, reset: it keeps its own sums
    name: str = field(init=False)
    step_name: str = field(init=False)
    epoch_name: str = field(init=False)
    fresh: bool = field(init=False)
    last: Tensor | None = field(init=False)
    total: Tensor | None = field(init=False)
    weight: int | float = field(init=False)
    whole: bool = field(init=False)  # only whole numbers were added so far: as such they are kept to the last digit

    def __post_init__(self) -> None:
        named, forked = self.options.add_dataloader_idx, self.options.on_step and self.options.on_epoch
        suffix = f"/dataloader_idx_{self.loader}" if self.loader is not None and named else ""
        self.name = self.raw_name + suffix
        self.step_name = f"{self.raw_name}_step{suffix}" if forked else self.name
        self.epoch_name = f"{self.raw_name}_epoch{suffix}" if forked else self.name
        self.clear()

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.fx, self.raw_name, self.loader if self.options.add_dataloader_idx else None

    def clear(self) -> None:
        self.fresh = False
        self.last = self.total = None
        self.weight, self.whole = 0, False

    def add(self, value: Tensor, weight: int | float) -> None:
        """Add to the running value of the epoch."""
        reduce = self.options.reduce
        if self.total is None:
            self.whole = not value.is_floating_point()
        if self.whole or not value.is_floating_point():
            value = self._beside_whole_numbers(value)
        if reduce == "mean":
            value = value * weight  # not add_(alpha=weight), which rounds differently
            self.weight += weight
        if self.total is None:
            self.total = value if reduce == "mean" else value.clone()  # the user may change what was logged
        elif reduce in ("mean", "sum"):
            self.total = self.total + value
        else:
            self.total = torch.minimum(self.total, value) if reduce == "min" else torch.maximum(self.total, value)

    def _beside_whole_numbers(self, value: Tensor) -> Tensor:
        """Whole numbers are added up as such, means of them in double precision; beside others they are like those."""
        if value.is_floating_point():
            self.whole, self.total = False, cast("Tensor", self.total).to(value.dtype)
            return value
        if not self.whole:
            return value.to(_kept_dtype())
        as_whole = self.options.reduce != "mean" or value.device.type == "mps"  # which has no double precision
        return value.to(torch.int64 if as_whole else torch.float64)

    def compute(self) -> Any:
        """The value of the epoch so far."""
        if self.metric is not None:
            return self.single(self.metric.compute())
        if self.total is None:
            return None
        total = self.total.to(narrowest(self.total.item())) if self.whole else self.total  # waits for the device
        return total / self.weight if self.options.reduce == "mean" else total

    def single(self, value: Any) -> Any:
        """What a metric object computed: a number, and one that its reset does not change."""
        if isinstance(value, Tensor) and value.numel() == 1:
            return value.clone()
        if isinstance(value, Number):
            return value
        computed = f"a {type(value).__name__}"
        if isinstance(value, Mapping):
            computed = ", ".join(map(repr, value)) or "nothing"
        elif isinstance(value, Tensor):
            computed = f"a tensor of shape {tuple(value.shape)}"
        raise ValueError(
            f"{type(self.metric).__name__}, logged as {self.raw_name!r} at {self.where}, computes {computed}, and one "
            "name holds one number. Log the parts of what its compute() gives under names of their own, with "
            "self.log_dict at the epoch's end."
        )


class Results:
    """All that one stage (training, validation, ...) has logged since its epoch began."""

    DATALOADER_SUFFIX = "/dataloader_idx_{}"
    steps_come_later = False  # those of an evaluation that are of several processes

    def __init__(self, run: Run, stage: str) -> None:
        self.run, self.stage = run, stage
        self.training = stage == "train"
        self.slots: dict[tuple[str, str, int | None], Slot] = {}
        self.loader: int | None = None  # which of several evaluation loaders is running
        self.at_end = False  # an evaluation has seen its last batch: epoch values may be read
        self.batch: Any = None  # the batch in work, for its size
        self.batch_size: int | None = None
        self.outputs: list[dict[str, float]] = []  # what validate() and test() return
        self.published_at = -1  # total_batch when the last row was written
        self.pulled_at = -1  # total_batch when step values were last brought to the trainer's dictionaries

    # writing
    def log(self, name: str, value: Any, raw: tuple[Any, ...], batch_size: int | None, attribute: str | None) -> None:
        """Keep one value. `raw` are the arguments of the call that say what shall become of it."""
        slot = self.slots.get((self.run.fx, name, self.loader if raw[7] else None))
        if slot is None or slot.raw != raw:
            slot = self._slot(name, value, raw, slot)
        slot.fresh = True
        if slot.loader != self.loader:
            slot.loader = None  # one value of several loaders
        if slot.metric is not None:
            self._log_metric(slot, name, value)
            return
        options, number = slot.options, None
        if not isinstance(value, Tensor):
            number, value = value, self._as_tensor(name, value)
        elif value.dim():
            value = self._single(name, value)
        if not slot.enable_graph:
            value = value.detach()
        if value.dtype.itemsize < 4 and value.is_floating_point():
            value = value.float()  # a sum of float16 or bfloat16 loses its small parts
        if options.on_step:  # a copy, for the user may change what was logged, as a replayed CUDA graph does
            slot.last = value.to(narrowest(number)) if isinstance(number, Integral) else value.clone()
        if options.on_epoch:
            weight: int | float = 1
            if options.reduce == "mean":
                weight = batch_size if batch_size is not None else self._batch_size()
            slot.add(value.detach() if slot.enable_graph else value, weight)

    def _log_metric(self, slot: Slot, name: str, metric: Any) -> None:
        if metric is not slot.metric:
            if self.run.attribute_of(slot.metric) is not None or self.run.attribute_of(metric) is None:
                raise MisconfigurationException(self._two_metrics(name, slot, metric))
            slot.metric = metric  # made anew by the user, in the place of the old one
        if slot.options.on_step:
            of_step = getattr(metric, "_forward_cache", None)
            slot.last = None if of_step is None else slot.single(of_step)

    def _slot(self, name: str, value: Any, raw: tuple[Any, ...], known: Slot | None) -> Slot:
        """The slot of a call not seen before: arguments checked and defaults filled, once."""
        fx = self.run.fx
        options = self._options(fx, name, value, raw)
        where = user_line()
        if known is not None:
            if known.options != options:
                changed = [
                    f"{field}={ours!r} and then {theirs!r}"
                    for field, ours, theirs in zip(Options._fields, known.options, options, strict=True)
                    if ours != theirs
                ]
                raise MisconfigurationException(
                    f"self.log({name!r}, ...) is called twice in {fx} with different arguments ({', '.join(changed)}): "
                    f"{known.where} and {where}. Use the same arguments, or another name for one of them."
                )
            known.raw = raw
            return known
        slot = Slot(fx, name, self.loader, options, raw, where, enable_graph=bool(raw[5]))
        if isinstance(value, nn.ModuleDict):
            raise MisconfigurationException(
                f"self.log({name!r}, {type(value).__name__}) at {where}: a collection computes several values. Use "
                "self.log_dict."
            )
        if not isinstance(value, Tensor) and all(hasattr(value, act) for act in ("update", "compute", "reset")):
            slot.metric = value
            if self.run.attribute_of(value) is None:
                raise MisconfigurationException(
                    f"self.log({name!r}, {type(value).__name__}) at {where}: the metric is not an attribute of the "
                    f"module, so it would not move to the module's device nor be saved. "
                    f"Assign it in __init__, e.g. self.{name.replace('/', '_')} = {type(value).__name__}(...)."
                )
            if options.add_dataloader_idx and self.loader is not None:
                self._refuse_shared_metric(slot)
            if options.on_step and getattr(value, "_forward_cache", None) is None:
                self._say_no_value_of_step(slot)
        self._say_logged_twice(slot)
        self.slots[slot.key] = slot
        return slot

    def _say_no_value_of_step(self, slot: Slot) -> None:
        if self.run.alone:  # else computing may wait for other processes
            slot.compute()  # an error where it is no number
        warn_once(
            f"{type(slot.metric).__name__}, logged as {slot.raw_name!r} at {slot.where}, has no value of the step, so "
            "none is logged: it was updated, not called. Call it, or log it with on_step=False, on_epoch=True."
        )

    def _say_logged_twice(self, slot: Slot) -> None:
        """Two hooks may log one name; the value of the epoch is then that of the later one."""
        if not slot.options.on_epoch:
            return
        for other in self.slots.values():
            if other.options.on_epoch and {other.name, other.epoch_name} & {slot.name, slot.epoch_name}:
                warn_once(
                    f"{slot.name!r} is logged in {other.fx} ({other.where}) and in {slot.fx} ({slot.where}): its value "
                    f"of the epoch is what {slot.fx} logs, and the other's is lost. Use another name for one of them."
                )

    def _refuse_shared_metric(self, slot: Slot) -> None:
        """One object cannot keep the values of two loaders apart."""
        for other in self.slots.values():
            if other.metric is slot.metric and other.loader not in (None, slot.loader):
                attribute = self.run.attribute_of(slot.metric)
                raise MisconfigurationException(
                    f"self.{attribute} is logged as {other.name!r} and as {slot.name!r} ({slot.where}): the one object "
                    f"would mix the values of both loaders. Keep one for each, self.{attribute} = "
                    "nn.ModuleList([...]), and log the one at dataloader_idx; or log the value over all loaders with "
                    "add_dataloader_idx=False."
                )

    def _options(self, fx: str, name: Any, value: Any, raw: tuple[Any, ...]) -> Options:
        prog_bar, logger, on_step, on_epoch, reduce_fx, _, sync_dist, add_idx, rank_zero_only = raw
        if not isinstance(name, str):
            raise TypeError(f"self.log takes the name as a str, not {name!r} of type {type(name).__name__}.")
        if isinstance(value, dict):
            raise ValueError(f"self.log({name!r}, {{...}}): a dict cannot be logged under one name. Use self.log_dict.")
        if "/dataloader_idx_" in name:
            raise MisconfigurationException(
                f"self.log({name!r}, ...): the suffix '/dataloader_idx_' is added for you when there are several "
                "evaluation loaders. Leave it out of the name, or choose another with add_dataloader_idx=False."
            )
        logging = TABLE[fx].logging if fx in TABLE else None
        if logging is None:
            raise MisconfigurationException(
                f"self.log({name!r}, ...) cannot be used inside {fx}: nothing collects values there. "
                f"Log from a step or an epoch hook, or write to the logger: self.logger.log_metrics({{{name!r}: ...}})."
            )
        on_step = logging.on_step if on_step is None else on_step
        on_epoch = logging.on_epoch if on_epoch is None else on_epoch
        if not on_step and not on_epoch:
            raise MisconfigurationException(
                f"self.log({name!r}, ..., on_step=False, on_epoch=False) is not useful: the value would go nowhere. "
                "Set one of the two to True."
            )
        if on_step and not logging.may_on_step:
            raise MisconfigurationException(
                f"self.log({name!r}, ..., on_step=True) inside {fx}: this hook runs once an epoch, there is no step "
                "to log at. Leave on_step out, or set on_step=False, on_epoch=True."
            )
        wanted = reduce_fx.lower() if isinstance(reduce_fx, str) else reduce_fx if callable(reduce_fx) else None
        reduce = _REDUCTIONS.get(wanted)
        if reduce is None:
            raise MisconfigurationException(
                f"self.log({name!r}, ..., reduce_fx={reduce_fx!r}): only 'mean', 'sum', 'min' and 'max' can be kept as "
                "a running value. For anything else log a metric object with update, compute and reset."
            )
        return Options(
            bool(prog_bar),
            True if logger is None else bool(logger),
            bool(on_step),
            bool(on_epoch),
            reduce,
            bool(sync_dist),
            bool(add_idx),
            bool(rank_zero_only),
        )

    def _two_metrics(self, name: str, slot: Slot, metric: Any) -> str:
        first, second = self.run.attribute_of(slot.metric), self.run.attribute_of(metric)
        prefix, _, _ = name.rpartition("_")
        likely = f"{prefix}_{second}" if prefix else second
        return (
            f"self.log({name!r}, ...) is called twice in {self.run.fx} with two metrics: self.{first} at {slot.where} "
            f"and self.{second} at {user_line()}. One name holds one metric; "
            f"the second is probably meant as {likely!r}."
        )

    def _as_tensor(self, name: str, value: Any) -> Tensor:
        if not isinstance(value, Number):
            raise ValueError(
                f"self.log({name!r}, {value!r}) of type {type(value).__name__}: only numbers, tensors of one element "
                "and metric objects (update, compute, reset) can be logged."
            )
        dtype = _kept_dtype()
        if isinstance(value, Integral):
            dtype = torch.int64 if -(2**63) <= int(value) < 2**63 else torch.float64
        return torch.tensor(value, dtype=dtype, device=self.run.device)

    def _single(self, name: str, value: Tensor) -> Tensor:
        if value.numel() != 1:
            raise ValueError(
                f"self.log({name!r}, ...) got a tensor of shape {tuple(value.shape)}; it takes one element. "
                "Reduce it first, e.g. with .mean()."
            )
        return value.squeeze()

    def _batch_size(self) -> int:
        if self.batch_size is None:
            self.batch_size = 1 if self.batch is None else extract_batch_size(self.batch)
        return self.batch_size

    def let_go_of_batch(self) -> None:
        """Keep of the batch what its epoch's end needs: the size, which weighs what is logged there."""
        if self.batch is not None:
            self.batch = torch.empty(first_size(self.batch) or 1, 0)

    def last_batch_done(self, batches: int) -> None:
        """An evaluation has seen its last batch, of `batches` here: epoch values may be read."""
        self.loader, self.at_end = None, True

    # reading
    def value(self, slot: Slot) -> Any:
        """The value of the epoch."""
        return slot.compute()

    def _readable(self) -> Iterator[Slot]:
        return (slot for slot in self.slots.values() if slot.fresh)

    def _epoch_is_over(self, slot: Slot) -> bool:
        if self.training:  # over, or not begun: what its first hooks logged can be read
            done = self.run.progress
            return done.epoch_closed or (done.batch == 0 and self.batch is None)
        return self.at_end or (slot.loader is not None and self.loader is not None and slot.loader < self.loader)

    def pull(self) -> None:
        """Bring the trainer's dictionaries up to this moment."""
        done = self.run.progress
        metrics, source = self.run.metrics, MetricSource(self.stage, done.total_batch)
        values: list[tuple[Slot, str, Any, bool]] = []
        # once the epoch is closed, the last step's values do not cover what validation logged under the same name
        if not (self.training and done.epoch_closed and self.pulled_at == done.total_batch):
            values += [(s, s.step_name, s.last, self.training) for s in self._readable() if s.options.on_step]
        self.pulled_at = done.total_batch
        over = [s for s in self._readable() if s.options.on_epoch and self._epoch_is_over(s)]
        values += [(s, s.epoch_name, self.value(s), True) for s in over]
        for slot, name, value, for_callbacks in values:
            if value is None:
                continue
            if for_callbacks:
                metrics.callback[slot.name] = metrics.callback[name] = value
                metrics.sources[slot.name] = metrics.sources[name] = source
            if slot.options.logger:
                metrics.logged[name] = value
            if slot.options.prog_bar:
                metrics.bar[name] = value

    def publish_step(self) -> None:
        """After each training batch: a row for the loggers where one is due. Touches nothing otherwise."""
        if self.run.logging_due():
            self.write_row()

    def write_row(self) -> None:
        run = self.run
        run.check_finite()
        self.published_at = run.progress.total_batch
        if run.loggers:
            run.write(self.step_values())

    @property
    def row_is_due(self) -> bool:
        """Whether the last batch's row is still to be written: a checkpoint of its `on_train_batch_end` is older."""
        done = self.run.progress
        pending = done.batch > 0 and not done.epoch_closed and self.published_at != done.total_batch
        return pending and self.run.logging_due()

    def step_values(self) -> dict[str, Any]:
        """A row for the loggers."""
        values = {s.step_name: s.last for s in self._readable() if s.options.on_step and s.options.logger}
        return {name: value for name, value in values.items() if value is not None}

    def publish_eval_step(self, step: int) -> None:
        """After each evaluation batch: the values logged with on_step=True, counted per loader."""
        values = {
            s.step_name: s.last
            for s in self._readable()
            if s.options.on_step and s.options.logger and s.last is not None and s.loader in (None, self.loader)
            if not (s.options.sync_dist and self.steps_come_later)
        }
        if values and not self.run.in_sanity_check:
            self.run.write(values, step)

    def publish_epoch(self) -> None:
        """At the end of an epoch: epoch values to the loggers and the dictionaries; then all is empty again."""
        self.pull()
        rows = [(s, value) for s in self._readable() if s.options.on_epoch and (value := self.value(s)) is not None]
        logged = {s.epoch_name: value for s, value in rows if s.options.logger}
        if self.training:
            self.run.check_finite()
        else:
            self.outputs = self._outputs(rows)
        if self.run.loggers and not self.run.in_sanity_check:
            self.run.write(logged, epoch_end_of=self)
        self.reset()

    def _outputs(self, rows: list[tuple[Slot, Any]]) -> list[dict[str, float]]:
        """One dictionary a loader; what belongs to no loader stands in each."""
        count = self.run.evaluation_loaders()
        return [
            {s.epoch_name: as_number(v) for s, v in rows if s.options.logger and s.loader in (None, k)}
            for k in range(count)
        ]

    def reset(self) -> None:
        for slot in self.slots.values():
            if slot.metric is not None and slot.fresh:
                slot.metric.reset()
            slot.clear()
        self.at_end, self.batch = False, None

    # a checkpoint in mid-epoch
    def state_dict(self) -> dict[str, Any]:
        """As plain data and tensors; a metric object's own state is saved with the module's other metrics."""
        return {
            "slots": [
                {
                    "key": key,
                    "metric": None if slot.metric is None else self.run.attribute_of(slot.metric),
                    "options": tuple(slot.options),
                    **{part: getattr(slot, part) for part in _RUNNING},
                }
                for key, slot in self.slots.items()
                if slot.fresh
            ],
            # what an epoch's end logs is weighed by the last batch: 0.1 * 3 / 3 is not 0.1
            "batch_size": self.batch_size,
            "size_of_batch": None if self.batch is None else first_size(self.batch),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pulled_at = self.run.progress.total_batch  # saving reads them
        self.batch_size = state.get("batch_size")
        if (size := state.get("size_of_batch")) is not None:
            self.batch = torch.empty(size, 0)  # stands for the batch of which only the size counts
        for saved in state["slots"]:
            fx, name, loader = saved["key"]
            slot = Slot(fx, name, loader, Options(*saved["options"]), (), "the checkpoint")
            if saved["metric"] is not None:
                slot.metric = self.run.module.get_submodule(saved["metric"])
            for part in _RUNNING:
                setattr(slot, part, move_data_to_device(saved.get(part, False), self.run.device))
            self.slots[fx, name, loader] = slot


class NoResults(Results):
    """Of a barebones run: `self.log` does nothing."""

    def log(self, name: str, value: Any, raw: tuple[Any, ...], batch_size: int | None, attribute: str | None) -> None:
        return


def narrowest(number: Any) -> torch.dtype:
    """The usual type for a whole number; of one that has more digits than that holds, a type that keeps them."""
    kept = _kept_dtype()
    if abs(number) <= 2 / torch.finfo(kept).eps:
        return kept
    return torch.float64 if abs(number) <= 2**53 or abs(number) >= 2**63 else torch.int64


def _kept_dtype() -> torch.dtype:
    """Of numbers that come without one. In a step of "16-true" or "bf16-true" the default would lose their digits."""
    default = torch.get_default_dtype()
    return torch.float32 if default.itemsize < 4 else default


def user_line() -> str:
    """Where in the user's code a call comes from, as `file.py:12`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_HERE) or "/torch/" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def as_number(value: Any) -> float:
    """The number a person or a file needs; this waits for the device."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"a logged metric computed a tensor of shape {tuple(value.shape)}; loggers take single numbers. "
                "Log its parts under names of their own."
            )
        return value.item()
    return value  # type: ignore[no-any-return]  # a number already


def as_numbers(values: dict[str, Any]) -> dict[str, float]:
    """All of a row at once: one copy per device instead of one wait per value."""
    on_device = {
        k: v
        for k, v in values.items()
        if isinstance(v, Tensor) and v.is_cuda and v.is_floating_point() and v.numel() == 1
    }
    numbers: dict[str, float] = {}
    if on_device:
        stacked = torch.stack([v.detach().reshape(()).double() for v in on_device.values()])
        numbers = dict(zip(on_device, stacked.tolist(), strict=True))
    return {k: numbers[k] if k in numbers else as_number(v) for k, v in values.items()}


def first_not_finite(losses: list[Tensor]) -> int | None:
    """Index of the first loss that is nan or infinite; one wait for the device in all."""
    if not losses:
        return None
    finite = torch.isfinite(torch.stack([loss.reshape(()) if loss.dim() else loss for loss in losses]))
    return None if bool(finite.all()) else int((~finite).nonzero()[0])


def warn_not_finite(value: Tensor, batch: int, step: int) -> None:
    rank_zero_warn(
        f"The loss became {value.item()} in training batch {batch} (optimizer step {step}). The weights are probably "
        "lost from there on. Look at that batch, lower the learning rate, or set gradient_clip_val; "
        "Trainer(detect_anomaly=True) names the operation."
    )
