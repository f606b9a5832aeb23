"""From the trainer's arguments to what it works with: values checked, defaults filled, callbacks and loggers made."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.checkpoint import Checkpoint
from fulgurite.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from fulgurite.hooks import overrides
from fulgurite.machine.accelerators import Accelerator, accelerator_of
from fulgurite.machine.devices import Devices, in_notebook
from fulgurite.machine.environments import ClusterEnvironment, SLURMEnvironment, environment_of, started_by_us
from fulgurite.machine.precision import Precision, precision_of
from fulgurite.machine.requeue import hpc_checkpoints
from fulgurite.machine.strategy import SingleDeviceStrategy, Strategy, TorchCheckpointIO
from fulgurite.states import TrainerFn
from fulgurite.utilities.cloud_io import RemotePath, modified, path_of
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.loggers.logger import Logger
    from fulgurite.profilers.profiler import Profiler
    from fulgurite.trainer import Trainer

T = TypeVar("T")
Limit = int | float
_LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches")
_SHOWN = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")


@dataclass
class Flags:
    """The arguments that depend on one another, resolved."""

    max_epochs: int
    min_epochs: int | None
    max_steps: int
    limit_train_batches: Limit
    limit_val_batches: Limit
    limit_test_batches: Limit
    limit_predict_batches: Limit
    val_check_interval: Limit
    val_check_seconds: float | None
    check_val_every_n_epoch: int | None
    num_sanity_val_steps: Limit
    log_every_n_steps: int
    logger: Any
    enable_checkpointing: bool
    enable_progress_bar: bool
    enable_model_summary: bool
    plugins: list[Any]

    def plugin(self, kind: type[T]) -> T | None:
        return next((plugin for plugin in self.plugins if isinstance(plugin, kind)), None)


def duration(value: str | timedelta | dict[str, int], argument: str) -> timedelta:
    """A time given as "DD:HH:MM:SS", a timedelta, or a dictionary of its arguments."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, dict):
        return timedelta(**value)
    parts = value.strip().split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise MisconfigurationException(
            f"{argument}={value!r} is not a time. Write 'DD:HH:MM:SS' such as '00:00:30:00', a timedelta, "
            "or a dictionary such as {'minutes': 30}."
        )
    days, hours, minutes, seconds = map(int, parts)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def checked_flags(given: dict[str, Any]) -> Flags:
    """Check each argument by itself and against the others; fill what depends on others."""
    _check_numbers(given)
    barebones = given["barebones"]
    if barebones:
        _check_barebones(given)
    interval, seconds = given["val_check_interval"], None
    if isinstance(interval, (str, timedelta, dict)):
        seconds = duration(interval, "val_check_interval").total_seconds()
    interval = 1.0 if interval is None or seconds is not None else interval
    every_n_epoch = given["check_val_every_n_epoch"]
    if every_n_epoch is None and isinstance(given["val_check_interval"], float):
        raise MisconfigurationException(
            f"check_val_every_n_epoch=None counts batches across epochs, so val_check_interval={interval} must be a "
            "whole number of batches, or a time."
        )
    unlimited = given["max_steps"] != -1 or given["max_time"] is not None
    plugins = given["plugins"]
    plugins = [] if plugins is None else list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
    defaults: dict[str, Any] = {
        "max_epochs": -1 if unlimited else 1000,
        "min_epochs": 0 if given["min_steps"] is None else 1,
        "num_sanity_val_steps": 0 if barebones else 2,
        "log_every_n_steps": 0 if barebones else 50,
        **dict.fromkeys(_LIMITS, 1.0),
        **dict.fromkeys(("logger", *_SHOWN), not barebones),
    }
    values = {name: default if given[name] is None else given[name] for name, default in defaults.items()}
    flags = Flags(
        max_steps=given["max_steps"],
        val_check_interval=interval,
        val_check_seconds=seconds,
        check_val_every_n_epoch=every_n_epoch,
        plugins=plugins,
        **values,
    )
    if flags.num_sanity_val_steps == -1:
        flags.num_sanity_val_steps = math.inf
    if given["overfit_batches"]:
        flags.limit_train_batches = flags.limit_val_batches = given["overfit_batches"]
    if n := int(given["fast_dev_run"]):
        flags.max_epochs, flags.max_steps, flags.num_sanity_val_steps = 1, n, 0
        flags.val_check_interval, flags.val_check_seconds, flags.check_val_every_n_epoch = 1.0, None, 1
        for name in _LIMITS:
            setattr(flags, name, n)
        rank_zero_info(f"fast_dev_run: {n} batch{'es' * (n != 1)} of each stage, no loggers, no checkpoints.")
    _check_plugins(flags, given)
    return flags


