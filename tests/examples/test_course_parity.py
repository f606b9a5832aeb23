"""The same program, its import line changed, trains with the genuine `lightning` to the same numbers."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.parity

IMPORT_LINE = "import fulgurite as pl"
THEIRS = "import lightning.pytorch as pl"


def run(program: Path, folder: Path, change: bool, **flags):
    """(rows of the log, final weights, submission) of the program, run in `folder`."""
    text = program.read_text()
    assert text.count(IMPORT_LINE) == 1
    names = {"__name__": "course_program"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs are not the subject
        exec(compile(text.replace(IMPORT_LINE, THEIRS) if change else text, str(program), "exec"), names)
        assert names["pl"].__name__ == ("lightning.pytorch" if change else "fulgurite")
        trainer, model = names["main"](default_root_dir=folder, log_every_n_steps=1, enable_progress_bar=False, **flags)
    with Path(trainer.logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return rows, model.state_dict(), Path("outputs/submission.csv").read_text()


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"precision": 16},
        {"val_check_interval": 1},
    ],
    ids=str,
)
def test_same_losses_weights_and_submission_as_lightning(course, tmp_path, flags):
    program = Path(course.__file__)
    results = []
    for change in (False, True):
        folder = tmp_path / str(change)
        folder.mkdir()
        os.chdir(folder)
        results.append(run(program, folder, change, **flags))
        os.chdir(tmp_path)
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # importing lightning sets it
    (our_rows, ours, our_file), (their_rows, theirs, their_file) = results
    assert our_rows == their_rows
    assert any(row.get("train_loss_step") for row in our_rows)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert our_file == their_file
