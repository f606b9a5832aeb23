"""Every test starts in an empty folder with a fixed seed, and must leave the process as it found it."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fulgurite.utilities import rank_zero
from helpers.extras import (  # noqa: F401  pytest finds its hooks here
    pytest_configure,
    pytest_make_collect_report,
    pytest_runtest_makereport,
    pytest_runtest_setup,
)

torch.set_num_threads(1)

# What `seed_everything` and `deterministic=True` are documented to leave behind: put back, not complained of.
DOCUMENTED = {"PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG"}
# pytest's own, and what torch sets the first time that a process uses it.
FOREIGN = {
    "_RJEM_MALLOC_CONF",  # polars
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "KMP_DUPLICATE_LIB_OK",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "KMP_INIT_AT_FORK",
}
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


def pytest_collection_finish() -> None:
    """What all tests share is not looked through at each of their `gc.collect()`."""
    gc.collect()
    gc.freeze()


def process_state() -> dict[str, object]:
    return {
        "signal handlers": {s.name: signal.getsignal(s) for s in SIGNALS},
        "grad enabled": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "default dtype": torch.get_default_dtype(),
        "torch threads": torch.get_num_threads(),
        "profile function": sys.getprofile() if "coverage" not in sys.modules else None,
        "non-daemon threads": sum(not t.daemon for t in threading.enumerate()),
        "working folder": os.getcwd(),
    }


def deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.fixture(autouse=True)
def leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Police leaks: environment, signal handlers, torch's global switches, threads."""
    random.seed(0)
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rank_zero, "_warned", set())  # what is said once is said once a test
    for name in DOCUMENTED:  # by what a whole module of tests has set up
        monkeypatch.delenv(name, raising=False)
    environment, state = dict(os.environ), process_state()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    algorithms = deterministic()
    yield
    left = {k: v for k, v in os.environ.items() if environment.get(k) != v and k not in FOREIGN}
    gone = environment.keys() - os.environ.keys() - FOREIGN
    changed = {k: (v, now) for k, v in state.items() if (now := process_state()[k]) != v}
    for key in left:
        os.environ.pop(key)
    os.environ.update({k: environment[k] for k in environment.keys() & (left.keys() | gone)})
    if deterministic() != algorithms:  # the call imports half of torch
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
    leaked = {k: v for k, v in left.items() if k not in DOCUMENTED}
    for name, handler in state["signal handlers"].items():  # type: ignore[attr-defined]
        signal.signal(signal.Signals[name], handler)
    assert not leaked and not gone, f"the test left environment variables behind: {leaked}, removed: {gone}"
    assert not changed, f"the test changed the process (before, after): {changed}"
