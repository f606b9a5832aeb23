"""Trainer arguments of the 1.x era: each does what it did, and says once what to write today."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from fulgurite.compat.argparsing import literal
from fulgurite.compat.era import say
from fulgurite.compat.plugins import DDPPlugin
from fulgurite.machine.accelerators import find_usable_cuda_devices
from fulgurite.machine.devices import resolve_devices
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer

Init = TypeVar("Init", bound=Callable[..., None])
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass
class Call:
    """One call of the constructor: today's arguments, and what is left to do on the trainer that it makes."""

    arguments: dict[str, Any]
    later: list[Callable[[Trainer], None]] = field(default_factory=list)

    def callbacks(self) -> list[Any]:
        given = self.arguments.get("callbacks")
        return list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]

    def add(self, callback: Any) -> None:
        self.arguments["callbacks"] = [*self.callbacks(), callback]

    def use(self, **arguments: Any) -> str:
        """Pass these instead; gives the line to write."""
        self.arguments.update(arguments)
        return "Write " + ", ".join(f"{name}={value!r}" for name, value in arguments.items()) + "."


# devices and processes
def _gpus(call: Call, gpus: Any) -> str:
    if gpus in (None, 0, "0", [], ""):
        return "Leave it out." if gpus is None else call.use(accelerator="cpu")
    if not torch.cuda.is_available():
        raise MisconfigurationException(
            f"Trainer(gpus={gpus!r}): this machine has no GPU that torch can use. "
            'Write accelerator="auto", devices=1 to train on what is there.'
        )
    devices = gpus.strip() if isinstance(gpus, str) else gpus
    if call.arguments.pop("auto_select_gpus", False) and isinstance(devices, int):
        devices = find_usable_cuda_devices(devices)
    call.arguments.setdefault("devices", devices)
    return call.use(accelerator="gpu", devices=call.arguments["devices"])


def _num_processes(call: Call, processes: int | None) -> str:
    if processes in (None, 1) or call.arguments.get("accelerator") in ("gpu", "cuda"):
        return "Leave it out."
    return call.use(accelerator="cpu", devices=processes)


def _no_such_device(name: str) -> Callable[[Call, Any], str]:
    def refuse(call: Call, value: Any) -> str:
        if value:
            raise NotImplementedError(
                f"Trainer({name}={value!r}): these devices are not supported. Write accelerator='auto', devices=1."
            )
        return "Leave it out."

    return refuse


def _several_processes(call: Call, strategy: Any) -> str:
    """`accelerator="ddp"`, `distributed_backend="ddp"`, `plugins=DDPPlugin()`: on one device they change nothing."""
    arguments = call.arguments
    if strategy == "ddp_cpu":
        arguments["accelerator"], strategy = "cpu", "ddp"
    one = arguments.get("num_nodes", 1) == 1 and (
        len(resolve_devices(arguments.get("accelerator", "auto"), arguments.get("devices", "auto")).devices) == 1
    )
    if one or strategy is None:
        return "Leave it out: there is one device."
    if isinstance(strategy, DDPPlugin):
        arguments["strategy"] = strategy.today()
        return f"Write strategy={strategy.line()}."
    return call.use(strategy={"dp": "ddp", "ddp2": "ddp"}.get(strategy, strategy))


# what is shown
def _refresh_rate(call: Call, rate: int | None) -> str:
    from fulgurite.callbacks.progress import ProgressBar, default_progress_bar

    if rate is None:
        return "Leave it out."
    if rate == 0:
        return call.use(enable_progress_bar=False)
    if not any(isinstance(callback, ProgressBar) for callback in call.callbacks()):
        bar: Any = default_progress_bar()
        # a plain one, for output that is no terminal, has a rhythm of its own
        if "refresh_rate" in inspect.signature(type(bar)).parameters:
            bar = type(bar)(refresh_rate=rate)
        call.add(bar)
    return f"Write callbacks=[TQDMProgressBar(refresh_rate={rate})]."


