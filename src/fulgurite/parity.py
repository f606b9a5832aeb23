"""Do several processes do what one does? The user's own model and data, run both ways and compared step by step."""

from __future__ import annotations

import copy
import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler

from fulgurite.callbacks.callback import Callback
from fulgurite.shards import can_share
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.seed import collect_rng_state, restore_rng_state

_TOLERANCES = {"64-true": 1e-10, "32-true": 1e-4}
_DRAWS = (nn.modules.dropout._DropoutNd,)
_DEPENDS_ON_OTHERS = (nn.modules.batchnorm._BatchNorm,)


@dataclass
class ParityReport:
    """What `trainer.check_parity` found."""

    devices: int
    steps: int
    tolerance: float
    samples: int = 0
    first_difference: str | None = None
    differences: list[str] = field(default_factory=list)
    likely: str = ""

    @property
    def equal(self) -> bool:
        """Whether several processes did what one does."""
        return self.first_difference is None

    def __str__(self) -> str:
        head = f"{self.devices} processes against one, {self.steps} steps, {self.samples} samples: "
        if self.equal:
            return head + f"the same samples, metrics and weights (within {self.tolerance:g})."
        more = "".join(f"\n  then: {line}" for line in self.differences[1:4])
        return f"{head}first difference: {self.first_difference}{more}{self.likely}"


