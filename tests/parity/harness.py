"""Play one setting with Lightning or with fulgurite, and note everything that a user could see.

`play` gives every hook call (module, callback, monitoring callback, data module) with its arguments, counters, modes,
weights, gradients and metrics; every logger row; the files on disk with what is in them; the final state.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch
import torch
from torch.utils.data import DataLoader, IterableDataset

from parity import models

CALLBACK_HOOKS = sorted(
    name
    for name, value in vars(lightning.pytorch.Callback).items()
    if inspect.isfunction(value) and not name.startswith("_")
)
MODULE_HOOKS = [
    *(n for n in dir(lightning.pytorch.LightningModule) if n.startswith("on_") and n != "on_gpu"),
    *"prepare_data setup teardown configure_model configure_callbacks transfer_batch_to_device".split(),
    *"optimizer_zero_grad backward configure_gradient_clipping lr_scheduler_step".split(),
]
DATA_HOOKS = "prepare_data setup teardown state_dict load_state_dict on_exception".split()
STAGES = "training", "validating", "testing", "predicting", "sanity_checking"
# What our ModelCheckpoint also remembers, for an exact resume.
ADDED_STATE = {"last_global_step_saved", "newest_path", "waiting", "lives", "outdated"}
# Ours holds the path of the very file that is being written; Lightning's that of the one before.
OTHER_STATE = {"last_model_path"}
# Enumerations and sentences of the package's own.
OWN_WORDS = {"stopping_reason", "stopping_reason_message"}
FLAGS = {
    "max_epochs": 3,
    "log_every_n_steps": 2,
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}

Act = Callable[[Any, Any, "Case", Any], Any]


def fit(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    trainer.fit(module, *case.loaders(case, pl))


def usual_loaders(case: Case, pl: Any) -> tuple[Any, Any]:
    """`batches` training batches of 3 (the last one shorter, shuffled if sized), `val` validation loaders."""
    rows = max(0, case.batches * 3 - 1)
    train = torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))
    val = torch.randn(11, 8, generator=torch.Generator().manual_seed(2))
    loader = DataLoader(Stream(train), 3) if case.iterable else DataLoader(train, 3, shuffle=rows > 0)
    return loader, [DataLoader(val, 5) for _ in range(case.val)] or None


class Stream(IterableDataset):
    """Data that cannot tell its length."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.rows)


@dataclass
class Case:
    """One setting. `do` says what hooks do besides being recorded: {"cb.on_fit_end": f(trainer, module, *args)}."""

    model: str = "Plain"
    flags: dict[str, Any] = field(default_factory=dict)
    optim: Callable[[Any], Any] = models.adamw
    do: dict[str, Callable[..., Any]] = field(default_factory=dict)
    lightning_do: dict[str, Callable[..., Any]] = field(default_factory=dict)
    callbacks: Callable[[Any], Iterable[Any]] = lambda pl: ()
    loaders: Callable[[Case, Any], tuple[Any, ...]] = usual_loaders
    act: Act = fit
    batches: int = 7
    val: int = 1
    iterable: bool = False
    none_at: tuple[int, ...] = ()
    raises: str | None = None  # both packages raise an error of this type
    monitor: bool = True  # a recording Checkpoint callback beside the plain one
    ignore: tuple[str, ...] = ()  # parts of the outcome that are not compared, with the reason beside the case


class Event(NamedTuple):
    hook: str
    args: Any
    step: int
    epoch: int
    stages: tuple[str, ...]
    should_stop: bool
    training: bool
    grad_enabled: bool
    weights: str
    grads: str
    callback_metrics: dict[str, Any]
    logged_metrics: dict[str, Any]
    progress_bar_metrics: dict[str, Any]


class Tape:
    def __init__(self, pl: Any, case: Case, watch: bool) -> None:
        self.events: list[Any] = []
        self.watch = watch
        self.do = {**case.do, **(case.lightning_do if pl is lightning.pytorch else {})}

    def note(self, hook: str, trainer: Any, module: Any, args: Any) -> None:
        if not self.watch:
            return
        parameters = list(module.parameters())
        self.events.append(
            Event(
                hook,
                plain(args),
                trainer.global_step,
                trainer.current_epoch,
                tuple(s for s in STAGES if getattr(trainer, s)),
                bool(trainer.should_stop),
                module.training,
                torch.is_grad_enabled(),
                digest(parameters),
                digest(p.grad for p in parameters),
                *(plain(getattr(trainer, f"{kind}_metrics")) for kind in ("callback", "logged", "progress_bar")),
            )
        )

    def react(self, hook: str, trainer: Any, module: Any, args: Iterable[Any]) -> Any:
        return self.do[hook](trainer, module, *args) if hook in self.do else None


