"""SLURM's notice that time is nearly up: saved at a batch boundary, requeued, and gone on from there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fulgurite as pl
from helpers.counting import QUIET, Counting, loader
from helpers.processes import run_ranks

JOB = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train"}


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Path]:
    """A job of SLURM with a `scontrol` that writes down what it is asked."""
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    tool.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**JOB, "PATH": f"{tool.parent}:{os.environ['PATH']}"}.items():
            patch.setenv(name, value)
        yield tmp_path


class Asked(Counting):
    """SLURM sends its signal in batch 1 of the first epoch."""

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if batch_idx == 1 and self.current_epoch == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            self.calls.append("asked")
        return super().training_step(batch, batch_idx)


def trainer(**flags: Any) -> pl.Trainer:
    return pl.Trainer(**{**QUIET, "max_epochs": 2, "num_sanity_val_steps": 0, **flags})


def test_saves_after_the_batch_requeues_and_goes_on(job: Path) -> None:
    model = Asked()
    trainer().fit(model, loader(4), loader(1))
    assert (job / "asked").read_text() == "requeue 77\n"
    saved = torch.load(job / "hpc_ckpt_1.ckpt", weights_only=True)
    assert (saved["global_step"], saved["fulgurite"]["progress"]["batch"]) == (2, 2)
    assert model.seen("t") == "t0 t1 t2 t3 t0 t1 t2 t3"  # until SLURM ends it

    again = Counting()  # the same script, run anew
    trainer().fit(again, loader(4), loader(1))
    assert again.seen("t") == "t2 t3 t0 t1 t2 t3"


def test_one_file_is_kept(job: Path) -> None:
    trainer().fit(Asked(), loader(4), loader(1))

    class AskedLater(Counting):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            if self.current_epoch == 1 and batch_idx == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
            return super().training_step(batch, batch_idx)

    trainer().fit(AskedLater(), loader(4), loader(1))
    assert [path.name for path in job.glob("hpc_*")] == ["hpc_ckpt_2.ckpt"]
    assert (job / "asked").read_text() == "requeue 77\n" * 2


def test_a_requeue_that_fails_says_what_to_do(job: Path) -> None:
    (job / "bin" / "scontrol").write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    with pytest.warns(UserWarning, match="no such job.*Submit the job again"):
        trainer().fit(Asked(), loader(4), loader(1))


def test_auto_requeue_may_be_off(job: Path) -> None:
    from fulgurite.machine.environments import SLURMEnvironment

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        trainer(plugins=[SLURMEnvironment(auto_requeue=False)]).fit(Asked(), loader(4), loader(1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not list(job.glob("hpc_*"))


@pytest.mark.multi
@pytest.mark.slow
def test_a_signal_to_one_of_two_tasks_saves_both_at_the_same_batch(job: Path) -> None:
    script = """
os.environ["SLURM_PROCID"] = os.environ["SLURM_LOCALID"] = str(RANK)
os.environ["SLURM_NTASKS"] = "2"
import signal
from helpers.counting import Counting, QUIET, loader
class Asked(Counting):
    def training_step(self, batch, i):
        if RANK == 1 and i == 1 and self.current_epoch == 0 and not resumed:
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().training_step(batch, i)
def run():
    model = Asked()
    trainer = pl.Trainer(**QUIET, max_epochs=2, devices=2, num_sanity_val_steps=0)
    trainer.fit(model, loader(400), loader(1))
    return model.layer.weight.detach().clone(), len(model.seen("t").split())
resumed = False
first = run()
resumed = True
answer((first, run()))
"""
    one, two = run_ranks(script, 2)
    assert (job / "asked").read_text() == "requeue 77\n"
    (whole, batches), (again, rest) = one
    assert torch.equal(whole, again) and torch.equal(two[0][0], again)
    assert batches == 400 and 340 <= rest < 399 and two[1][1] == rest
