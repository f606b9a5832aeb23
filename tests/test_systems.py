"""Systems that we do not run on: what only Unix has is used where several processes are, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.programs import run_program

# What Windows lacks is taken away once torch, which knows Windows itself, has looked.
WITHOUT_UNIX = """
import asyncio, multiprocessing, os, shutil, signal, socket, subprocess, tempfile
import torch.distributed, torch.multiprocessing
from torch.utils.data import DataLoader

for module, names in {
    os: "fork forkpty setsid killpg getpgid getuid geteuid posix_spawn mkfifo chown statvfs getloadavg uname",
    signal: "SIGUSR1 SIGUSR2 SIGKILL SIGHUP SIGALRM SIGQUIT SIGCHLD SIGCONT pthread_kill pthread_sigmask setitimer",
}.items():
    for name in names.split():
        delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty"):
    sys.modules[name] = None
import fulgurite as pl
import dkt.cli
from fulgurite.callbacks import ModelCheckpoint
from fulgurite.demos.boring_classes import BoringModel

def trainer(**flags):
    flags = dict(limit_train_batches=2, limit_val_batches=1, accelerator="cpu", enable_progress_bar=False) | flags
    return pl.Trainer(**flags)

trained = trainer(max_epochs=1, callbacks=[ModelCheckpoint(save_last=True)])
trained.fit(BoringModel())
resumed = trainer(max_epochs=2, callbacks=[ModelCheckpoint()])
resumed.fit(BoringModel(), ckpt_path=trained.checkpoint_callback.last_model_path)
print("steps", resumed.global_step)
for strategy in ("ddp", "ddp_spawn"):
    try:
        trainer(devices=2, strategy=strategy, logger=False).fit(BoringModel())
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_one_process_trains_without_what_only_unix_has_and_several_say_how_to_start_them(tmp_path: Path) -> None:
    ended = run_program(WITHOUT_UNIX, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "steps 4" in ended.out
    assert ended.out.count("torchrun --nproc-per-node=2 script.py") == 2
