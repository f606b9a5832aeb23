"""Killed without warning, started again, six times: the end is that of a run that nobody killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
SRC = Path(__file__).parents[1] / "src"
SCRIPT = """
import logging, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
torch.set_num_threads(1)
import fulgurite as pl
logging.getLogger("fulgurite").setLevel(logging.WARNING)
folder, pause = Path(sys.argv[1]), float(sys.argv[2])

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.2), torch.nn.Linear(64, 1))
    def training_step(self, batch, batch_idx):
        time.sleep(pause)
        loss = self.net(batch).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss
    def validation_step(self, batch, batch_idx):
        self.log("vl", self.net(batch).square().mean())
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss_epoch"}}

data = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
save = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_last=True, enable_version_counter=False)
trainer = pl.Trainer(max_epochs=4, accelerator="cpu", accumulate_grad_batches=3, val_check_interval=8,
                     logger=pl.loggers.CSVLogger(folder, "", ""), callbacks=[save], log_every_n_steps=1,
                     enable_progress_bar=False, enable_model_summary=False)
torch.manual_seed(0)
model = Net()
DataLoader = torch.utils.data.DataLoader
trainer.fit(model, DataLoader(data, 3, shuffle=True), DataLoader(data[:9], 3),
            ckpt_path="last" if list(folder.glob("last*.ckpt")) else None)
end = {"weights": model.state_dict(), "optimizer": trainer.optimizers[0].state_dict(), "steps": trainer.global_step}
torch.save(end, folder / "end.pt")
"""


def start(folder: Path, pause: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(pause)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def newest(folder: Path) -> float:
    return max((p.stat().st_mtime_ns for p in folder.glob("*.ckpt")), default=0)


def end_of(folder: Path) -> dict[str, Any]:
    end: dict[str, Any] = torch.load(folder / "end.pt", weights_only=True)
    return {k: str(v) for k, v in end["optimizer"]["state"].items()} | {
        "weights": {k: v.tolist() for k, v in end["weights"].items()},
        "steps": end["steps"],
    }


def test_six_kills_change_nothing(tmp_path: Path) -> None:
    whole, killed, moment = tmp_path / "whole", tmp_path / "killed", random.Random(3)
    undisturbed = start(whole, 0)
    _, said = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0 and not said
    for _ in range(6):
        process, before = start(killed, 0.03), newest(killed)
        while process.poll() is None and newest(killed) == before:  # until this life has written something of its own
            time.sleep(0.01)
        time.sleep(moment.random() * 0.3)
        assert process.poll() is None, process.stderr and process.stderr.read()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        if process.stderr:
            process.stderr.close()
        for file in killed.glob("*.ckpt"):
            torch.load(file, weights_only=True)  # never half a file
    last = start(killed, 0)
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert end_of(killed) == end_of(whole)
    # A kill between a row and its file has that row written again: the same one, for the run is the same.
    rows = [set((folder / "metrics.csv").read_text().splitlines()) for folder in (killed, whole)]
    assert rows[0] == rows[1]
