"""One program, unchanged, as one process, two, under torchrun, and in the kernel of a notebook."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.programs import HEAD, Program, run_program

pytestmark = [pytest.mark.multi, pytest.mark.slow, pytest.mark.timeout(600)]
SCRIPT = """
import json
import fulgurite as pl
from torch.utils.data import DataLoader

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_epoch=True, on_step=False, sync_dist=True)
        return loss
    def validation_step(self, batch, batch_idx): self.log("val", self.layer(batch).square().mean(), sync_dist=True)
    def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=0.05)

pl.seed_everything(7, verbose=False)
net = Net()
trainer = pl.Trainer(max_epochs=3, accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
samples = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
size = 8 // trainer.world_size
trainer.fit(net, DataLoader(samples, size, shuffle=True), DataLoader(samples, size))
after = trainer.validate(net, DataLoader(samples, size), verbose=False)
if trainer.is_global_zero:
    print(json.dumps({"ranks": trainer.world_size, "steps": trainer.global_step, "after": after,
                      "draw": torch.rand(1).item(), "weights": net.layer.weight.flatten().tolist(),
                      "loss": trainer.callback_metrics["val"].item()}))
"""


def answer(text: str) -> dict[str, Any]:
    (line,) = [line for line in text.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(line)
    return found


EXECUTE = """
import nbformat, nbclient
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", ""))
"""


def in_notebook(folder: Path, *cells: str) -> str:
    """What the cells print in a kernel of their own, where the trainer is given two devices."""
    environ = {"PL_TRAINER_DEVICES": "2", "IPYTHONDIR": str(folder / "ipython")}
    ended = run_program(f"CELLS = {[HEAD, *cells]!r}\n{EXECUTE}", folder=folder, deadline=300, **environ)
    assert ended.code == 0, ended.err
    assert not ended.left and not ended.files, (ended.left, ended.files)
    return ended.out


@pytest.mark.nightly
def test_the_same_script_runs_anywhere(tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "program.py")
    runs = {
        "one": run_program(SCRIPT, folder=tmp_path / "one", PL_TRAINER_DEVICES="1"),
        "two": run_program(SCRIPT, folder=tmp_path / "two", PL_TRAINER_DEVICES="2"),
        "torchrun": run_program(SCRIPT, folder=tmp_path / "torchrun", command=torchrun),
    }
    for name, ended in runs.items():
        assert ended.code == 0, (name, ended.err)
        assert not ended.left and not ended.files, name
    answers = {name: answer(ended.out) for name, ended in runs.items()}
    answers["notebook"] = answer(in_notebook(tmp_path / "notebook", SCRIPT))
    assert [a["ranks"] for a in answers.values()] == [1, 2, 2, 2]
    assert answers["two"] == answers["torchrun"] == answers["notebook"]
    assert answers["one"]["steps"] == answers["two"]["steps"] == 9
    for key in ("weights", "loss"):
        ours, theirs = torch.tensor(answers["one"][key]).double(), torch.tensor(answers["two"][key]).double()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_an_exception_in_a_notebook_is_an_exception_and_the_kernel_lives_on(tmp_path: Path) -> None:
    setting_up = SCRIPT[: SCRIPT.index("trainer.fit")]
    failing = setting_up.replace("loss = self", "1 / (rank() == 0 or batch_idx != 1); loss = self")
    caught = """
try:
    trainer.fit(net, DataLoader(samples, size))
except Exception as error:
    print(type(error).__name__, str(error)[-60:])
"""
    out = in_notebook(tmp_path / "notebook", failing, caught, "print('and on')")
    assert "RankFailedError" in out and "[rank 1] ZeroDivisionError: division by zero" in out and "and on" in out, out


def test_a_program_read_from_standard_input_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "script.txt").write_text(HEAD + SCRIPT)
    command = ("sh", "-c", f"{sys.executable} - < script.txt")
    with Program("", folder=tmp_path, command=command, PL_TRAINER_DEVICES="2") as program:
        ended = program.finish(60)
    assert ended.code == 1 and "read from standard input" in ended.err and "ddp_spawn" in ended.err
