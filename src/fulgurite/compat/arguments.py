"""Trainer arguments of the 1.x era: what each did, and the line to write today."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_deprecation

Init = TypeVar("Init", bound=Callable[..., None])

# what to write instead, where doing what the argument did is not possible
REMOVED = {
    "tpu_cores": "TPUs are not supported here; write accelerator='auto', devices=1.",
    "num_processes": "Write accelerator='cpu', devices=N.",
    "auto_scale_batch_size": "Write Tuner(trainer).scale_batch_size(model).",
    "weights_summary": "Write enable_model_summary=False, or callbacks=[ModelSummary(max_depth=...)].",
    "checkpoint_callback": "Write enable_checkpointing=True or False.",
    "progress_bar_refresh_rate": "Write enable_progress_bar=False, or callbacks=[TQDMProgressBar(refresh_rate=N)].",
    "flush_logs_every_n_steps": "Write logger=CSVLogger(dir, flush_logs_every_n_steps=N).",
    "track_grad_norm": "Write self.log_dict(grad_norm(self, 2)) in on_before_optimizer_step.",
    "terminate_on_nan": "Write callbacks=[EarlyStopping(monitor='train_loss', check_finite=True)].",
    "replace_sampler_ddp": "Write use_distributed_sampler=True or False.",
    "amp_backend": "Leave it out: torch's own automatic mixed precision is used.",
    "amp_level": "Leave it out and write precision='16-mixed'.",
    "move_metrics_to_cpu": "Leave it out: logged values are single numbers.",
    "multiple_trainloader_mode": "Write CombinedLoader(loaders, mode=...).",
    "stochastic_weight_avg": "Write callbacks=[StochasticWeightAveraging(swa_lrs=...)].",
    "prepare_data_per_node": "Set self.prepare_data_per_node in the data module.",
    "log_gpu_memory": "Write callbacks=[DeviceStatsMonitor()].",
    "automatic_optimization": "Set self.automatic_optimization = False in the module's __init__.",
    "distributed_backend": "Write strategy='ddp'.",
    "auto_select_gpus": "Write accelerator='auto', devices=1.",
}

REMOVED_HOOKS = {
    "training_epoch_end": "Collect what you need in training_step and use it in on_train_epoch_end(self).",
    "validation_epoch_end": "Collect what you need in validation_step and use it in on_validation_epoch_end(self).",
    "test_epoch_end": "Collect what you need in test_step and use it in on_test_epoch_end(self).",
    "training_step_end": "Do it at the end of training_step.",
    "validation_step_end": "Do it at the end of validation_step.",
    "test_step_end": "Do it at the end of test_step.",
    "on_epoch_start": "Write on_train_epoch_start, on_validation_epoch_start, ...",
    "on_epoch_end": "Write on_train_epoch_end, on_validation_epoch_end, ...",
}


def removed_arguments(init: Init) -> Init:
    """Let a constructor take the arguments of the 1.x era, without showing them in its signature."""

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        if args:
            raise TypeError(
                f"Trainer() takes keyword arguments only, and was given {len(args)} by position. "
                f"Write for example Trainer(logger={args[0]!r:.40})."
            )
        kwargs = {**_from_environment(init, kwargs), **kwargs}
        later = {name: kwargs.pop(name) for name in ("auto_lr_find", "resume_from_checkpoint") if name in kwargs}
        if "gpus" in kwargs:
            kwargs.update(_gpus(kwargs.pop("gpus"), kwargs))
        for name in REMOVED.keys() & kwargs.keys():
            raise TypeError(f"Trainer({name}={kwargs[name]!r}): this argument is of the 1.x era. {REMOVED[name]}")
        for name in kwargs.keys() - inspect.signature(init).parameters.keys():
            alike = difflib.get_close_matches(name, inspect.signature(init).parameters, 1)
            hint = f"Did you mean {alike[0]}?" if alike else "help(Trainer) lists them."
            raise TypeError(f"Trainer() got an unexpected keyword argument {name!r}. {hint}")
        init(self, **kwargs)
        if later.get("auto_lr_find"):
            rank_zero_deprecation(
                "Trainer(auto_lr_find=True) is of the 1.x era. Write Tuner(trainer).lr_find(model) before fit, or "
                "callbacks=[LearningRateFinder()]."
            )
            self._auto_lr_find = later["auto_lr_find"]
        if later.get("resume_from_checkpoint") is not None:
            rank_zero_deprecation(
                "Trainer(resume_from_checkpoint=...) is of the 1.x era. "
                f"Write trainer.fit(model, ckpt_path={str(later['resume_from_checkpoint'])!r})."
            )
            self._resume_from_checkpoint = later["resume_from_checkpoint"]

    return wrapper  # type: ignore[return-value]  # wraps() keeps the signature that callers see


def _gpus(gpus: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    if gpus in (None, 0, "0", [], ""):
        rank_zero_deprecation(f"Trainer(gpus={gpus!r}) is of the 1.x era. Leave it out, or write accelerator='cpu'.")
        return {} if gpus is None else {"accelerator": "cpu"}
    if not torch.cuda.is_available():
        raise MisconfigurationException(
            f"Trainer(gpus={gpus!r}): this machine has no GPU that torch can use. "
            'Write accelerator="auto", devices=1 to train on what is there.'
        )
    devices = gpus if not isinstance(gpus, str) else gpus.strip()
    rank_zero_deprecation(f"Trainer(gpus={gpus!r}) is of the 1.x era. Write accelerator='gpu', devices={devices!r}.")
    return {"accelerator": "gpu", "devices": devices, **{k: kwargs[k] for k in ("devices",) if k in kwargs}}


def _from_environment(init: Callable[..., None], given: dict[str, Any]) -> dict[str, Any]:
    """Defaults from `PL_TRAINER_<ARGUMENT>`, e.g. PL_TRAINER_MAX_EPOCHS=3."""
    found = {}
    for name in inspect.signature(init).parameters:
        text = os.environ.get(f"PL_TRAINER_{name.upper()}") if name != "self" and name not in given else None
        if text is not None:
            try:
                found[name] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                found[name] = text
    return found
