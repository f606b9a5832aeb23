"""SLURM's time is nearly up: a checkpoint where a requeued job looks for it, and the job asked to be run again."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from fulgurite.utilities.cloud_io import RemotePath, entries_of, path_of
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.trainer import Trainer


def hpc_checkpoints(folder: str | Path) -> list[Path | RemotePath]:
    """What requeueing has left in a folder, hpc_ckpt_<N>.ckpt by rising N."""
    return sorted((path for path in entries_of(path_of(folder)) if _number(path) >= 0), key=_number)


def _number(path: Path | RemotePath) -> int:
    found = re.fullmatch(r"hpc_ckpt_([0-9]+)\.ckpt", path.name)
    return int(found[1]) if found else -1


def requeue(trainer: Trainer) -> None:
    """Save, and ask for the job to be run again; on all processes, at the same batch.

    Training goes on until SLURM ends it, so that code after fit does not run on half a training.
    """
    old = hpc_checkpoints(trainer.default_root_dir)
    name = f"hpc_ckpt_{_number(old[-1]) + 1 if old else 1}.ckpt"
    path = str(path_of(trainer.default_root_dir).absolute() / trainer.strategy.broadcast(name))
    trainer.save_checkpoint(path)
    given, ours = trainer.ckpt_path, trainer._requeue_file
    trainer._requeue_file = path
    if not trainer.is_global_zero:
        return
    # what this job had before; others may lie there of other jobs with the same root
    before = {ours, None if given is None else str(path_of(given).absolute())}
    for outdated in old:
        if str(outdated.absolute()) in before:
            trainer.strategy.checkpoint_io.remove_checkpoint(str(outdated))
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    rank_zero_info(f"SLURM asked for room: saved {path}, requeueing job {job}.")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip()
        rank_zero_warn(f"'scontrol requeue {job}' failed: {said}. Submit the job again; it goes on from {path}.")
