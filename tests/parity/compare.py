"""The one assertion of the parity tests: a setting looks the same with both packages."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as theirs
import pytest

from parity.harness import Case, differences, play

# PARITY_OURS=lightning.pytorch plays Lightning against itself: what differs then is the harness's fault.
ours = importlib.import_module(os.environ.get("PARITY_OURS", "fulgurite"))


def assert_same(case: Case, root: Path, watch: bool) -> None:
    expected = play(theirs, case, root / "theirs", watch)
    seen = play(ours, case, root / "ours", watch)
    assert expected.get("error") == case.raises, expected.get("traceback") or f"Lightning raised no {case.raises}"
    if case.raises:  # how far each got before it noticed is its own affair
        assert seen.get("error") == case.raises, seen.get("traceback") or "no error"
        return
    found = differences(expected, seen, case.ignore)
    assert not found, "\n".join([*found, seen.get("traceback", "")])


def settings(cases: dict[str, Case]) -> Any:
    """Each setting twice: with every hook overridden and recorded, and with none but those that it uses."""

    @pytest.mark.parity
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("watch", [True, False], ids=["every hook", "bare"])
    @pytest.mark.parametrize("name", cases)
    def test(name: str, watch: bool, tmp_path: Path) -> None:
        assert_same(cases[name], tmp_path, watch)

    return test
