"""Run libraries that train through Lightning, unmodified, on Lightning and on fulgurite, and compare their numbers.

    python tests/clients/compare.py                        # all, each in an environment of its own (minutes each)
    python tests/clients/compare.py --python VENV/bin/python chemistry single_cell

Each script of this folder names what it needs in its head, makes its own data, trains, saves, loads, predicts and
prints one line of JSON. Here it runs twice: as it is, and by `python -m fulgurite run`. Printed is one line of JSON a
script; the exit status is 1 where a number differs or a script fails. It is no part of the default tests: it downloads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "compare")


def needs(script: str) -> list[str]:
    """The distributions that a script names in its head."""
    found = re.search(r"^# dependencies = (\[.*\])$", (HERE / f"{script}.py").read_text(), re.MULTILINE)
    return json.loads(found[1]) if found else []


def environment(script: str, folder: str) -> str:
    """The Python of a new environment that has what the script needs."""
    venv.create(folder, with_pip=True)
    python = f"{folder}/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", *needs(script)], check=True)
    return python


def run(python: str, script: str, *, under_fulgurite: bool) -> Any:
    """What the script prints, as JSON, or its error."""
    under = ["-m", "fulgurite", "run"] if under_fulgurite else []
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-W", "ignore", *under, str(HERE / f"{script}.py")],
            env={**os.environ, "PYTHONPATH": str(SRC) if under_fulgurite else "", "OMP_NUM_THREADS": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if done.returncode == 0 and lines else {"error": done.stderr[-1000:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", choices=[*SCRIPTS, []], help="which; all by default")
    parser.add_argument("--python", help="of an environment that has what the scripts need")
    arguments = parser.parse_args()
    failed = False
    for script in arguments.scripts or SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            python = arguments.python or environment(script, folder)
            theirs = run(python, script, under_fulgurite=False)
            ours = run(python, script, under_fulgurite=True)
        equal = json.dumps(theirs) == json.dumps(ours) and "error" not in ours
        failed |= not equal
        print(json.dumps({"script": script, "equal": equal, "lightning": theirs, "fulgurite": ours}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
