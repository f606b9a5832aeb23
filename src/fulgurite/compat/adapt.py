"""Hooks of the 1.x era: a module or callback that has them is given today's, for as long as one call runs.

What is put on the objects here is taken off when the call ends. A module without such hooks is left as it is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulgurite.callbacks.callback import Callback
from fulgurite.compat.era import say
from fulgurite.compat.several_optimizers import step_several
from fulgurite.core.module import LightningModule
from fulgurite.hooks import overrides
from fulgurite.run import Given
from fulgurite.utilities.combined_loader import CombinedLoader
from fulgurite.utilities.memory import recursive_detach

if TYPE_CHECKING:
    from fulgurite.run import Run

_STAGES = ("train", "validation", "test", "predict")
_STEP = {"train": "training_step", "validation": "validation_step", "test": "test_step", "predict": "predict_step"}
_EPOCH_END = {"train": "training_epoch_end", "validation": "validation_epoch_end", "test": "test_epoch_end"}
# how many arguments a hook is given today; with more it had a dataloader_idx or optimizer_idx, with fewer it had none
_TAKES = {
    "on_train_batch_start": 2,
    "on_train_batch_end": 3,
    "transfer_batch_to_device": 3,
    "on_before_batch_transfer": 2,
    "on_after_batch_transfer": 2,
    "on_before_optimizer_step": 1,
    "on_before_zero_grad": 1,
    "on_validation_batch_start": 3,
    "on_validation_batch_end": 4,
    "on_test_batch_start": 3,
    "on_test_batch_end": 4,
    "on_predict_batch_start": 3,
    "on_predict_batch_end": 4,
    "optimizer_zero_grad": 3,
    "backward": 1,
}
_EVALUATION = ("on_validation_batch", "on_test_batch", "on_predict_batch")
_IDX = ("optimizer_idx", "optimizer_i", "opt_idx")
# hooks that are gone -> the one they run with today ("*": of each stage), whether before it, and the line to write
_GONE = {
    "on_epoch_start": ("on_*_epoch_start", True, "Write on_train_epoch_start, on_validation_epoch_start, ..."),
    "on_epoch_end": ("on_*_epoch_end", False, "Write on_train_epoch_end, on_validation_epoch_end, ..."),
    "on_batch_start": ("on_train_batch_start", True, "Write on_train_batch_start."),
    "on_batch_end": ("on_train_batch_end", False, "Write on_train_batch_end."),
    "on_pretrain_routine_start": ("on_fit_start", False, "Write on_fit_start."),
    "on_pretrain_routine_end": ("on_fit_start", False, "Write on_fit_start."),
}


class Patches:
    """Attributes put on objects, to be taken off again."""

    def __init__(self) -> None:
        self._before: list[tuple[dict[str, Any], str, Any, Any]] = []

    def put(self, obj: Any, name: str, value: Any) -> None:
        attributes = obj.__dict__
        self._before.append((attributes, name, value, attributes.get(name, self)))
        attributes[name] = value  # not by setattr, which nn.Module makes its own use of

    def undo(self) -> None:
        for attributes, name, value, before in reversed(self._before):
            if attributes.get(name, self) is not value:
                continue  # somebody has put something else in its place, or taken it off
            if before is self:
                del attributes[name]
            else:
                attributes[name] = before
        self._before.clear()


def adapt(run: Run) -> Patches:
    """Put today's hooks on a module and callbacks that have yesterday's; undo it when the call ends."""
    patches, module, trainer = Patches(), run.module, run.trainer
    _put_trainer_arguments(run, patches)
    _module_steps(run, patches)
    _optimizer_hooks(run, patches)
    for name, count in _TAKES.items():
        if overrides(module, name, LightningModule):
            _put_counted(patches, module, name, count)
    _gone_hooks(patches, module)
    for callback in trainer.callbacks:
        _callback(patches, callback)
    if overrides(module, "get_progress_bar_dict", LightningModule) and trainer.progress_bar_callback is not None:
        _tell(module, "get_progress_bar_dict", "Override get_metrics of a progress bar.")
        patches.put(trainer.progress_bar_callback, "get_metrics", lambda *_: module.get_progress_bar_dict())  # type: ignore[operator]  # nn.Module's __getattr__ hides it
    return patches


def _tell(owner: object, name: str, today: str) -> None:
    say(f"{type(owner).__qualname__}.{name}", today)


def _put_trainer_arguments(run: Run, patches: Patches) -> None:
    """Trainer arguments that are the module's today."""
    wanted = dict(run.trainer._for_modules)
    mode = wanted.pop("multiple_trainloader_mode", None)
    source = run.sources.get("train")
    if mode is not None and source is not None:

        def combined() -> Any:
            loaders = (source if isinstance(source, Given) else run.trainer._find_source("train"))()
            return CombinedLoader(loaders, mode) if isinstance(loaders, (list, tuple, Mapping)) else loaders

        run.sources["train"] = Given(combined)
    if "automatic_optimization" in wanted:
        patches.put(run.module, "_automatic_optimization", wanted.pop("automatic_optimization"))
    for name, value in wanted.items():
        for owner in (run.module, run.trainer.datamodule):
            if owner is not None:
                patches.put(owner, name, value)


