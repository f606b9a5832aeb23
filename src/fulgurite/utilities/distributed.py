"""Questions about the machines that run together."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import torch


def is_shared_filesystem(strategy: Any, path: str | Path | None = None, timeout: int = 3) -> bool:
    """Whether all processes see the same files under `path` (default: the working folder). Every rank must ask."""
    folder = Path.cwd() if path is None else Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist on rank {strategy.global_rank}, so it cannot be examined.")
    if strategy.world_size == 1:
        return True
    folder = folder if folder.is_dir() else folder.parent
    mark = folder / strategy.broadcast(f".fulgurite-{uuid.uuid4().hex}")
    if strategy.global_rank == 0:
        mark.touch()
    strategy.barrier()
    deadline = time.monotonic() + timeout
    while not (seen := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)  # a network file system may be late
    share = strategy.reduce(torch.tensor(float(seen), device=strategy.root_device), reduce_op="mean")
    strategy.barrier()
    if strategy.global_rank == 0:
        mark.unlink(missing_ok=True)
    return bool(share == 1)
