"""The fixed cost of one validation inside fit, in milliseconds: no batch of it takes any time of its own.

Each epoch trains on one batch and validates on one; the time of the same fit without validation is taken off.
Contenders run in turns, the median counts. Prints one line of JSON. `python benchmarks/validation_epoch.py`
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
from typing import Any

import torch
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore")


def milliseconds(pl: Any, epochs: int, validates: bool) -> float:
    class Model(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch).sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.layer(batch).sum())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, num_sanity_val_steps=0, **off)
    data = DataLoader(torch.randn(4, 8), 4)
    start = time.perf_counter()
    trainer.fit(Model(), data, data if validates else None)
    return (time.perf_counter() - start) / epochs * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = {"fulgurite": "fulgurite", "lightning": "lightning.pytorch"}
    packages = {
        k: importlib.import_module(v)
        for k, v in names.items()
        if k == "fulgurite" or importlib.util.find_spec("lightning")
    }
    for name in names.values():
        logging.getLogger(name).setLevel(logging.ERROR)
    seen: dict[str, list[float]] = {k: [] for k in packages}
    for turn in range(args.turns + 1):
        for name, pl in packages.items():
            spent = milliseconds(pl, args.epochs, True) - milliseconds(pl, args.epochs, False)
            if turn:
                seen[name].append(spent)
    cost = {k: round(statistics.median(v), 3) for k, v in seen.items()}
    print(
        json.dumps(
            {"benchmark": "validation_epoch", "ms_per_validation": cost, "epochs": args.epochs, "turns": args.turns}
        )
    )


if __name__ == "__main__":
    main()
