"""The thread that watches a rank, by itself; what it reports is in test_faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch.distributed as dist

from fulgurite.machine.watchdog import Watchdog, _another_connection


def test_its_thread_has_ended_when_it_is_stopped() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    before = threading.active_count()
    watchdog = Watchdog(store, 0, 1, timedelta(seconds=30), [])
    assert threading.active_count() == before + 1
    watchdog.stop()
    assert threading.active_count() == before


@pytest.fixture
def environ() -> Iterator[pytest.MonkeyPatch]:
    """Undone before the check that a test leaves no variables behind."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_store_of_older_torch_is_met_again_where_the_processes_met(environ: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environ.setenv("MASTER_ADDR", "127.0.0.1")
    environ.setenv("MASTER_PORT", str(store.port))
    _another_connection(object()).set("said", "there")  # which has no clone()
    assert store.get("said") == b"there"
