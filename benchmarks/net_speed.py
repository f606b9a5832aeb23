"""CPU seconds that an epoch of a net takes, on one thread, by name of dkt's catalogue.

    python benchmarks/net_speed.py train1.csv dkt dkt-r akt-r --set akt-r.dim=128 --share 0.3

A share of the epoch's batches is trained, drawn as in training (lengths mixed), and the rest reckoned by its answers.
Prints one line of JSON a net; the first of each is of a warm process.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import fulgurite as pl
from dkt.clock import TrainingClock
from dkt.commands.shared import setting
from dkt.data import read_answers
from dkt.models.catalogue import model_named
from dkt.models.sequence import SequenceModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="answers to train on")
    parser.add_argument("nets", nargs="+")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NET.NAME=VALUE")
    parser.add_argument("--share", type=float, default=1.0, help="of the epoch's batches")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = read_answers(arguments.data)
    few = train.students(torch.arange(20).numpy())
    for name in arguments.nets:
        own = {key.rpartition(".")[2]: value for key, value in arguments.set if key.rpartition(".")[0] in ("", name)}
        model = model_named(name, **own)
        assert isinstance(model, SequenceModel)
        task, clock = model.new_task(train), TrainingClock()
        learn, choose = model.loaders(task, train, few)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        warm = pl.Trainer(max_steps=3, enable_model_summary=False, accelerator="cpu", **quiet)
        warm.fit(model.new_task(train), learn, choose)
        trainer = pl.Trainer(
            max_epochs=1,
            limit_train_batches=arguments.share,
            callbacks=[clock],
            enable_model_summary=False,
            accelerator="cpu",
            **quiet,
        )
        trainer.fit(task, learn, choose)
        speed = clock.interactions / clock.cpu_seconds
        print(
            json.dumps(
                {
                    "benchmark": "net_speed",
                    "net": name,
                    "settings": own,
                    "parameters": model_parameters(task),
                    "interactions_per_cpu_s": round(speed),
                    "cpu_seconds_per_epoch": round(len(train) / speed, 1),
                    "measured_interactions": clock.interactions,
                    "torch": torch.__version__,
                    "when": time.strftime("%Y-%m-%d"),
                }
            ),
            flush=True,
        )


def model_parameters(task: torch.nn.Module) -> int:
    return sum(p.numel() for p in task.parameters())


if __name__ == "__main__":
    main()
