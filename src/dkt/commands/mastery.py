"""dkt mastery: what a student knows, as a table and a heat map."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from dkt.commands.shared import FORMATS_HELP, Report, add_format, add_threads, empty_report, read
from dkt.mastery import draw, mastery, write_csv
from dkt.models.catalogue import load_model

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="what dkt train or model.save wrote")
    command.add_argument("data", type=Path, help="file of answers")
    command.add_argument("--student", required=True, metavar="ID", help="whose answers are read")
    command.add_argument("--skills", nargs="+", metavar="SKILL", help="left out: those the student was asked")
    command.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where mastery_ID.csv and mastery_ID.png are written"
    )
    add_format(command)
    add_threads(command)


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.checkpoint)
    found = mastery(model, read(arguments.data, arguments.format), arguments.student, arguments.skills)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = arguments.student.replace("/", "_")
    table, picture = (arguments.out / f"mastery_{name}.{kind}" for kind in ("csv", "png"))
    write_csv(found, table)
    draw(found, picture)
    low, high = found.interval()
    print(f"student {found.student}: {len(found.right)} answers, {np.mean(found.right):.0%} right, by {model.title}")
    print(f"{'skill':<24}{'attempts':>9}{'knows':>8}{'95%':>16}{'at first':>10}")
    for j in np.argsort(found.probability[-1]):
        interval = f"{low[-1, j]:.2f} to {high[-1, j]:.2f}"
        now, first = found.probability[-1, j], found.probability[0, j]
        print(f"{found.skills[j]:<24}{found.attempts[-1, j]:>9}{now:>8.2f}{interval:>16}{first:>10.2f}")
    print(f"{table}, {picture}")
    knows = dict(zip(found.skills, found.probability[-1].tolist(), strict=True))
    return {**empty_report(), "student": found.student, "mastery": knows, "output": [str(table), str(picture)]}
