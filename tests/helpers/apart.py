"""Run a vendor's library in a process of its own: they start threads, set variables and write to the home folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_TINY = """
import json, sys, warnings
warnings.simplefilter("ignore")
from helpers.tiny import Tiny, data, fit
"""


def run_apart(script: str, **environment: str) -> Any:
    """What `script` gives to `answer(...)`, as JSON; the script has `Tiny` and `fit` and sits in the test's folder."""
    here = Path.cwd()
    answer = "def answer(value): open('answer.json', 'w').write(json.dumps(value))\n"
    done = subprocess.run(
        [sys.executable, "-c", _TINY + answer + script],
        env={**os.environ, "HOME": str(here), "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        cwd=here,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((here / "answer.json").read_text())
