"""Start a script in several real processes, told of one another in torchrun's variables."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

_HEAD = """
import os, sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*(NumPy|Can't initialize NVML|lr_scheduler.step).*")
import torch
torch.set_num_threads(1)
import fulgurite as pl
RANK, WORLD_SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
def answer(value):
    torch.save(value, f"answer-{RANK}.pt.tmp")
    os.replace(f"answer-{RANK}.pt.tmp", f"answer-{RANK}.pt")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(script: str, ranks: int, folder: Path | None = None, seconds: float = 120, fails: bool = False) -> Any:
    """What `script` gives to `answer(...)` on each rank; with `fails` each rank's (exit code, stderr)."""
    folder = Path.cwd() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    (folder / "script.py").write_text(_HEAD + script)
    outputs = [(folder / f"stdout-{rank}").open("w+") for rank in range(ranks)]
    errors = [(folder / f"stderr-{rank}").open("w+") for rank in range(ranks)]
    processes = [
        subprocess.Popen(
            [sys.executable, "script.py"],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=outputs[rank],
            stderr=errors[rank],
        )
        for rank in range(ranks)
    ]
    deadline = time.monotonic() + seconds
    try:
        while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
            time.sleep(0.02)
            if not fails and any(p.poll() for p in processes):
                deadline = min(deadline, time.monotonic() + 5)  # the others wait for it in vain
        late = [rank for rank, p in enumerate(processes) if p.poll() is None]
    finally:
        for p in processes:
            p.kill()
            p.wait()
        said = []
        for stream in (*outputs, *errors):
            stream.seek(0)
            said.append(stream.read())
            stream.close()
    if fails:
        assert not late, f"ranks {late} were still running after {seconds} s: {said[ranks:]}"
        return [(p.returncode, said[ranks + rank]) for rank, p in enumerate(processes)]
    assert not late and not any(p.returncode for p in processes), "\n".join(
        f"--- rank {rank}: {p.returncode}\n{said[rank]}{said[ranks + rank]}" for rank, p in enumerate(processes)
    )
    return [torch.load(folder / f"answer-{rank}.pt", weights_only=False) for rank in range(ranks)]
