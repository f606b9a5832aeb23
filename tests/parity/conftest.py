"""Importing Lightning takes seconds: these files are collected only where the parity marker is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.extras import absent, full_run


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    unwanted = "not parity" in config.getoption("markexpr") or (absent("lightning") and not full_run())
    return True if unwanted and collection_path.name.startswith("test_") else None