def digest(tensors: Iterable[torch.Tensor | None]) -> str:
    parts = (
        b"-" if t is None else t.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() for t in tensors
    )
    return hashlib.md5(b"".join(parts)).hexdigest()[:8]


def plain(value: Any) -> Any:
    """`value` as plain data that is equal exactly where the bits are."""
    if isinstance(value, torch.Tensor):
        return plain(value.item()) if value.numel() == 1 else digest([value])
    if isinstance(value, float):
        return value if value == value else "nan"
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (int, str, type(None))):
        return value
    name = type(value).__name__
    return (
        "callable"
        if inspect.isfunction(value) or name == "Closure"
        else {"_MockOptimizer": "NoOptimizer"}.get(name, name)
    )


def arguments(function: Any, skip: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name, as the package's own base class names them, so that both ways of passing look alike."""
    bound = inspect.signature(function).bind(*[None] * skip, *args, **kwargs)
    bound.apply_defaults()
    given = dict(list(bound.arguments.items())[skip:])
    if "checkpoint" in given:
        given["checkpoint"] = sorted(given["checkpoint"].keys() - {"fulgurite"})
    return given


def recorded(who: str, base: type, name: str, target: Callable[..., tuple[Any, Any]], skip: int) -> Callable[..., Any]:
    """The hook `name` of `base`, noted on the tape; what the case does there decides the answer, if it has one."""
    original = getattr(base, name)

    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        trainer, module = target(self, *args)
        self.tape.note(f"{who}.{name}", trainer, module, arguments(original, skip, args[skip - 1 :], kwargs))
        result = original(self, *args, **kwargs)
        answer = self.tape.react(f"{who}.{name}", trainer, module, args[skip - 1 :])
        return result if answer is None else answer

    hook.__name__ = name  # not functools.wraps: Lightning looks through it and finds nothing overridden
    return hook


def named(tape: Tape, who: str, hooks: Iterable[str]) -> list[str]:
    return [h for h in hooks if tape.watch or f"{who}.{h}" in tape.do]


def make_module(pl: Any, case: Case, tape: Tape) -> Any:
    base = getattr(models.of(pl), case.model)
    hooks = {n: recorded("m", base, n, lambda m, *a: (m.trainer, m), 1) for n in named(tape, "m", MODULE_HOOKS)}
    module = type("Module", (base,), hooks)(case)
    module.tape = tape
    return module


def make_callback(pl: Any, base: type, who: str, tape: Tape) -> Any:
    hooks = {}
    for name in named(tape, who, CALLBACK_HOOKS):
        takes_trainer = "trainer" in inspect.signature(getattr(base, name)).parameters
        hooks[name] = (
            recorded(who, base, name, lambda c, t=None, m=None, *a: (t, m), 3) if takes_trainer else silent(who, name)
        )
    callback = type(f"Recording{base.__name__}", (base,), hooks)()
    callback.tape = tape
    return [callback] if hooks else []


def silent(who: str, name: str) -> Callable[..., Any]:
    """state_dict and load_state_dict, which are told of no trainer."""

    def hook(self: Any, *args: Any) -> Any:
        self.tape.events.append((f"{who}.{name}", plain(args)))
        return {"calls": 1} if name == "state_dict" else None

    return hook


@functools.cache
def row_logger(pl: Any) -> type:
    class Rows(pl.loggers.Logger):
        name, version = "rows", 0

        def __init__(self) -> None:
            super().__init__()
            self.rows: list[Any] = []

        def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
            self.rows.append((step, plain(metrics)))

        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            self.rows.append(("hparams", plain(dict(params))))

        def finalize(self, status: str) -> None:
            self.rows.append(("finalize", status))

    return Rows


def play(pl: Any, case: Case, root: Path, watch: bool = True) -> dict[str, Any]:
    """What `case` looks like with the package `pl`; `watch=False` overrides no hook that the case does not use."""
    tape, rows = Tape(pl, case, watch), row_logger(pl)()
    torch.manual_seed(0)
    module = make_module(pl, case, tape)
    monitors = make_callback(pl, pl.callbacks.Checkpoint, "mon", tape) if case.monitor else []
    others = make_callback(pl, pl.Callback, "cb", tape)
    callbacks = [*monitors, *others, *case.callbacks(pl)]
    flags = {**FLAGS, "logger": [pl.loggers.CSVLogger(root, name="logs", version=0), rows], **case.flags}
    if not any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks):
        flags.setdefault("enable_checkpointing", False)
    torch.manual_seed(5)
    seen: dict[str, Any] = {}
    trainer, handler = None, signal.getsignal(signal.SIGTERM)
    try:
        trainer = pl.Trainer(
            callbacks=list(callbacks),  # Lightning adds to the list that it is given
            default_root_dir=root,
            **{k: v(pl) if inspect.isfunction(v) else v for k, v in flags.items() if v != "absent"},
        )
        seen["returned"] = plain(case.act(trainer, module, case, pl))
    except Exception as error:
        seen["error"] = type(error).__name__
        seen["traceback"] = traceback.format_exc()
        if pl is lightning.pytorch:
            signal.signal(signal.SIGTERM, handler)  # which it leaves behind after an error
    seen["record"], seen["rows"] = tape.events, rows.rows
    seen["weights"], seen["rng"] = digest(module.state_dict().values()), digest([torch.get_rng_state()])
    if trainer is not None:
        seen.update(final_state(trainer, callbacks, root))
    return seen


