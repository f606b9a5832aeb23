"""The course's program, imported as a script would be, on a small simulated school."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "course" / "dkt_lightning.py"


@pytest.fixture(scope="session")
def school(tmp_path_factory):
    """A folder with train_data.csv (180 students) and test_data.csv (20, each last answer to be predicted)."""
    from dkt.data.simulate import simulate, write_school

    folder = tmp_path_factory.mktemp("school")
    before = dict(os.environ)
    answers, truth = simulate(students=200, questions=40, skills=8, concepts=3, answers_per_student=24, seed=1)
    write_school(answers, truth, folder)
    for name in os.environ.keys() - before.keys():  # polars' allocator leaves its settings
        del os.environ[name]
    return folder


@pytest.fixture
def arguments(school, monkeypatch):
    """The command line of a small run in the test's own folder."""
    small = ["--hidden_dim", "24", "--n_epochs", "2", "--lr", "0.01", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["dkt_lightning.py", "--data_dir", str(school), *small])


@pytest.fixture
def course(arguments, monkeypatch):
    """The program as a module."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    for name in ("args", "dkt_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("dkt_lightning")
    for name in ("args", "dkt_lightning"):
        sys.modules.pop(name, None)
