"""dkt compare: several models on the same rows, one table, one plot."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dkt.commands.models import MODELS_HELP, add_model_arguments, check_of_nets, model_of
from dkt.commands.shared import (
    FORMATS_HELP,
    Report,
    add_format,
    add_merge,
    add_threads,
    empty_report,
    positive,
    read_merged,
)
from dkt.compare import against_best, compare, plot, table
from dkt.data.splits import split_students
from dkt.data.table import Answers

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="+", metavar="MODEL", help=MODELS_HELP)
    command.add_argument("--data", type=Path, metavar="FILE", help="answers to learn from; {fold} stands for 1..folds")
    command.add_argument("--valid", type=Path, metavar="FILE", help="answers that choose when to stop")
    command.add_argument("--test", type=Path, metavar="FILE", help="answers to score; left out: 15%% of the students")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw both AUCs of each model")
    command.add_argument("--folds", type=positive, default=5, help="number of folds")
    add_merge(command)
    add_model_arguments(command)
    add_format(command)
    add_threads(command)


def run(arguments: argparse.Namespace) -> Report:
    """Models on one split, or on the folds of files whose names hold {fold}."""
    torch.set_num_threads(arguments.threads)
    check_of_nets(arguments.models, arguments)
    parts = _folds(arguments)
    lines = compare(arguments.models, lambda name: model_of(name, arguments), parts, arguments.protocol, arguments.seed)
    difference = against_best(lines, [test for _, _, test in parts], arguments.protocol)
    print(f"protocol {arguments.protocol}, {len(parts)} test set{'s' * (len(parts) > 1)}\n{table(lines, difference)}")
    if arguments.plot:
        plot(lines, arguments.plot)
        print(f"plot: {arguments.plot}")
    figures = {line.name: [r.as_dict() for r in line.reports] for line in lines}
    return {**empty_report(), "models": figures, "difference": difference, "seed": arguments.seed}


def _folds(arguments: argparse.Namespace) -> list[tuple[Answers, Answers, Answers]]:
    """The parts to compare on: files named with {fold}, single files, or 70/15/15 of the students of one file."""
    if arguments.data is None:
        raise ValueError("name the answers with --data FILE; `dkt simulate DIR` writes some.")
    if arguments.test is None:
        train, valid, test = split_students(read_merged(arguments.data, arguments), (0.7, 0.15, 0.15), arguments.seed)
        return [(train, valid, test)]
    if arguments.valid is None:
        raise ValueError("--test needs --valid: what chooses the epoch may not be what is scored.")
    paths = (arguments.data, arguments.valid, arguments.test)
    numbers = range(1, arguments.folds + 1) if any("{fold}" in str(path) for path in paths) else [1]
    parts = []
    for k in numbers:
        train, valid, test = (read_merged(Path(str(path).replace("{fold}", str(k))), arguments) for path in paths)
        parts.append((train, valid, test))
    return parts
