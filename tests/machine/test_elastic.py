"""torchrun starts all ranks again after one was killed: the run goes on from its last checkpoint, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from helpers.programs import run_program

pytestmark = [pytest.mark.multi, pytest.mark.slow, pytest.mark.timeout(400)]
SCRIPT = """
from pathlib import Path
import fulgurite as pl
from torch.utils.data import DataLoader
killed_at, killed = int(sys.argv[1]), int(sys.argv[2])

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Dropout(0.2), torch.nn.Linear(32, 1))
    def training_step(self, batch, batch_idx):
        done = self.trainer.progress.total_batch
        if done == killed_at and rank() == killed and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with open(f"seen-{rank()}-{os.environ['TORCHELASTIC_RESTART_COUNT']}", "a") as file:
            file.write(f"{done}\\n")
        loss = self.net(batch).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss
    def validation_step(self, batch, batch_idx): self.log("val", self.net(batch).square().mean(), sync_dist=True)
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss_epoch"}}

pl.seed_everything(1, verbose=False)
net = Net()
save = pl.callbacks.ModelCheckpoint("saved", every_n_train_steps=2, save_last=True)
trainer = pl.Trainer(max_epochs=3, accelerator="cpu", accumulate_grad_batches=2, callbacks=[save], logger=False,
                     enable_progress_bar=False, enable_model_summary=False)
samples = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
trainer.fit(net, DataLoader(samples, 3, shuffle=True), DataLoader(samples, 3), ckpt_path="last")
if trainer.is_global_zero:
    torch.save({"weights": net.state_dict(), "steps": trainer.global_step,
                "optimizer": str(trainer.optimizers[0].state_dict()["state"])}, "end.pt")
"""


def run(folder: Path, killed_at: int, rank: int) -> dict[str, object]:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = (*torchrun, "--max-restarts=1", "--monitor-interval=0.2", "program.py")
    ended = run_program(SCRIPT, str(killed_at), str(rank), folder=folder, command=command, deadline=180)
    assert ended.code == 0, ended.err
    assert not ended.left and not ended.files
    end: dict[str, object] = torch.load(folder / "end.pt", weights_only=True)
    return end


def same(ours: dict[str, object], theirs: dict[str, object]) -> None:
    weights = ours.pop("weights"), theirs.pop("weights")
    assert ours == theirs
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))  # type: ignore[attr-defined]


def test_a_killed_rank_changes_nothing_where_torchrun_restarts(tmp_path: Path) -> None:
    for rank, killed_at in ((1, 13), (0, 19)):  # in the second and third of three epochs of eight batches
        whole = run(tmp_path / f"whole-{rank}", -1, rank)
        killed = run(tmp_path / f"killed-{rank}", killed_at, rank)
        assert (tmp_path / f"killed-{rank}" / "killed").exists()
        again = (tmp_path / f"killed-{rank}" / "seen-1-1").read_text().split()
        assert 8 < int(again[0]) <= killed_at, "it went on in mid-epoch, from the last checkpoint"
        same(killed, whole)
