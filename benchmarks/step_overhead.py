"""Time that a framework adds to one training step of a tiny model, in microseconds over a hand-written loop.

The contenders run in turns of a few hundred steps, many times over; the median of each one's turns counts, so that a
busy machine slows all of them alike, and beside it the quickest turn of each, which had the machine to itself. One
value is logged each step (kept, written nowhere), as in the loop by hand. `--clock cpu` counts the process's own
seconds, for a machine that others use meanwhile.
Prints one line of JSON. `python benchmarks/step_overhead.py --steps 400 --turns 15`
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

warnings.filterwarnings("ignore")
BATCH, WIDTH, CLASSES = 8, 32, 2
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
now = CLOCKS["wall"]


class Batches:
    """The same tensors again and again: loading costs nothing that could hide the rest."""

    def __init__(self, steps: int) -> None:
        self.batch = torch.randn(BATCH, WIDTH), torch.randint(0, CLASSES, (BATCH,))
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.steps)


def raw(steps: int, logs: bool) -> float:
    """The loop that people write: step, zero_grad, a running mean and the last value of the loss."""
    model = nn.Linear(WIDTH, CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    total, count, last = torch.zeros(()), 0, torch.zeros(())
    batches = Batches(steps)
    start = now()
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if logs:
            last = loss.detach()
            total += last * len(y)
            count += len(y)
    return (now() - start) / steps * 1e6


def framework(pl: Any, **extra: Any) -> Callable[[int, bool], float]:
    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self, logs: bool) -> None:
            super().__init__()
            self.layer, self.logs, self.times = nn.Linear(WIDTH, CLASSES), logs, []

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, y = batch
            loss = nn.functional.cross_entropy(self.layer(x), y)
            if self.logs:
                self.log("loss", loss, on_step=True, on_epoch=True, batch_size=BATCH)
            return loss

        def on_train_epoch_start(self) -> None:
            self.times.append(now())

        def on_train_epoch_end(self) -> None:
            self.times.append(now())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    def run(steps: int, logs: bool) -> float:
        off = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        module = Module(logs)
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", devices=1, **{**off, **extra})
        trainer.fit(module, Batches(steps))
        return (module.times[1] - module.times[0]) / steps * 1e6

    return run


def contenders() -> dict[str, Callable[[int, bool], float]]:
    names = {"fulgurite": "fulgurite", "lightning": "lightning.pytorch"}
    found = {k: v for k, v in names.items() if k == "fulgurite" or importlib.util.find_spec("lightning")}
    return {"raw": raw, **{k: framework(importlib.import_module(v)) for k, v in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    global now
    now = CLOCKS[args.clock]
    torch.set_num_threads(1)
    runners = contenders()
    for name in ("lightning.pytorch", "fulgurite"):
        logging.getLogger(name).setLevel(logging.ERROR)
    times: dict[str, list[float]] = {f"{name}{suffix}": [] for name in runners for suffix in ("", "_logged")}
    for turn in range(args.turns + 1):
        for name, run in runners.items():
            for logs, suffix in ((False, ""), (True, "_logged")):
                spent = run(args.steps, logs)
                if turn:  # the first one warms up
                    times[name + suffix].append(spent)
    median = {k: statistics.median(v) for k, v in times.items()}
    least = {k: min(v) for k, v in times.items()}
    over = {
        f"{name}{suffix}": round(
            statistics.median(a - b for a, b in zip(times[name + suffix], times[f"raw{suffix}"])), 1
        )
        for name in runners
        if name != "raw"
        for suffix in ("", "_logged")
    }
    print(
        json.dumps(
            {
                "benchmark": "step_overhead",
                "us_per_step": {k: round(v, 1) for k, v in median.items()},
                "us_over_raw": over,
                "us_over_raw_quickest_turns": {
                    name: round(least[name] - least["raw" + "_logged" * name.endswith("_logged")], 1) for name in over
                },
                "us_raw_quickest_turn": {k: round(v, 1) for k, v in least.items() if k.startswith("raw")},
                "clock": args.clock,
                "steps": args.steps,
                "turns": args.turns,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
