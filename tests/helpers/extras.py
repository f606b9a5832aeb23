"""Packages that `make test` does not install. A test that needs one says so, and is skipped where it is absent:

    @pytest.mark.needs("lightgbm")

In the full run (`.ci/run` sets FULL_RUN) everything is installed: there a skip is a failure, but for what needs another
machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest

# package: the extra of ours that brings it
EXTRAS = {
    "lightgbm": "trees",
    "optuna": "tune",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "sqlalchemy": "mlflow",
    "comet_ml": "comet",
    "jsonargparse": "cli",
    "typeshed_client": "cli",
    "lightning": "parity",
    "cloudpickle": "everything",
    "onnx": "everything",
    "onnxscript": "everything",
    "pandas": "everything",
    "sklearn": "everything",
}
ANOTHER_MACHINE = re.compile("GPU|CUDA|DKT_DATA")
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def full_run() -> bool:
    return bool(os.environ.get("FULL_RUN"))


def absent(package: str) -> bool:
    assert package in EXTRAS, f"{package}: say in tests/helpers/extras.py which extra brings it"
    return find_spec(package) is None


def kinds_of_model(*names: str) -> list[Any]:
    """Parameters of a test: names of dkt's models, of which some need LightGBM."""
    trees = pytest.mark.needs("lightgbm")
    return [pytest.param(name, marks=trees) if name in ("trees", "hybrid") else name for name in names]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(package, ...): skipped where one of these packages is absent")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    packages = [package for mark in item.iter_markers("needs") for package in mark.args]
    if item.get_closest_marker("parity"):
        packages.append("lightning")
    if lacking := [package for package in packages if absent(package)]:
        pytest.skip(f"needs {', '.join(lacking)}: pip install 'fulgurite[{EXTRAS[lacking[0]]}]'")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return without_skip((yield))


def without_skip(report: Report) -> Report:
    """In the full run, a failure in the place of a skip."""
    if full_run() and report.skipped and not hasattr(report, "wasxfail"):
        assert isinstance(report.longrepr, tuple)
        reason = report.longrepr[2]
        if not ANOTHER_MACHINE.search(reason):
            report.outcome, report.longrepr = "failed", f"skipped, where nothing may be (FULL_RUN is set): {reason}"
    return report
