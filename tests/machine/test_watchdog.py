"""The thread that watches a rank, by itself; what it reports is in test_faults."""

from __future__ import annotations

import threading
from datetime import timedelta

import torch.distributed as dist

from fulgurite.machine.watchdog import Watchdog


def test_its_thread_has_ended_when_it_is_stopped() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    before = threading.active_count()
    watchdog = Watchdog(store, 0, 1, timedelta(seconds=30), [])
    assert threading.active_count() == before + 1
    watchdog.stop()
    assert threading.active_count() == before
