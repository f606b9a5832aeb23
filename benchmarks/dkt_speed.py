"""DKT: training interactions per CPU second in length buckets, against the same model padded to 200; one thread.

    DKT_DATA=.../data python benchmarks/dkt_speed.py
    python benchmarks/dkt_speed.py train.csv --epochs 3

The two train in turns, epoch by epoch, with equal hyper-parameters and an equal number of cells in a batch. Without a
file the simulated school is used. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import fulgurite as pl
from dkt.clock import TrainingClock
from dkt.data import Answers, read_answers
from dkt.data.batches import Sequences, sequence_loader
from dkt.data.protocols import protocol_named
from dkt.data.simulate import simulate
from dkt.task import DktTask

PADDED_TO = 200


class PaddedSequences(Sequences):
    """Every batch as wide as the longest chunk can be."""

    def width(self, lengths: Tensor) -> int:
        return PADDED_TO


def loader(task: DktTask, train: Answers, cells: int, padded: bool) -> DataLoader:
    if not padded:
        return sequence_loader(task.sequences(train), cells, shuffle=True)
    sequences = PaddedSequences(train, task.vocabulary, *protocol_named(task.protocol).sequences(train))
    return DataLoader(sequences, batch_size=cells // PADDED_TO, shuffle=True, collate_fn=lambda batch: batch)


def train_one_epoch(train: Answers, cells: int, padded: bool, seed: int) -> TrainingClock:
    """A fresh model, trained for one epoch under the clock."""
    pl.seed_everything(seed, verbose=False)
    task, clock = DktTask.for_training(train), TrainingClock()
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[clock],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, loader(task, train, cells, padded))
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="answers to train on")
    parser.add_argument("--epochs", type=int, default=3, help="measured epochs of each kind")
    parser.add_argument("--cells", type=int, default=3200, help="cells of a batch")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = arguments.data
    if data is None and os.environ.get("DKT_DATA"):
        data = Path(os.environ["DKT_DATA"]) / "assist2009_pid" / "train1.csv"
    train = read_answers(data) if data else simulate()[0]
    speed: dict[bool, list[float]] = {False: [], True: []}
    train_one_epoch(train, arguments.cells, padded=False, seed=0)  # whatever happens once in a process
    for epoch in range(arguments.epochs):
        for padded in (False, True):
            clock = train_one_epoch(train, arguments.cells, padded, seed=epoch)
            speed[padded].append(clock.interactions / clock.cpu_seconds)
    buckets, padded_to_200 = (sorted(speed[kind])[len(speed[kind]) // 2] for kind in (False, True))
    print(
        json.dumps(
            {
                "benchmark": "dkt_speed",
                "data": "simulated school" if data is None else data.name,
                "interactions": len(train),
                "cells_per_batch": arguments.cells,
                "buckets_interactions_per_cpu_s": round(buckets),
                "padded_interactions_per_cpu_s": round(padded_to_200),
                "ratio": round(buckets / padded_to_200, 2),
                "torch": torch.__version__,
                "when": time.strftime("%Y-%m-%d"),
            }
        )
    )


if __name__ == "__main__":
    main()
