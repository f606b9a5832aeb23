"""The alias and the names of the 1.x era cost a step nothing: the same calls, counted, with and without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COUNT = """
import sys, warnings
warnings.simplefilter("ignore")
if sys.argv[1] == "alias":
    import fulgurite.compat
    fulgurite.compat.install_alias()
    import lightning.pytorch as new, pytorch_lightning as old
    from lightning.pytorch.callbacks import ModelCheckpoint, EarlyStopping
from test_overhead import Counted, counted
old_flags = {"weights_summary": None, "move_metrics_to_cpu": False, "resume_from_checkpoint": None}
if sys.argv[1] == "alias":
    assert issubclass(Counted, new.LightningModule) and issubclass(Counted, old.LightningModule)
found = counted({}, **(old_flags if sys.argv[1] == "old" else {}))
print(sorted(found.calls.items()), len(found.stack))
"""


def calls(kind: str) -> str:
    path = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COUNT, kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_alias_and_old_names_add_no_call_to_a_step() -> None:
    plain = calls("plain")
    assert "training_step" not in plain and plain.startswith("[(")
    assert calls("alias") == plain
    assert calls("old") == plain
