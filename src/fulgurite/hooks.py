"""THE table of hooks: who has them, in which order they run, whether one may log there and with which defaults.

`resolve` turns the table into flat tuples of bound functions, once a stage and once an epoch; and anew when a method is
assigned on an object that takes part in a run, which its `__setattr__` tells the run (docs/method-lookup.md). A hook
that nobody overrides is the empty tuple, so an unused hook costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulgurite.callbacks.callback import Callback
    from fulgurite.core.module import LightningModule
    from fulgurite.run import Run


@dataclass(frozen=True)
class Logging:
    """What `self.log` may do in a hook: the defaults, and whether a value of a single step makes sense there."""

    on_step: bool
    on_epoch: bool
    may_on_step: bool = True


EACH_STEP = Logging(on_step=True, on_epoch=False)
EACH_EVAL_STEP = Logging(on_step=False, on_epoch=True)
ONCE = Logging(on_step=False, on_epoch=True, may_on_step=False)


@dataclass(frozen=True)
class Hook:
    """One row: `callbacks` and `module` say who has it; `logging` is None where `self.log` is an error."""

    name: str
    callbacks: bool = True
    module: bool = True
    logging: Logging | None = None


def _evaluation(stage: str, step: Logging | None, once: Logging | None) -> list[Hook]:
    return [
        Hook(f"on_{stage}_start", logging=once),
        Hook(f"on_{stage}_end"),
        Hook(f"on_{stage}_epoch_start", logging=once),
        Hook(f"on_{stage}_epoch_end", logging=once),
        Hook(f"on_{stage}_batch_start", logging=step),
        Hook(f"on_{stage}_batch_end", logging=step),
        Hook(f"on_{stage}_model_eval", callbacks=False),
        Hook(f"on_{stage}_model_train", callbacks=False),
        Hook(f"{stage}_step", callbacks=False, logging=step),
        Hook(f"{'val' if stage == 'validation' else stage}_dataloader", callbacks=False),
    ]


TABLE: dict[str, Hook] = {
    hook.name: hook
    for hook in [
        Hook("setup"),
        Hook("teardown"),
        Hook("prepare_data", callbacks=False),
        Hook("configure_model", callbacks=False),
        Hook("configure_callbacks", callbacks=False),
        Hook("configure_optimizers", callbacks=False),
        Hook("on_fit_start"),
        Hook("on_fit_end"),
        Hook("on_sanity_check_start", module=False),
        Hook("on_sanity_check_end", module=False),
        Hook("train_dataloader", callbacks=False),
        Hook("on_train_start", logging=ONCE),
        Hook("on_train_end"),
        Hook("on_train_epoch_start", logging=ONCE),
        Hook("on_train_epoch_end", logging=ONCE),
        Hook("on_train_batch_start", logging=EACH_STEP),
        Hook("on_train_batch_end", logging=EACH_STEP),
        Hook("training_step", callbacks=False, logging=EACH_STEP),
        Hook("on_before_zero_grad", logging=EACH_STEP),
        Hook("optimizer_zero_grad", callbacks=False, logging=EACH_STEP),
        Hook("on_before_backward", logging=EACH_STEP),
        Hook("backward", callbacks=False, logging=EACH_STEP),
        Hook("on_after_backward", logging=EACH_STEP),
        Hook("on_before_optimizer_step", logging=EACH_STEP),
        Hook("configure_gradient_clipping", callbacks=False, logging=EACH_STEP),
        Hook("optimizer_step", callbacks=False, logging=EACH_STEP),
        Hook("lr_scheduler_step", callbacks=False),
        Hook("on_before_batch_transfer", callbacks=False),
        Hook("transfer_batch_to_device", callbacks=False),
        Hook("on_after_batch_transfer", callbacks=False),
        Hook("on_validation_model_zero_grad", callbacks=False),
        *_evaluation("validation", EACH_EVAL_STEP, ONCE),
        *_evaluation("test", EACH_EVAL_STEP, ONCE),
        *_evaluation("predict", None, None),
        Hook("on_exception", module=False),
        Hook("state_dict", module=False),
        Hook("load_state_dict", module=False),
        Hook("on_save_checkpoint"),
        Hook("on_load_checkpoint"),
    ]
}

# assigned on an object, these change what a run calls: "batch_to_device" is a strategy's, the other is no method
LOOKED_UP = frozenset({*TABLE, "automatic_optimization", "batch_to_device"})
_going_on: list[Run] = []


@contextmanager
def going_on(run: Run) -> Iterator[None]:
    """Inside, the run hears of what is assigned on the objects whose methods it calls."""
    _going_on.append(run)
    try:
        yield
    finally:
        _going_on.remove(run)


class Watched:
    """Tells the runs that call its methods when one is assigned or deleted on an instance: they look it up anew."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in LOOKED_UP and _going_on:
            _renew_runs_of(self, name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in LOOKED_UP and _going_on:
            _renew_runs_of(self, name)


def _renew_runs_of(owner: Watched, name: str) -> None:
    for run in tuple(_going_on):
        if any(owner is other for other in run.called):
            run.renew(name)


Calls = tuple[Callable[..., Any], ...]


class Hooks:
    """The hooks of one stage as attributes, each a tuple of functions ready to call."""

    on_sanity_check_start: Calls
    on_sanity_check_end: Calls
    on_train_start: Calls
    on_train_end: Calls
    on_train_epoch_start: Calls
    on_train_epoch_end: Calls
    on_train_batch_start: Calls
    on_train_batch_end: Calls
    on_before_zero_grad: Calls
    on_before_backward: Calls
    on_after_backward: Calls
    on_before_optimizer_step: Calls
    # of an evaluation, whichever it is
    start: Calls
    end: Calls
    epoch_start: Calls
    epoch_end: Calls
    batch_start: Calls
    batch_end: Calls
    step: Callable[..., Any]


TRAINING = [name for name in Hooks.__annotations__ if name.startswith("on_")]
EVALUATION = [name for name in Hooks.__annotations__ if name not in TRAINING and name != "step"]


def overrides(obj: object, name: str, base: type) -> bool:
    """Whether `obj` has its own `name`: by class, or set on the instance. A foreign class always counts as having."""
    own = getattr(obj, name, None)
    return own is not None and getattr(own, "__func__", own) is not getattr(base, name, None)


def method_of(owner: object, name: str) -> Callable[..., Any]:
    """A method, bound; that of a foreign class by its name at each call, for nobody tells when it is assigned."""
    if isinstance(owner, Watched):
        return getattr(owner, name)  # type: ignore[no-any-return]  # hooks are callables

    def by_name(*args: Any, **kwargs: Any) -> Any:
        method = getattr(owner, name, None)
        return method(*args, **kwargs) if method is not None else None

    return by_name


def resolve(run: Run, stage: str, hooks: Hooks) -> None:
    """Find for every hook of `stage` ("train", "validation", "test", "predict") whom to call, in which order.

    The tuples are put into `hooks`: one that is being walked is walked to its end, the next walk is of the new one.
    """
    for name in TRAINING if stage == "train" else EVALUATION:
        setattr(hooks, name, calls(run, name if stage == "train" else f"on_{stage}_{name}"))


def owners(run: Run, name: str) -> list[str]:
    """Who is called at the hook `name`, by class, in the order of the calls."""
    first, module, last = _in_order(run, name)
    return [type(owner).__name__ for owner in (*first, *module, *last) if hasattr(owner, name)]


def _in_order(run: Run, name: str) -> tuple[list[Callback], list[LightningModule], list[Callback]]:
    """Who has, or may get, the hook: callbacks, the module, and at the epoch's end callbacks that monitor after it."""
    callbacks = [cb for cb in run.callbacks if not isinstance(cb, Watched) or overrides(cb, name, run.callback_base)]
    last = [cb for cb in callbacks if getattr(cb, "_monitors", False)] if name == "on_train_epoch_end" else []
    module = [run.module] if TABLE[name].module and overrides(run.module, name, run.module_base) else []
    return [cb for cb in callbacks if cb not in last], module, last


def calls(run: Run, name: str, before_monitors: Calls = ()) -> Calls:
    """Whom to call at the hook `name`: callbacks, then the module; callbacks that monitor last at the epoch's end."""
    first, module, last = _in_order(run, name)
    return (
        *(_for_callback(run, name, callback) for callback in first),
        *(for_module(run, name) for _ in module),
        *before_monitors,
        *(_for_callback(run, name, callback) for callback in last),
    )


def _for_callback(run: Run, name: str, callback: Callback) -> Callable[..., Any]:
    trainer, module = run.trainer, run.module
    key = getattr(callback, "state_key", type(callback).__qualname__)
    method = profiled(run, f"[Callback]{key}.{name}", method_of(callback, name))

    def call(*args: Any, **kwargs: Any) -> None:  # what a callback returns has no say
        before, run.fx = run.fx, name
        try:
            method(trainer, module, *args, **kwargs)
        finally:
            run.fx = before

    return call


def for_module(run: Run, name: str) -> Callable[..., Any]:
    """The module's own method `name`, so that `self.log` inside it knows where it is."""
    action = f"[LightningModule]{type(run.module).__name__}.{name}"
    return inside(run, name, profiled(run, action, getattr(run.module, name)))


def inside(run: Run, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as the place `name`, which `self.log` inside it finds itself in."""

    def call(*args: Any, **kwargs: Any) -> Any:
        before, run.fx = run.fx, name
        try:
            return method(*args, **kwargs)
        finally:
            run.fx = before

    return call


def profiled_method(run: Run, owner: Any, name: str, method: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A method of the data module, or of the module, with the time it takes; `method`: what was put in its place."""
    kind = "LightningModule" if owner is run.module else "LightningDataModule"
    return profiled(run, f"[{kind}]{type(owner).__name__}.{name}", method or getattr(owner, name))


def profiled(run: Run, action: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, with the time it takes under the name `action`, where there is a profiler."""
    if run.profiler is None:
        return method
    profile = run.profiler.profile

    def measured(*args: Any, **kwargs: Any) -> Any:
        with profile(action):
            return method(*args, **kwargs)

    return measured