# steps and the ends of epochs
def _module_steps(run: Run, patches: Patches) -> None:
    module: Any = run.module
    for stage in _STAGES:
        name, epoch_end, hook = _STEP[stage], _EPOCH_END.get(stage, ""), f"on_{stage}_epoch_end"
        takes_outputs = stage in run.sources and _takes(getattr(module, hook), 1)
        around: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = []
        if _is_old_hook(module, f"{name}_end"):
            _tell(module, f"{name}_end", f"Do it at the end of {name}.")
            around.append(partial(_followed, module, name))
        old = getattr(module, epoch_end, None) if epoch_end else None
        outputs: list[Any] | None = [] if callable(old) or takes_outputs else None
        if stage == "train" and _takes_optimizer_idx(module.training_step):
            _tell(
                module,
                "training_step(..., optimizer_idx)",
                "Set self.automatic_optimization = False in __init__ and step each of self.optimizers() in "
                "training_step(self, batch, batch_idx).",
            )
            around.append(step_several(run, patches, outputs, _log_parts))
        elif outputs is not None:
            around.append(partial(_kept, outputs, run, stage))
        if around:
            run.around[name] = partial(_put_around, around)
        if outputs is not None:
            line = f"Collect what you need in {name}, e.g. in a list of your own, and use it in {hook}(self)."
            _tell(module, epoch_end if callable(old) else f"{hook}(outputs)", line)
            patches.put(module, hook, _epoch_end(module, hook, old, outputs, takes_outputs, stage == "predict"))


def _put_around(around: list[Callable[[Callable[..., Any]], Callable[..., Any]]], step: Callable[..., Any]) -> Any:
    return reduce(lambda inner, put: put(inner), around, step)


def _followed(module: Any, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: getattr(module, f"{name}_end")(step(*args))


def _kept(outputs: list[Any], run: Run, stage: str, step: Callable[..., Any]) -> Callable[..., Any]:
    """A step whose outputs are collected: a list, or with several loaders one for each."""

    def step_kept(*args: Any) -> Any:
        output = step(*args)
        if output is not None:
            kept = recursive_detach({"loss": output} if stage == "train" and isinstance(output, Tensor) else output)
            if stage != "train" and (loaders := len(run.data.evaluation.get(stage, ()))) > 1:
                while len(outputs) < loaders:
                    outputs.append([])
                outputs[args[2]].append(kept)
            else:
                outputs.append(kept)
        return output

    return step_kept


def _epoch_end(
    module: Any,
    hook: str,
    old: Callable[..., Any] | None,
    outputs: list[Any],
    takes_outputs: bool,
    by_loader: bool,
) -> Callable[[], None]:
    today = getattr(module, hook)

    def epoch_end() -> None:
        seen = list(outputs)
        if by_loader and not all(isinstance(part, list) for part in seen):
            seen = [seen]
        outputs.clear()
        if old is not None:
            log_returned(module, old(seen))
        if takes_outputs:
            today(seen)
        else:
            today()

    return epoch_end


def log_returned(module: Any, returned: Any) -> None:
    """What a step or an epoch's end returned to be logged: {"log": {...}, "progress_bar": {...}, "val_loss": ...}."""
    if not isinstance(returned, Mapping):
        return
    bar, logs = (part if isinstance(part := returned.get(k), Mapping) else {} for k in ("progress_bar", "log"))
    plain = {k: v for k, v in returned.items() if k not in ("log", "progress_bar", "loss", "hiddens")}
    for name, value in {**plain, **bar, **logs}.items():
        if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1):
            module.log(name, value, prog_bar=name in bar, logger=name in logs)