def _check_numbers(given: dict[str, Any]) -> None:
    for name in ("max_epochs", "max_steps"):
        if given[name] is not None and given[name] < -1:
            raise MisconfigurationException(f"{name}={given[name]}: it is a number of 0 or more, or -1 for no limit.")
    fast = given["fast_dev_run"]
    if not isinstance(fast, (bool, int)) or fast < 0:
        raise MisconfigurationException(f"fast_dev_run={fast!r} is not True, False, or a number of batches.")
    for name in _LIMITS:
        limit = given[name]
        given[name] = None if limit is None else _limit(name, limit)
    given["overfit_batches"] = _limit("overfit_batches", given["overfit_batches"])
    interval = given["val_check_interval"]
    if isinstance(interval, (int, float)):
        given["val_check_interval"] = _limit("val_check_interval", interval)
        if interval == 0 and isinstance(interval, int):
            raise MisconfigurationException(
                "val_check_interval=0: it is a number of batches of 1 or more, a part of an epoch, or a time. "
                "limit_val_batches=0 switches validation off."
            )
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        value = given[name]
        if value is None and name == "check_val_every_n_epoch":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise MisconfigurationException(f"{name}={value!r}: it is a whole number of 1 or more.")
    least_of = {"num_sanity_val_steps": -1, "log_every_n_steps": 0, "reload_dataloaders_every_n_epochs": 0}
    for name, least in least_of.items():
        value = given[name]
        if value is not None and (not isinstance(value, int) or value < least):
            raise MisconfigurationException(f"{name}={value!r}: it is a whole number of {least} or more.")
    clip, algorithm = given["gradient_clip_val"], given["gradient_clip_algorithm"]
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, (int, float))):
        raise TypeError(f"gradient_clip_val={clip!r} is not a number.")
    if clip is not None and clip < 0:
        raise MisconfigurationException(f"gradient_clip_val={clip}: it is a number above 0, or None for no clipping.")
    if algorithm is not None and str(getattr(algorithm, "value", algorithm)).lower() not in ("norm", "value"):
        raise MisconfigurationException(f"gradient_clip_algorithm={algorithm!r} is not one of 'norm' and 'value'.")
    if given["deterministic"] not in (None, True, False, "warn"):
        raise MisconfigurationException(f"deterministic={given['deterministic']!r} is not True, False or 'warn'.")
    if given["model_registry"] is not None:
        raise NotImplementedError("model_registry: there is no cloud model registry here; upload checkpoints yourself.")


def _limit(name: str, limit: Any) -> Limit:
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit < 0:
        raise MisconfigurationException(
            f"{name}={limit!r}: it is a whole number of batches, or a part of them between 0.0 and 1.0."
        )
    if isinstance(limit, float) and limit > 1.0:
        if not limit.is_integer():
            raise MisconfigurationException(
                f"{name}={limit}: a part of the batches is between 0.0 and 1.0; a number of batches is whole."
            )
        return int(limit)
    if limit == 1:
        meant = "one batch; 1.0 would be all of them" if isinstance(limit, int) else "all batches; 1 would be one"
        rank_zero_info(f"{name}={limit} is {meant}.")
    return limit


def _check_barebones(given: dict[str, Any]) -> None:
    refused = (*_SHOWN, "logger", "profiler", "log_every_n_steps", "num_sanity_val_steps")
    asked = [f"{name}={given[name]!r}" for name in refused if given[name]]
    asked += ["fast_dev_run"] * bool(given["fast_dev_run"]) + ["detect_anomaly=True"] * bool(given["detect_anomaly"])
    if asked:
        raise ValueError(f"barebones=True runs the loop and nothing else; leave out {', '.join(asked)}.")