def _weights_summary(call: Call, mode: str | None) -> str:
    from fulgurite.callbacks.model_summary import ModelSummary

    if mode is None:
        return call.use(enable_model_summary=False)
    if mode not in ("top", "full"):
        raise MisconfigurationException(f"weights_summary={mode!r} is not one of None, 'top' and 'full'.")
    depth = 1 if mode == "top" else -1
    if call.arguments.get("enable_model_summary") is not False:
        call.add(ModelSummary(max_depth=depth))
    return f"Write callbacks=[ModelSummary(max_depth={depth})]."


def _log_gpu_memory(call: Call, mode: str | None) -> str:
    from fulgurite.callbacks import DeviceStatsMonitor

    if not mode:
        return "Leave it out."
    call.add(DeviceStatsMonitor())
    return "Write callbacks=[DeviceStatsMonitor()]."


def _track_grad_norm(call: Call, norm: float | str) -> str:
    from fulgurite.compat.callbacks import GradNorm

    if float(norm) == -1:
        return "Leave it out."
    call.add(GradNorm(norm))
    return f"Write self.log_dict(grad_norm(self, norm_type={norm!r})) in the module's on_before_optimizer_step."


def _flush(call: Call, steps: int | None) -> str:
    def flush(trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "_flush_logs_every_n_steps"):
                logger._flush_logs_every_n_steps = steps

    if steps is not None:
        call.later.append(flush)
    return f"Write logger=CSVLogger(dir, flush_logs_every_n_steps={steps})."


# checkpoints and stopping
def _checkpoint_callback(call: Call, given: Any) -> str:
    if isinstance(given, bool) or given is None:
        return call.use(enable_checkpointing=bool(given))
    call.add(given)
    return f"Write callbacks=[{type(given).__name__}(...)]."


def _early_stop_callback(call: Call, given: Any) -> str:
    from fulgurite.callbacks.early_stopping import EarlyStopping

    if not given:
        return "Leave it out."
    call.add(EarlyStopping(monitor="val_loss", strict=False) if given is True else given)
    return "Write callbacks=[EarlyStopping(monitor='val_loss')]."


def _resume(call: Call, path: Any) -> str:
    if path is not None:
        call.later.append(lambda trainer: setattr(trainer, "_resume_from_checkpoint", path))
    return f"Write trainer.fit(model, ckpt_path={str(path)!r})."


def _terminate_on_nan(call: Call, wanted: bool) -> str:
    from fulgurite.compat.callbacks import StopAtNan

    if wanted:
        call.add(StopAtNan())
    return "Write callbacks=[EarlyStopping(monitor='train_loss', check_finite=True)]."


def _stochastic_weight_avg(call: Call, wanted: bool) -> str:
    from fulgurite.compat.callbacks import averaging_at_their_rates

    if wanted:
        call.add(averaging_at_their_rates())
    return "Write callbacks=[StochasticWeightAveraging(swa_lrs=1e-2)]."


# tuning
def _auto_lr_find(call: Call, wanted: bool | str) -> str:
    call.later.append(lambda trainer: setattr(trainer, "_auto_lr_find", wanted))
    return "Write Tuner(trainer).lr_find(model) before fit, or callbacks=[LearningRateFinder()]."


def _auto_scale_batch_size(call: Call, mode: bool | str | None) -> str:
    call.later.append(lambda trainer: setattr(trainer, "_auto_scale_batch_size", "power" if mode is True else mode))
    return "Write Tuner(trainer).scale_batch_size(model) before fit, or callbacks=[BatchSizeFinder()]."


# the rest
def _amp_backend(call: Call, backend: str) -> str:
    if backend == "apex":
        raise NotImplementedError("Trainer(amp_backend='apex'): use torch's own mixed precision, precision='16-mixed'.")
    return "Leave it out: torch's own automatic mixed precision is used."


def _on_module(name: str) -> Callable[[Call, Any], str]:
    """An argument that is an attribute of the module or data module today."""

    def put(call: Call, value: Any) -> str:
        call.later.append(lambda trainer: trainer._for_modules.update({name: value}))
        return f"Set self.{name} = {value!r} in __init__ of your module or data module."

    return put