def _log_parts(module: Any, returned: Any) -> None:
    """Of what a training step returned, only "log" and "progress_bar"."""
    if isinstance(returned, Mapping):  # the loss alone, or None, for another batch
        log_returned(module, {k: returned[k] for k in ("log", "progress_bar") if k in returned})


def watch_outputs(run: Run) -> None:
    """Look at the first thing that training_step returns: with "log" or "progress_bar" in it, these are logged."""
    first = run.first_output

    def look(returned: Any) -> dict[str, Any]:
        run.as_output = first
        output = first(returned)
        if isinstance(returned, Mapping) and any(isinstance(returned.get(k), Mapping) for k in ("log", "progress_bar")):
            _tell(
                run.module,
                "training_step returning {'loss', 'log', 'progress_bar'}",
                "Write self.log(name, value, prog_bar=True) and return the loss.",
            )
            plain = run.as_output

            def logged(returned: Any) -> dict[str, Any]:
                _log_parts(run.module, returned)
                return plain(returned)

            _log_parts(run.module, returned)
            run.as_output = logged
        return output

    run.first_output = look


# signatures
def _required(method: Callable[..., Any]) -> tuple[int, int]:
    """How many positional arguments a method needs, and how many it takes."""
    parameters = inspect.signature(method).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 0, sys.maxsize
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return sum(p.default is p.empty for p in positional), len(positional)


def _takes(method: Callable[..., Any], count: int) -> bool:
    return _required(method)[0] >= count


def _takes_optimizer_idx(method: Callable[..., Any]) -> bool:
    return any(name in _IDX for name in inspect.signature(method).parameters)


def _put_counted(patches: Patches, owner: Any, name: str, count: int) -> None:
    """Give a hook as many arguments as it takes: zeros for indices that are gone, none that came later."""
    method = getattr(owner, name)
    needs, takes = _required(method)
    if needs > count:
        _tell(owner, f"{name} with {needs} arguments", f"Today it takes {count}: leave the index at the end out.")
        zeros = (0,) * (needs - count)
        patches.put(owner, name, lambda *args: method(*args[:count], *zeros))
    elif takes < count:
        if takes < count - name.startswith(_EVALUATION):  # their dataloader_idx may be left out
            _tell(owner, f"{name} with {takes} arguments", f"Today it takes {count}.")
        patches.put(owner, name, lambda *args: method(*args[:takes]))