def _check_plugins(flags: Flags, given: dict[str, Any]) -> None:
    for plugin in flags.plugins:
        known = isinstance(plugin, (Precision, TorchCheckpointIO, ClusterEnvironment))
        if not known and not hasattr(plugin, "save_checkpoint"):
            raise NotImplementedError(
                f"plugins: {type(plugin).__name__} is neither a Precision nor a CheckpointIO nor a ClusterEnvironment."
            )
    precisions = [plugin for plugin in flags.plugins if isinstance(plugin, Precision)]
    if len(precisions) + (given["precision"] is not None) > 1:
        raise ValueError(
            f"plugins has {' and '.join(type(plugin).__name__ for plugin in precisions)}, and precision="
            f"{given['precision']!r}: a Precision plugin and the argument precision say the same thing. Pass one."
        )
    for plugin in precisions:
        if ignored := [name for name in _STEPS_OF_LIGHTNING if hasattr(plugin, name)]:
            raise NotImplementedError(
                f"plugins: {type(plugin).__name__} defines {', '.join(ignored)}, which nobody would call. Override "
                "the module's backward, optimizer_step or configure_gradient_clipping instead."
            )


_STEPS_OF_LIGHTNING = ("pre_backward", "backward", "post_backward", "optimizer_step", "clip_gradients")


_START_METHODS = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}
_UNUSED = {"_find_unused_parameters_true": True, "_find_unused_parameters_false": False}
_ABSENT = {
    "deepspeed": "DeepSpeed is not supported; use strategy='fsdp', or 'ddp' where the model fits a device.",
    "xla": "TPUs need torch_xla, which is not supported here; use a CUDA device or the CPU.",
    "hpu": "Gaudi devices are not supported here; use a CUDA device or the CPU.",
}


def accelerator_used(given: object, chosen: Devices, strategy: Strategy) -> Accelerator:
    """The very object that the trainer, or its strategy, was given."""
    return next((a for a in (given, strategy.accelerator) if isinstance(a, Accelerator)), accelerator_of(chosen.kind))


def precision_used(flags: Flags, precision: int | str | None, strategy: Strategy) -> Precision:
    plugin, strategys = flags.plugin(Precision), strategy.precision_plugin
    if strategys is not None and (plugin is not None or precision is not None):
        raise MisconfigurationException(
            f"{type(strategy).__name__} was given a precision_plugin, {type(strategys).__name__}, and the trainer "
            f"{f'precision={precision!r}' if plugin is None else type(plugin).__name__}. Choose one of them."
        )
    return plugin or strategys or precision_of(precision, strategy.root_device)


def strategy_of(
    strategy: str | Strategy, chosen: Devices, num_nodes: int, environment: ClusterEnvironment | None = None
) -> Strategy:
    """The strategy that the trainer's arguments, and whoever started this process, ask for."""
    if isinstance(strategy, str):
        strategy = _strategy_by_name(strategy, chosen, num_nodes, environment)
    if hasattr(strategy, "place"):
        strategy.place(chosen, num_nodes, environment)
    return strategy