class _Recorder(Callback):
    """Notes of each step which samples went in and what became of the weights; leaves it in a file a process."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.steps: list[dict[str, Any]] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        own = trainer.world_size == 1 or not trainer._run.idle
        self.steps.append({"samples": fingerprints(batch) if own else [], "weights": None})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps[-1]["weights"] = {
            name: (float(p.detach().double().sum()), float(p.detach().double().norm()))
            for name, p in pl_module.named_parameters()
        }

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        values, slots = trainer.callback_metrics, trainer._results.slots.values()
        of_steps = {slot.name for slot in slots if not slot.options.on_epoch or slot.name != slot.epoch_name}
        of_steps |= {slot.step_name for slot in slots if slot.step_name != slot.epoch_name}
        self.metrics.append({name: float(value) for name, value in values.items() if name not in of_steps})

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        torch.save((self.steps, self.metrics), Path(self.folder, f"{trainer.global_rank}.pt"))


def fingerprints(batch: Any) -> list[str]:
    """One short text a sample, of the bytes of all its tensors."""
    tensors = [t for t in _tensors(batch) if t.dim()]
    if not tensors:
        return []
    count = len(tensors[0])
    rows = [t.detach().cpu().contiguous() for t in tensors if len(t) == count]
    return [hashlib.sha1(b"".join(_bytes(t[i]) for t in rows)).hexdigest()[:12] for i in range(count)]


def _bytes(sample: Tensor) -> bytes:
    flat = sample.contiguous().view(-1)
    return flat.view(torch.uint8).numpy(force=True).tobytes()  # NumPy has no bfloat16


def _tensors(data: Any) -> Iterator[Tensor]:
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _tensors(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from _tensors(value)


class _Joined(Sampler[list[Any]]):
    """N batches of a batch sampler as one."""

    def __init__(self, sampler: Any, n: int) -> None:
        self.sampler, self.n = sampler, n

    def __iter__(self) -> Iterator[list[Any]]:
        joined: list[Any] = []
        for i, batch in enumerate(self.sampler):
            joined += list(batch)
            if (i + 1) % self.n == 0:
                yield joined
                joined = []
        if joined:
            yield joined

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.n)


def for_one_process(loader: Any, devices: int) -> DataLoader[Any]:
    """The loader that gives one process, a step, what `devices` processes get together."""
    if not isinstance(loader, DataLoader) or not can_share(loader) or loader.batch_sampler is None:
        raise MisconfigurationException(
            f"check_parity compares {devices} processes with one that takes their batches together, and what "
            f"{type(loader).__name__} yields cannot be put together. Pass a DataLoader of a data set with a length, "
            "with a batch_size or a batch_sampler, without a DistributedSampler."
        )
    own = loader.batch_sampler
    joined: Any = _Joined(own, devices)
    if type(own) is BatchSampler:
        joined = BatchSampler(own.sampler, own.batch_size * devices, own.drop_last)
    twin = copy.copy(loader)
    twin.__dict__["batch_sampler"] = joined
    return twin


def check_parity(
    trainer_of: Callable[..., Any],
    model: nn.Module,
    train: DataLoader[Any],
    val: Any,
    devices: int,
    max_steps: int,
    precision: str,
    tolerance: float | None,
    flags: dict[str, Any],
) -> ParityReport:
    """Fit copies of the model, once with `devices` processes and once with one, and compare what they noted."""
    tolerance = _TOLERANCES.get(precision, 1e-2) if tolerance is None else tolerance
    usual = {
        "accelerator": "cpu",
        "precision": precision,
        "max_steps": max_steps,
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **flags,
    }
    draws = collect_rng_state()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for n in (1, devices):
                Path(folder, str(n)).mkdir(exist_ok=True)
                restore_rng_state(draws)
                strategy = "single_device" if n == 1 else "ddp_spawn"
                trainer = trainer_of(**usual, devices=n, strategy=strategy, callbacks=[_Recorder(f"{folder}/{n}")])
                loader = for_one_process(train, devices) if n == 1 else train
                trainer.fit(copy.deepcopy(model), loader, val)
            one = torch.load(Path(folder, "1", "0.pt"), weights_only=True)
            several = [torch.load(Path(folder, str(devices), f"{r}.pt"), weights_only=True) for r in range(devices)]
    finally:
        restore_rng_state(draws)
    report = ParityReport(devices, len(one[0]), tolerance, samples=sum(len(step["samples"]) for step in one[0]))
    report.differences = list(_differences(one, several, tolerance))
    report.first_difference = next(iter(report.differences), None)
    if not report.equal:
        report.likely = _likely(model)
    return report


def _differences(one: Any, several: list[Any], tolerance: float) -> Iterator[str]:
    """In the order in which they came about: samples of a step, then weights after it; metrics at the end."""
    (steps, metrics), ranks = one, [answer[0] for answer in several]
    for rank, theirs in enumerate(ranks):
        if len(theirs) != len(steps):
            yield f"process {rank} took {len(theirs)} batches, one process {len(steps)}"
    for i, step in enumerate(steps):
        mine = Counter(step["samples"])
        theirs = Counter(sample for rank in ranks if i < len(rank) for sample in rank[i]["samples"])
        if mine != theirs:
            lacking, more = (mine - theirs).total(), (theirs - mine).total()
            yield f"the samples of batch {i}: {lacking} of one process's are missing, {more} are there besides"
        for rank, notes in enumerate(ranks):
            if i < len(notes) and (name := _furthest(step["weights"], notes[i]["weights"], tolerance)) is not None:
                yield f"the weights after batch {i}: {name} on process {rank}"
                break
    for rank, (_, theirs) in enumerate(several):
        for epoch, (own, other) in enumerate(zip(metrics, theirs, strict=False)):
            for name in own.keys() | other.keys():
                a, b = own.get(name), other.get(name)
                if a is None or b is None:
                    yield f"the metric {name!r} of epoch {epoch} on process {rank}: logged by one of the two only"
                elif not _close(a, b, tolerance):
                    yield f"the metric {name!r} of epoch {epoch} on process {rank}: {b:.10g} instead of {a:.10g}"


def _furthest(own: dict[str, Any], other: dict[str, Any], tolerance: float) -> str | None:
    for name, values in own.items():
        if not all(_close(a, b, tolerance) for a, b in zip(values, other[name], strict=True)):
            return f"{name} has norm {other[name][1]:.10g} instead of {values[1]:.10g}"
    return None


def _close(a: float, b: float, tolerance: float) -> bool:
    return (a != a and b != b) or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def _likely(model: nn.Module) -> str:
    draws = [name for name, part in model.named_modules() if isinstance(part, _DRAWS)]
    norms = [name for name, part in model.named_modules() if isinstance(part, _DEPENDS_ON_OTHERS)]
    said = ""
    if draws:
        said += f"\n  {', '.join(draws[:4])}: dropout draws other numbers on each process; set p=0 for this check."
    if norms:
        said += f"\n  {', '.join(norms[:4])}: batch norm sees the samples of its own process (sync_batchnorm on GPUs)."
    return said