def _optimizer_hooks(run: Run, patches: Patches) -> None:
    """Hooks around the optimizer that had an `optimizer_idx`."""
    module: Any = run.module

    def index_of(optimizer: Any) -> int:
        plain = getattr(optimizer, "optimizer", optimizer)
        return next((i for i, own in enumerate(run.optimizers) if own is plain), 0)

    if _has_idx(module, "optimizer_step"):
        step = module.optimizer_step
        more = [n for n in ("on_tpu", "using_native_amp", "using_lbfgs") if n in inspect.signature(step).parameters]

        def optimizer_step(epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
            flags = dict.fromkeys(more, False)
            step(epoch, batch_idx, optimizer, index_of(optimizer), closure, **flags)

        patches.put(module, "optimizer_step", optimizer_step)
    if _has_idx(module, "lr_scheduler_step"):
        scheduler_step = module.lr_scheduler_step

        def lr_scheduler_step(scheduler: Any, metric: Any) -> None:
            scheduler_step(scheduler, index_of(scheduler.optimizer), metric)

        patches.put(module, "lr_scheduler_step", lr_scheduler_step)
    if _has_idx(module, "configure_gradient_clipping"):
        clip = module.configure_gradient_clipping

        def configure_gradient_clipping(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            clip(optimizer, index_of(optimizer), *args, **kwargs)

        patches.put(module, "configure_gradient_clipping", configure_gradient_clipping)


def _has_idx(module: Any, name: str) -> bool:
    has = overrides(module, name, LightningModule) and _takes_optimizer_idx(getattr(module, name))
    if has:
        _tell(module, f"{name}(..., optimizer_idx)", f"Leave optimizer_idx out of {name}.")
    return has


# callbacks
def _callback(patches: Patches, callback: Any) -> None:
    for name, count in _TAKES.items():
        if hasattr(Callback, name) and overrides(callback, name, Callback):
            _put_counted(patches, callback, name, count + 2)
    for stage in _STAGES:
        hook = f"on_{stage}_epoch_end"
        if overrides(callback, hook, Callback) and _takes(getattr(callback, hook), 3):
            _tell(callback, f"{hook}(outputs)", f"Collect what you need in on_{stage}_batch_end.")
            _put_collecting(patches, callback, stage, hook)
    _gone_hooks(patches, callback)
    _callback_state(patches, callback)
    interrupted = getattr(callback, "on_keyboard_interrupt", None)
    if callable(interrupted):
        _tell(callback, "on_keyboard_interrupt", "Write on_exception and look at the exception.")
        today = callback.on_exception

        def on_exception(trainer: Any, module: Any, exception: BaseException) -> None:
            if isinstance(exception, KeyboardInterrupt):
                interrupted(trainer, module)
            today(trainer, module, exception)

        patches.put(callback, "on_exception", on_exception)


def _put_collecting(patches: Patches, callback: Any, stage: str, hook: str) -> None:
    outputs: list[Any] = []
    batch_end, epoch_end = getattr(callback, f"on_{stage}_batch_end"), getattr(callback, hook)

    def on_batch_end(trainer: Any, module: Any, output: Any, *args: Any) -> None:
        outputs.append(output)
        batch_end(trainer, module, output, *args)

    def on_epoch_end(trainer: Any, module: Any) -> None:
        seen = list(outputs)
        outputs.clear()
        epoch_end(trainer, module, seen)

    patches.put(callback, f"on_{stage}_batch_end", on_batch_end)
    patches.put(callback, hook, on_epoch_end)


def _callback_state(patches: Patches, callback: Any) -> None:
    """State that a callback returned from on_save_checkpoint, and got in on_load_checkpoint."""
    if overrides(callback, "on_save_checkpoint", Callback) and not overrides(callback, "state_dict", Callback):
        save = callback.on_save_checkpoint

        def on_save_checkpoint(trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            state = save(trainer, module, checkpoint)
            if state is not None:
                _tell(callback, "on_save_checkpoint returning a state", "Return it from state_dict(self).")
                checkpoint.setdefault("callbacks", {})[callback.state_key] = state

        patches.put(callback, "on_save_checkpoint", on_save_checkpoint)
    if overrides(callback, "on_load_checkpoint", Callback):
        load = callback.on_load_checkpoint
        last = list(inspect.signature(load).parameters)[-1]
        if last.endswith("state"):
            _tell(callback, f"on_load_checkpoint(..., {last})", "Take it in load_state_dict(self, state_dict).")

            def on_load_checkpoint(trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
                load(trainer, module, checkpoint.get("callbacks", {}).get(callback.state_key))

            patches.put(callback, "on_load_checkpoint", on_load_checkpoint)


def _is_old_hook(owner: Any, name: str) -> bool:
    """Whether this is the hook, and no helper that bears its name and is called by the class's own methods."""
    if not callable(getattr(owner, name, None)):
        return False
    for cls in type(owner).__mro__:
        if cls.__module__.partition(".")[0] in ("fulgurite", "torch"):
            continue
        for other, method in vars(cls).items():
            if other != name and name in getattr(getattr(method, "__code__", None), "co_names", ()):
                return False
    return True


# hooks that are gone
def _gone_hooks(patches: Patches, owner: Any) -> None:
    for old, (today, before, line) in _GONE.items():
        if _is_old_hook(owner, old):
            _tell(owner, old, line)
            for hook in [today.replace("*", stage) for stage in _STAGES] if "*" in today else [today]:
                _put_with(patches, owner, hook, getattr(owner, old), before)


def _put_with(patches: Patches, owner: Any, hook: str, old: Callable[..., Any], before: bool) -> None:
    today = getattr(owner, hook)
    count = _required(old)[1]

    def both(*args: Any, **kwargs: Any) -> Any:
        if before:
            old(*args[:count])
        returned = today(*args, **kwargs)
        if not before:
            old(*args[:count])
        return returned

    patches.put(owner, hook, both)