def _strategy_by_name(name: str, chosen: Devices, num_nodes: int, environment: ClusterEnvironment | None) -> Strategy:
    started = environment_of(environment)
    several = len(chosen.devices) > 1 or num_nodes > 1
    if name == "auto":
        among_others = started.creates_processes_externally and started.world_size() > 1
        # devices=1 is one process, also where earlier calls of this program have started several
        alone = not among_others or (chosen.asked_for and started_by_us())
        if alone and not several:
            return SingleDeviceStrategy(chosen.root)
        name = "ddp_fork" if in_notebook() and not among_others else "ddp"
    if name == "single_device":
        if several:
            raise MisconfigurationException(
                f"strategy='single_device' with devices={len(chosen.devices)}, num_nodes={num_nodes}: it uses one. "
                "Write devices=1, or strategy='ddp'."
            )
        return SingleDeviceStrategy(chosen.root)
    base, unused = name, None
    for suffix, value in _UNUSED.items():
        if name.endswith(suffix):
            base, unused = name.removesuffix(suffix), value
    if base in _START_METHODS:
        from fulgurite.machine.ddp import DDPStrategy

        kwargs: dict[str, Any] = {} if unused is None else {"find_unused_parameters": unused}
        return DDPStrategy(start_method=_START_METHODS[base], **kwargs)
    if base.split("_")[0] in _ABSENT:
        raise NotImplementedError(f"strategy={name!r}: {_ABSENT[base.split('_')[0]]}")
    if name in ("fsdp", "fsdp_cpu_offload"):
        from fulgurite.machine.fsdp import FSDPStrategy

        method = "fork" if in_notebook() and not started.creates_processes_externally else "popen"
        return FSDPStrategy(cpu_offload=name == "fsdp_cpu_offload", start_method=method)
    known = ("auto", "single_device", *_START_METHODS, "fsdp", "fsdp_cpu_offload")
    raise ValueError(f"strategy={name!r} is not one of {', '.join(map(repr, known))}.")


def loggers_of(logger: Any, root: str, fast_dev_run: bool) -> list[Logger]:
    if logger is False:
        return []
    if fast_dev_run:
        from fulgurite.loggers.logger import DummyLogger

        return [DummyLogger()]
    if logger is True:
        from fulgurite import loggers

        installed = any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX"))
        return [(loggers.TensorBoardLogger if installed else loggers.CSVLogger)(root, name="lightning_logs")]
    from fulgurite.loggers.logger import Logger

    return [logger] if isinstance(logger, Logger) or not isinstance(logger, Iterable) else list(logger)


def profiler_of(profiler: Profiler | str | None) -> tuple[Profiler, Profiler | None]:
    """The profiler to show, and the one to run: None where nothing is measured."""
    from fulgurite import profilers

    if profiler is None:
        return profilers.PassThroughProfiler(), None
    if isinstance(profiler, str):
        kinds = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
        if profiler.lower() not in kinds:
            raise MisconfigurationException(f"profiler={profiler!r} is not one of {', '.join(map(repr, kinds))}.")
        made: Profiler = getattr(profilers, kinds[profiler.lower()])()
        return made, made
    return profiler, None if isinstance(profiler, profilers.PassThroughProfiler) else profiler


def default_callbacks(flags: Flags, given: list[Callback] | Callback | None, max_time: Any) -> list[Callback]:
    """The user's callbacks, and the ones that the flags ask for."""
    from fulgurite.callbacks.model_checkpoint import ModelCheckpoint
    from fulgurite.callbacks.model_summary import ModelSummary
    from fulgurite.callbacks.progress import ProgressBar, default_progress_bar
    from fulgurite.callbacks.timer import Timer

    callbacks: list[Callback] = [] if given is None else [given] if isinstance(given, Callback) else list(given)  # type: ignore[arg-type]  # a foreign callback alone is caught below
    if any(isinstance(callback, Checkpoint) for callback in callbacks):
        if not flags.enable_checkpointing:
            raise MisconfigurationException(
                "enable_checkpointing=False and a checkpoint callback contradict each other; leave one of them out."
            )
    elif flags.enable_checkpointing:
        callbacks.append(ModelCheckpoint())
    bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    if len(bars) > 1:
        raise MisconfigurationException(
            f"there are {len(bars)} progress bars ({', '.join(type(bar).__name__ for bar in bars)}); keep one."
        )
    if bars and not flags.enable_progress_bar:
        raise MisconfigurationException(
            f"enable_progress_bar=False and {type(bars[0]).__name__} contradict each other; leave one of them out."
        )
    if not bars and flags.enable_progress_bar:
        callbacks.append(default_progress_bar())
    if flags.enable_model_summary and not any(isinstance(callback, ModelSummary) for callback in callbacks):
        callbacks.append(ModelSummary())
    if max_time is not None:
        if any(isinstance(callback, Timer) for callback in callbacks):
            rank_zero_info("max_time is ignored: there is a Timer callback already.")
        else:
            callbacks.append(Timer(duration=duration(max_time, "max_time"), interval="step"))
    return ordered(callbacks)


