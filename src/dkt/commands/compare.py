"""dkt compare: several models on the same rows, one table, one plot."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from dkt.commands.models import MODELS_HELP, add_fitting_arguments, check_settings, model_of
from dkt.commands.shared import (
    FORMATS_HELP,
    Report,
    empty_report,
    positive,
    read_parts,
    report_rows,
)
from dkt.compare import Line, against_best, compare, plot, table
from dkt.data.simulate import TRUTH, simulate
from dkt.data.splits import split_students
from dkt.data.table import Answers

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="+", metavar="MODEL", help=MODELS_HELP)
    command.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="answers to learn from; {fold} stands for 1..folds; left out: a simulated school",
    )
    command.add_argument("--valid", type=Path, metavar="FILE", help="answers that choose when to stop")
    command.add_argument("--test", type=Path, metavar="FILE", help="answers to score; left out: 15%% of the students")
    command.add_argument(
        "--plot", type=Path, default=Path("runs/compare.png"), metavar="FILE", help="drawing of both AUCs of each model"
    )
    command.add_argument("--folds", type=positive, default=5, help="number of folds")
    add_fitting_arguments(command)


def run(arguments: argparse.Namespace) -> Report:
    """Models on one split, or on the folds of files whose names hold {fold}."""
    torch.set_num_threads(arguments.threads)
    check_settings(arguments.models, arguments)
    twice = next((name for name in arguments.models if arguments.models.count(name) > 1), None)
    if twice:
        raise ValueError(f"{twice} is there twice; models are told apart by name, so name each once.")
    for name in arguments.models:
        model_of(name, arguments)  # what is misspelt is said before anything is fitted
    parts = _folds(arguments)
    every = len(parts) * len(arguments.models)
    since, place = time.process_time(), 0

    def told(line: Line) -> None:
        nonlocal place
        place += 1
        spent = time.process_time() - since
        print(f"[{place}/{every}] {line.name}: {line.reports[-1].score} ({spent:.1f} CPU s so far)", flush=True)

    lines = compare(
        arguments.models, lambda name: model_of(name, arguments), parts, arguments.protocol, arguments.seed, told
    )
    difference = against_best(lines, [test for _, _, test in parts], arguments.protocol)
    for k, (_, _, test) in enumerate(parts, start=1):
        if TRUTH in test.extra:
            optimum = report_rows(test, test.extra[TRUTH], arguments.protocol).score
            print(f"optimum (the truth) of test set {k}: {optimum}")
    print(f"protocol {arguments.protocol}, {len(parts)} test set{'s' * (len(parts) > 1)}\n{table(lines, difference)}")
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    plot(lines, arguments.plot)
    print(f"plot: {arguments.plot}")
    return {
        **empty_report(),
        "models": {line.name: [r.as_dict() for r in line.reports] for line in lines},
        "cpu_seconds": {line.name: round(line.cpu_seconds / len(parts), 3) for line in lines},
        "parameters": {line.name: line.parameters for line in lines},
        "difference": difference,
        "plot": str(arguments.plot),
        "seed": arguments.seed,
    }


def _folds(arguments: argparse.Namespace) -> list[tuple[Answers, Answers, Answers]]:
    """The parts to compare on: files named with {fold}, single files, or 70/15/15 of the students of one file."""
    if arguments.data is None:
        if arguments.valid or arguments.test:
            raise ValueError("--valid and --test need --data FILE; without it the simulated school is split.")
        answers, _ = simulate()
        print(f"a simulated school: {answers.n_students:,} students, {len(answers):,} answers")
        train, valid, test = split_students(answers, (0.7, 0.15, 0.15), arguments.seed)
        return [(train, valid, test)]
    if arguments.test is None:
        (answers,) = read_parts([arguments.data], arguments)
        train, valid, test = split_students(answers, (0.7, 0.15, 0.15), arguments.seed)
        return [(train, valid, test)]
    if arguments.valid is None:
        raise ValueError("--test needs --valid: what chooses the epoch may not be what is scored.")
    paths = (arguments.data, arguments.valid, arguments.test)
    numbers = range(1, arguments.folds + 1) if any("{fold}" in str(path) for path in paths) else [1]
    parts = []
    for k in numbers:
        train, valid, test = read_parts([Path(str(path).replace("{fold}", str(k))) for path in paths], arguments)
        parts.append((train, valid, test))
    return parts
