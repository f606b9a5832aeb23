"""Every public name of Lightning is ours too, or says what to use instead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.parity
SRC = Path(__file__).parents[2] / "src"
THEIRS = """
import importlib, inspect, json, pkgutil, warnings
warnings.simplefilter("ignore")
import lightning.fabric, lightning.pytorch
found = {}
for root in (lightning.pytorch, lightning.fabric):
    for name in [root.__name__, *[m.name for m in pkgutil.walk_packages(root.__path__, root.__name__ + ".")]]:
        if any(part.startswith("_") for part in name.split(".")) or name in ("lightning.fabric.cli",):
            continue
        module = importlib.import_module(name)
        own = {n for n, v in vars(module).items()
               if (inspect.isclass(v) or inspect.isfunction(v)) and v.__module__ == name}
        found[name] = sorted(n for n in own | set(getattr(module, "__all__", [])) if not n.startswith("_"))
print(json.dumps(found))
"""
OURS = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
import fulgurite.compat
fulgurite.compat.install_alias()
for module, names in json.load(sys.stdin).items():
    for name in names:
        try:
            exec(f"from {module} import {name}")
        except ImportError as error:
            if "fulgurite has no" not in str(error):
                print(f"{module}.{name}: {error}")
"""
ELSEWHERE = {"lightning.fabric.utilities.ThroughputMonitor", "lightning.fabric.utilities.throughput.ThroughputMonitor"}


def run(code: str, given: str = "", **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_here_or_says_what_to_use() -> None:
    theirs = run(THEIRS).splitlines()[-1]
    assert sum(map(len, json.loads(theirs).values())) > 400
    lacking = [
        line for line in run(OURS, theirs, PYTHONPATH=str(SRC)).splitlines() if line.split(":")[0] not in ELSEWHERE
    ]
    assert lacking == []
