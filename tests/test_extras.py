"""Tests ask for what `make test` does not install: they are skipped without it, and in the full run they fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from helpers.extras import EXTRAS

TESTS = Path(__file__).parent
IMPORT = re.compile(rf"^\s*(?:import|from) ({'|'.join(EXTRAS.keys() - {'lightning'})})\b", re.MULTILINE)
ASKED = re.compile(r"(?:needs|importorskip)\(([^)]*)\)")
PROGRAM = """
import pytest

@pytest.mark.needs("lightgbm")
def test_asking():
    import lightgbm

def test_looking_by_itself():
    pytest.importorskip("no_such_package")

@pytest.mark.skipif(True, reason="needs a GPU")
def test_of_another_machine(): ...

@pytest.mark.xfail
def test_known_to_fail():
    assert False

@pytest.mark.needs("a_misspelt_package")
def test_that_could_never_run(): ...
"""
WITHOUT = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name == "lightgbm" else find(name, *more)
"""
WHOLE_FILE = 'import pytest\npytest.importorskip("no_such_package")'


def ended(folder: Path, full_run: str) -> list[str]:
    """How each test of the program ended, and why, with LightGBM out of reach."""
    (folder / "test_program.py").write_text(PROGRAM)
    (folder / "test_whole_file.py").write_text(WHOLE_FILE)
    (folder / "without.py").write_text(WITHOUT)
    paths = os.pathsep.join([str(TESTS), str(folder)])
    environment = os.environ | {"PYTHONPATH": paths, "FULL_RUN": full_run, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    flags = ["-rA", "--continue-on-collection-errors", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    command = [sys.executable, "-m", "pytest", "-p", "without", "-p", "helpers.extras", *flags, "."]
    done = subprocess.run(command, cwd=folder, env=environment | {"COLUMNS": "200"}, capture_output=True, text=True)
    return re.findall(r"^((?:PASSED|FAILED|ERROR|SKIPPED|XFAIL) .*)$", done.stdout, re.MULTILINE)


def test_without_the_package_a_test_is_skipped_and_says_what_to_install(tmp_path: Path) -> None:
    seen = "\n".join(ended(tmp_path, full_run=""))
    assert "needs lightgbm: pip install 'fulgurite[trees]'" in seen
    assert seen.count("SKIPPED") == 4 and seen.count("XFAIL") == 1
    assert "ERROR test_program.py::test_that_could_never_run" in seen  # else a misspelt name were skipped for ever


def test_in_the_full_run_each_skip_is_a_failure_but_for_what_needs_another_machine(tmp_path: Path) -> None:
    seen = ended(tmp_path, full_run="1")
    wrong = "\n".join(line for line in seen if line.startswith(("FAILED", "ERROR")))
    for name in ("test_asking", "test_looking_by_itself", "test_whole_file.py", "test_that_could_never_run"):
        assert name in wrong
    (skipped,) = [line for line in seen if line.startswith("SKIPPED")]
    assert "needs a GPU" in skipped
    assert sum(line.startswith("XFAIL") for line in seen) == 1


def test_files_that_import_such_a_package_ask_for_it() -> None:
    silent = []
    for path in sorted(TESTS.rglob("*.py")):
        if "clients" in path.parts or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        missing = set(IMPORT.findall(text)) - set(re.findall(r"\w+", " ".join(ASKED.findall(text))))
        silent += [f"{path.name}: {package}" for package in missing]
    assert not silent