def _loader_mode(call: Call, mode: str) -> str:
    call.later.append(lambda trainer: trainer._for_modules.update({"multiple_trainloader_mode": mode}))
    return f"Write CombinedLoader(loaders, mode={mode!r})."


def _renamed(name: str) -> Callable[[Call, Any], str]:
    return lambda call, value: call.use(**{name: value})


def _nothing(line: str) -> Callable[[Call, Any], str]:
    return lambda call, value: line


# In the order in which they are looked at: what names devices comes before what depends on how many there are.
OLD: dict[str, Callable[[Call, Any], str]] = {
    "gpus": _gpus,
    "num_processes": _num_processes,
    "tpu_cores": _no_such_device("tpu_cores"),
    "ipus": _no_such_device("ipus"),
    "hpus": _no_such_device("hpus"),
    "auto_select_gpus": _nothing("Write devices=find_usable_cuda_devices(n)."),
    "distributed_backend": _several_processes,
    "progress_bar_refresh_rate": _refresh_rate,
    "process_position": lambda call, position: f"Write callbacks=[TQDMProgressBar(process_position={position})].",
    "show_progress_bar": _renamed("enable_progress_bar"),
    "weights_summary": _weights_summary,
    "log_gpu_memory": _log_gpu_memory,
    "track_grad_norm": _track_grad_norm,
    "flush_logs_every_n_steps": _flush,
    "log_save_interval": _flush,
    "row_log_interval": _renamed("log_every_n_steps"),
    "checkpoint_callback": _checkpoint_callback,
    "early_stop_callback": _early_stop_callback,
    "resume_from_checkpoint": _resume,
    "weights_save_path": _renamed("default_root_dir"),
    "default_save_path": _renamed("default_root_dir"),
    "terminate_on_nan": _terminate_on_nan,
    "stochastic_weight_avg": _stochastic_weight_avg,
    "auto_lr_find": _auto_lr_find,
    "auto_scale_batch_size": _auto_scale_batch_size,
    "replace_sampler_ddp": _renamed("use_distributed_sampler"),
    "move_metrics_to_cpu": _nothing("Leave it out: logged values are single numbers."),
    "amp_backend": _amp_backend,
    "amp_level": _nothing("Leave it out and write precision='16-mixed'."),
    "enable_pl_optimizer": _nothing("Leave it out: self.optimizers() gives counted optimizers."),
    "multiple_trainloader_mode": _loader_mode,
    "prepare_data_per_node": _on_module("prepare_data_per_node"),
    "automatic_optimization": _on_module("automatic_optimization"),
    "reload_dataloaders_every_epoch": lambda call, wanted: call.use(reload_dataloaders_every_n_epochs=int(wanted)),
    "train_percent_check": _renamed("limit_train_batches"),
    "val_percent_check": _renamed("limit_val_batches"),
    "test_percent_check": _renamed("limit_test_batches"),
    "overfit_pct": _renamed("overfit_batches"),
    "max_nb_epochs": _renamed("max_epochs"),
    "min_nb_epochs": _renamed("min_epochs"),
    "nb_sanity_val_steps": _renamed("num_sanity_val_steps"),
    "nb_gpu_nodes": _renamed("num_nodes"),
    "gradient_clip": _renamed("gradient_clip_val"),
    "truncated_bptt_steps": _nothing("Cut sequences in training_step, with automatic_optimization = False."),
}
_TODAY: dict[str, dict[str, str]] = {}  # method -> old name of an argument -> today's
_STRATEGIES = ("ddp", "ddp_spawn", "ddp_cpu", "ddp2", "dp")


def removed_arguments(init: Init) -> Init:
    """Let a constructor take the arguments of the 1.x era, without showing them in its signature."""
    known = inspect.signature(init).parameters

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        if args:
            raise TypeError(
                f"Trainer() takes keyword arguments only, and was given {len(args)} by position. "
                f"Write for example Trainer(logger={args[0]!r:.40})."
            )
        call = Call({**_from_environment(init, kwargs), **kwargs})
        for name in kwargs.keys() - known.keys() - OLD.keys():
            alike = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {alike[0]}?" if alike else "help(Trainer) lists them."
            raise TypeError(f"Trainer() got an unexpected keyword argument {name!r}. {hint}")
        for name, adapt in OLD.items():
            if name in call.arguments:
                value = call.arguments.pop(name)
                say(f"Trainer({name}={_short(value)})", adapt(call, value))
        _old_values(call)
        _call_init_hooks(call, self, "on_init_start")
        init(self, **call.arguments)
        for act in call.later:
            act(self)
        _call_init_hooks(call, self, "on_init_end")

    return wrapper  # type: ignore[return-value]  # wraps() keeps the signature that callers see


