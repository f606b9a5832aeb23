"""The line that a fit ends with: how much was done, the last value of every logged name, and where the files are."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulgurite.callbacks.progress.progress_bar import as_text, clock
from fulgurite.results import as_numbers
from fulgurite.utilities.cloud_io import is_remote, path_of

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer


def closing_line(trainer: Trainer, began: float) -> str:
    """Of a fit that `began` at that time; what has been published is shown, nothing is computed or communicated."""
    epochs = trainer.current_epoch
    done = (
        f"Trained {epochs} epoch{'s' * (epochs != 1)}, {trainer.global_step} steps in {clock(time.monotonic() - began)}"
    )
    values = (f"{name} {as_text(value)}" for name, value in as_numbers(_last_values(trainer)).items())
    return " | ".join([done, *values, *_files(trainer)])


def _last_values(trainer: Trainer) -> dict[str, Any]:
    """One for each name that was logged; of one that has a value of the step and of the epoch, the epoch's."""
    metrics = trainer._metrics
    values = {**metrics.bar, **metrics.logged, **metrics.callback}
    return {
        name: value
        for name, value in values.items()
        if not (name.endswith(("_step", "_epoch")) and name.rpartition("_")[0] in values)
        and (not isinstance(value, Tensor) or value.numel() == 1)  # users put things into callback_metrics
    }


def _files(trainer: Trainer) -> list[str]:
    """What of the loggers' folders and the checkpoints is there."""
    folders = [getattr(logger, "log_dir", None) for logger in trainer.loggers]
    shown = [f"logs in {_short(folder)}" for folder in dict.fromkeys(folders) if folder and path_of(folder).is_dir()]
    for callback in trainer.checkpoint_callbacks:
        best, last = (getattr(callback, f"{which}_model_path", "") for which in ("best", "last"))
        kind = "best checkpoint" if getattr(callback, "monitor", None) is not None else "checkpoint"
        named = {best: kind} if best else {}
        named |= {last: "last checkpoint"} if last and last != best else {}
        shown += [f"{kind} {_short(path)}" for path, kind in named.items() if path_of(path).exists()]
    return shown


def _short(path: str) -> str:
    """As one would type it here."""
    here = os.getcwd() + os.sep  # noqa: PTH109  # text
    return path if is_remote(path) else path.removeprefix(here)
