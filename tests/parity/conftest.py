"""Importing Lightning takes seconds: these files are collected only where the parity marker is asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    unwanted = "not parity" in config.getoption("markexpr") or importlib.util.find_spec("lightning") is None
    return True if unwanted and collection_path.name.startswith("test_") else None
