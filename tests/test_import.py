"""`import fulgurite` costs next to nothing over `import torch`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
HEAVY = (
    "torchmetrics rich yaml tensorboard tensorboardX tqdm numpy polars lightning dkt matplotlib"
    " torch._dynamo torch.utils.tensorboard"
)


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def added_modules() -> set[str]:
    code = "import sys, torch; a = set(sys.modules); import fulgurite; print(*sorted(set(sys.modules) - a))"
    return set(run(code).split())


def test_at_most_80_modules_on_top_of_torch() -> None:
    added = added_modules()
    assert len(added) <= 80, f"{len(added)}: {sorted(added)}"


@pytest.mark.slow
def test_no_vendor_is_imported() -> None:
    heavy = [m for m in added_modules() if any(m == h or m.startswith(f"{h}.") for h in HEAVY.split())]
    assert not heavy


@pytest.mark.slow
def test_a_fit_needs_no_numpy() -> None:
    """numpy is optional: with its import blocked, a model trains, saves, resumes and predicts."""
    run("""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def without_numpy(name, path=None, target=None):
    return None if name.split(".")[0] == "numpy" else find(name, path, target)
PathFinder.find_spec = without_numpy
import torch, fulgurite as pl
from fulgurite.demos.boring_classes import BoringModel
flags = dict(max_epochs=1, limit_train_batches=2, limit_val_batches=1, accelerator="cpu", logger=False,
             enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
t = pl.Trainer(**flags)
pl.seed_everything(1, verbose=False)
t.fit(BoringModel())
t.save_checkpoint("a.ckpt")
pl.Trainer(**{**flags, "max_epochs": 2}).fit(BoringModel(), ckpt_path="a.ckpt")
t.predict(BoringModel(), torch.utils.data.DataLoader(torch.randn(4, 32)))
assert "numpy" not in sys.modules
""")