def ordered(callbacks: list[Callback]) -> list[Callback]:
    """Tuners first, checkpoints last; two that would share one state in a checkpoint are an error."""
    keys: set[str] = set()
    for callback in callbacks:
        if not overrides(callback, "state_dict", Callback):
            continue
        key = callback.state_key
        if key in keys:
            raise RuntimeError(
                f"two callbacks of type {type(callback).__name__} have the same state_key {key!r}, so a checkpoint "
                "could not tell their states apart. Give them different arguments, or override state_key."
            )
        keys.add(key)
    tuners = [callback for callback in callbacks if getattr(callback, "_tunes", False)]
    savers = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    rest = [callback for callback in callbacks if callback not in tuners and callback not in savers]
    return tuners + rest + savers


def checkpoint_path(trainer: Trainer, fn: TrainerFn, given: str | Path | None, model_given: bool) -> str | Path | None:
    """Which file `ckpt_path` means."""
    on_slurm = fn == TrainerFn.FITTING and isinstance(trainer._environment, SLURMEnvironment)
    requeued = hpc_checkpoints(trainer.default_root_dir) if on_slurm else []
    if requeued and given is None:
        return str(requeued[-1])  # this job has run before: it goes on from there
    if requeued and given not in ("hpc", "last"):
        rank_zero_warn(
            f"ckpt_path={str(given)!r} is what this run begins with, as asked, and not {requeued[-1]}, which this job "
            "has left. Leave ckpt_path out, or pass 'hpc' or 'last', for a job that goes on where it was."
        )
    best_paths = (getattr(callback, "best_model_path", None) for callback in trainer.checkpoint_callbacks)
    best = next((path for path in best_paths if path is not None), None)
    if given is None and fn == TrainerFn.FITTING:
        rescuers = [callback for callback in trainer.callbacks if isinstance(callback, OnExceptionCheckpoint)]
        if any(rescuer._find_last_checkpoints(trainer) for rescuer in rescuers):
            given = "last"
    if given is None:
        if fn == TrainerFn.FITTING or model_given:
            return None
        if not best:
            rank_zero_warn(
                f"Trainer.{fn}() without a model uses the last model's weights as they are: no checkpoint callback has "
                "saved a best one. Pass the model to silence this."
            )
            return None
        rank_zero_warn(
            f"Trainer.{fn}() without a model and ckpt_path uses the best checkpoint of the last fit. Pass "
            "ckpt_path='best' to say so, or the model itself for its weights as they are."
        )
        given = "best"
    if given == "best":
        if trainer.fast_dev_run:
            raise ValueError(f"Trainer.{fn}(ckpt_path='best') under fast_dev_run: it saves no checkpoints.")
        if best is None:
            raise ValueError(
                f"Trainer.{fn}(ckpt_path='best') needs a ModelCheckpoint among the trainer's callbacks; there is none."
            )
        if not best:
            raise ValueError(f"Trainer.{fn}(ckpt_path='best'): no checkpoint was saved yet. Fit first, or pass a path.")
        return str(best)
    if given == "last":
        return _last(trainer, requeued)
    if given == "hpc":
        if not (found := hpc_checkpoints(trainer.default_root_dir)):
            raise ValueError(f"ckpt_path='hpc': there is no hpc_ckpt_*.ckpt in {trainer.default_root_dir}.")
        return str(found[-1])
    if str(given).startswith("registry"):
        raise NotImplementedError(f"ckpt_path={str(given)!r}: there is no model registry here; pass a path.")
    return given


def _last(trainer: Trainer, requeued: list[Path | RemotePath]) -> str | None:
    savers = [cb for cb in trainer.checkpoint_callbacks if hasattr(cb, "_find_last_checkpoints")]
    found = [path_of(path) for saver in savers for path in saver._find_last_checkpoints(trainer)]
    candidates = [path for path in (*found, *requeued) if path.exists()]
    if not candidates:
        rank_zero_warn("ckpt_path='last': there is no last checkpoint yet, so this run starts afresh.")
        return None
    return str(max(candidates, key=modified))
