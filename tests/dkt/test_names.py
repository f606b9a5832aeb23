"""`import dkt` costs nothing and gives the names that people write first."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dkt


def test_the_first_screen_of_the_readme_runs():
    from dkt import DKT, simulate, split_students

    train, test = split_students(simulate(students=60, questions=24, skills=6, concepts=3)[0], (0.8, 0.2))
    model = DKT(epochs=1, dim=8, hidden=8)
    model.fit(train)
    p = model.predict(test)
    assert p.shape == (len(test),)
    assert ((p > 0) & (p < 1)).all()


def test_a_saved_model_is_loaded_by_the_short_name(tmp_path):
    train, test = dkt.split_students(dkt.simulate(students=60, questions=24, skills=6, concepts=3)[0], (0.8, 0.2))
    model = dkt.Elo().fit(train)
    model.save(tmp_path / "elo.pt")
    assert np.array_equal(dkt.load_model(tmp_path / "elo.pt").predict(test), model.predict(test))


@pytest.mark.parametrize("name", dkt.__all__)
def test_every_name_is_there(name):
    assert getattr(dkt, name).__name__ == name
    assert name in dir(dkt)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(dkt.__file__).read_text())
    hints = next(node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    found = {(alias.name, line.module) for line in hints.body for alias in line.names}
    assert found == set(dkt._HOME.items())


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dkt' has no attribute 'DKTT'"):
        dkt.DKTT  # noqa: B018


def test_importing_dkt_loads_neither_torch_nor_polars():
    code = "import sys, dkt; print({'torch', 'polars', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
