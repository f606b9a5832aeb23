"""The files that SLURM's requeueing leaves."""

from __future__ import annotations

from pathlib import Path

from fulgurite.machine.requeue import hpc_checkpoints


def test_requeued_checkpoints_are_in_the_order_of_their_numbers_and_other_files_are_none() -> None:
    for name in ("hpc_ckpt_9.ckpt", "hpc_ckpt_10.ckpt", "hpc_ckpt_best.ckpt", "last.ckpt"):
        Path(name).touch()
    assert hpc_checkpoints(".") == [Path("hpc_ckpt_9.ckpt"), Path("hpc_ckpt_10.ckpt")]