def final_state(trainer: Any, callbacks: list[Any], root: Path) -> dict[str, Any]:
    optimizers = trainer.optimizers
    return {
        "counters": (
            trainer.global_step,
            trainer.current_epoch,
            str(trainer.state.status.value),
            bool(trainer.should_stop),
        ),
        "batches": plain([trainer.num_training_batches, trainer.num_val_batches, trainer.num_test_batches]),
        "metrics": [plain(getattr(trainer, f"{kind}_metrics")) for kind in ("callback", "logged", "progress_bar")],
        "learning rates": [g["lr"] for o in optimizers for g in o.param_groups],
        "optimizer states": [plain(o.state_dict()) for o in optimizers],
        "callbacks": [attributes(c, root) for c in callbacks],
        "files": {str(p.relative_to(root)): contents(p, root) for p in sorted(root.rglob("*")) if p.is_file()},
    }


def attributes(callback: Any, root: Path) -> dict[str, Any]:
    """The public plain attributes of a callback of the package (not of the recorders)."""
    if hasattr(callback, "tape"):
        return {}
    public = {
        k: v
        for k, v in vars(callback).items()
        if not k.startswith("_") and k not in OWN_WORDS and isinstance(v, (int, float, str, dict, torch.Tensor))
    }
    return relative(plain(public), root)


def relative(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {relative(k, root): relative(v, root) for k, v in value.items()}
    if isinstance(value, list):
        return [relative(v, root) for v in value]
    return value.replace(str(root), "ROOT") if isinstance(value, str) else value


def contents(path: Path, root: Path) -> Any:
    if path.suffix in (".csv", ".yaml"):
        return path.read_text()
    if path.suffix != ".ckpt":
        return "a file"
    checkpoint = torch.load(path, weights_only=False)
    shared = {
        k: v for k, v in checkpoint.items() if k not in ("fulgurite", "loops", "pytorch-lightning_version", "callbacks")
    }
    states = {k: v for k, v in checkpoint.get("callbacks", {}).items() if not k.startswith("Recording")}
    own = {
        k: {name: v for name, v in state.items() if name not in ADDED_STATE | OTHER_STATE}
        for k, state in states.items()
    }
    return relative(plain({**shared, "callbacks": own}), root)


def differences(theirs: dict[str, Any], ours: dict[str, Any], ignore: tuple[str, ...] = ()) -> list[str]:
    """One readable line or paragraph for each part that differs; the first place only."""
    found = []
    for key in dict.fromkeys([*theirs, *ours]):
        a, b = theirs.get(key), ours.get(key)
        if key in ignore or key == "traceback" or a == b:
            continue
        found.append(f"{key}: {first_difference(a, b)}")
    return found


def first_difference(a: Any, b: Any) -> str:
    if isinstance(a, Event) and isinstance(b, Event):
        parts = [f"{n}: {first_difference(x, y)}" for n, x, y in zip(Event._fields, a, b) if x != y]
        return (
            f"in {a.hook} (step {a.step}, epoch {a.epoch}) {'; '.join(parts)}"
            if a.hook == b.hook
            else f"lightning calls {brief(a)}, we call {brief(b)}"
        )
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [k for k in dict.fromkeys([*a, *b]) if k not in a or k not in b or a[k] != b[k]]
        return "; ".join(f"[{k}] {first_difference(a.get(k, 'ABSENT'), b.get(k, 'ABSENT'))}" for k in keys[:4])
    if isinstance(a, list) and isinstance(b, list):
        i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        before = f" (after {brief(a[i - 1])})" if i and isinstance(a[i - 1], tuple) else ""
        here = first_difference(*((x[i] if i < len(x) else "nothing more") for x in (a, b)))
        return f"item {i} of {len(a)} and {len(b)}{before}: {here}"
    if isinstance(a, str) and isinstance(b, str) and "\n" in a + b:
        return first_difference(a.splitlines(), b.splitlines())
    return f"lightning {brief(a)}, ours {brief(b)}"


def brief(value: Any) -> str:
    return (
        f"{value.hook}(step {value.step}, epoch {value.epoch}, {value.args})"[:160]
        if isinstance(value, Event)
        else repr(value)[:300]
    )