def _short(value: Any) -> str:
    return f"{type(value).__name__}(...)" if hasattr(value, "__dict__") else repr(value)


def _old_values(call: Call) -> None:
    """Arguments that are called as they were, with values that are not."""
    arguments = call.arguments
    for name in ("accelerator", "strategy", "devices", "accumulate_grad_batches"):
        if arguments.get(name, name) is None:
            del arguments[name]
    if arguments.get("max_steps", -1) is None:
        arguments["max_steps"] = -1
    accelerator, strategy = arguments.get("accelerator"), arguments.get("strategy")
    if accelerator in _STRATEGIES:
        del arguments["accelerator"]
        say(f"Trainer(accelerator={accelerator!r})", _several_processes(call, accelerator))
    if isinstance(strategy, DDPPlugin) or strategy in ("dp", "ddp2"):
        del arguments["strategy"]
        say(f"Trainer(strategy={_short(strategy)})", _several_processes(call, strategy))
    plugins = arguments.get("plugins")
    plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [] if plugins is None else [plugins]
    for plugin in [p for p in plugins if isinstance(p, (str, DDPPlugin))]:
        plugins.remove(plugin)
        arguments["plugins"] = plugins
        say(f"Trainer(plugins={_short(plugin)})", _several_processes(call, plugin))
    profiler = arguments.get("profiler")
    if profiler in (True, False):
        say(f"Trainer(profiler={profiler})", call.use(profiler="simple" if profiler else None))
    windows = arguments.get("accumulate_grad_batches")
    if isinstance(windows, dict):
        from fulgurite.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler

        del arguments["accumulate_grad_batches"]
        call.add(GradientAccumulationScheduler(windows))
        line = f"Write callbacks=[GradientAccumulationScheduler({windows})]."
        say(f"Trainer(accumulate_grad_batches={windows})", line)


def _call_init_hooks(call: Call, trainer: Any, name: str) -> None:
    for callback in call.callbacks():
        hook = getattr(callback, name, None)
        if callable(hook):
            say(f"{type(callback).__name__}.{name}", "Write setup(self, trainer, pl_module, stage).")
            hook(trainer)


def takes_old_names(**today: str) -> Callable[[Method], Method]:
    """Of a method whose last parameter is `**old`: say in `with_new_names` what stands for each, and hide it."""

    def decorate(method: Method) -> Method:
        _TODAY[method.__qualname__] = today
        shown = inspect.signature(method)
        kept = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
        method.__signature__ = shown.replace(parameters=kept)  # type: ignore[attr-defined]  # inspect's protocol
        return method

    return decorate


def with_new_names(method: str, given: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that used names of the 1.x era, by today's; other names are an error, as Python's own."""
    arguments, today = {k: v for k, v in given.items() if k not in ("self", "old")}, _TODAY[method]
    for name, value in old.items():
        if name not in today:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
        if arguments[today[name]] is not None:
            raise TypeError(f"{method}() was given {today[name]} twice, once as {name}. Leave {name} out.")
        say(f"{method}({name}=...)", f"Write {today[name]}=...")
        arguments[today[name]] = value
    return arguments


def _from_environment(init: Callable[..., None], given: dict[str, Any]) -> dict[str, Any]:
    """Defaults from `PL_TRAINER_<ARGUMENT>`, e.g. PL_TRAINER_MAX_EPOCHS=3."""
    variables = {name: f"PL_TRAINER_{name.upper()}" for name in inspect.signature(init).parameters if name != "self"}
    return {n: literal(os.environ[v]) for n, v in variables.items() if v in os.environ and n not in given}
