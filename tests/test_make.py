"""`make` on a bare machine: which Python it takes, and what it installs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKS = f'exec "{sys.executable}" "$@"'
SHIM = 'echo "shim: command not found" >&2; exit 127'  # as pyenv's, for a version that is not chosen
OLD = f"""case "$2" in import*) exec "{sys.executable}" -c "import sys; sys.version_info = (3, 9); $2";; esac; exit 3"""


def chosen(folder: Path, *arguments: str, **programs: str) -> str:
    """What `make` would do for a new environment where PATH has these programs only."""
    make, shell = shutil.which("make"), shutil.which("sh")
    assert make and shell
    (folder / "sh").symlink_to(shell)
    for name, script in programs.items():
        (folder / name.replace("_", ".")).write_text(f"#!{shell}\n{script}\n")
        (folder / name.replace("_", ".")).chmod(0o755)
    command = [make, "--no-print-directory", "-n", "VENV=fresh", "fresh/bin/python", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(folder)}, capture_output=True, text=True)
    return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr


@pytest.mark.parametrize(
    ("programs", "takes"),
    [
        ({"python3": WORKS, "python3_11": WORKS}, "python3"),
        ({"python3": OLD, "python3_11": WORKS, "python3_12": WORKS}, "python3.11"),
        (
            {"python3": OLD, "python3_11": SHIM, "python3_12": SHIM, "python3_13": WORKS, "python3_10": WORKS},
            "python3.13",
        ),
        ({"python3": SHIM, "python3_10": WORKS}, "python3.10"),
        ({"python3_12": WORKS}, "python3.12"),
    ],
)
def test_the_first_python_that_runs_and_is_new_enough_is_taken(
    programs: dict[str, str], takes: str, tmp_path: Path
) -> None:
    assert chosen(tmp_path, **programs).startswith(f"{takes} -m venv fresh")


def test_python_can_be_named(tmp_path: Path) -> None:
    assert chosen(tmp_path, "PYTHON=mine", python3=WORKS, mine=WORKS).startswith("mine -m venv fresh")


@pytest.mark.parametrize("programs", [{}, {"python3": OLD, "python3_11": SHIM}])
def test_without_a_python_that_will_do_the_error_says_what_to_write(programs: dict[str, str], tmp_path: Path) -> None:
    error = chosen(tmp_path, **programs)
    assert "None of python3 python3.11 python3.12 python3.13 python3.10 runs and is Python 3.10 or newer" in error
    assert "make PYTHON=" in error


def test_an_install_that_fails_fails(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / ".ci" / "install.py", "--no-index", "--find-links", tmp_path, "no-such-package"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "failed after" in done.stdout and "no-such-package" in done.stderr


def test_every_dependency_has_a_lower_bound_for_make_lowest() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    groups = text[text.index("\ndependencies = ") : text.index("[project.scripts]")]
    asked = dict(re.findall(r'"([\w-]+)(?:\[[\w,]+\])?([^"]*)"', groups))
    assert {"torch", "rich", "lightgbm", "pytest"} <= asked.keys()
    without = {name for name, bound in asked.items() if not re.fullmatch(r">=[\w.]+", bound)}
    assert without == {"fulgurite", "lightning", "ruff"}  # ourselves, and what is used at one version
