"""dkt cv: a model cross-validated by student, with out-of-fold predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from dkt.commands.models import MODELS_HELP, add_fitting_arguments, check_settings, model_of
from dkt.commands.shared import (
    FORMATS_HELP,
    Report,
    empty_report,
    figures_of,
    positive,
    read_parts,
)
from dkt.data.protocols import protocol_named
from dkt.ensemble import OUT_OF_FOLD
from dkt.evaluate import Report as EvaluationReport
from dkt.evaluate import report
from dkt.utils import write_rows

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=MODELS_HELP)
    command.add_argument("--data", type=Path, metavar="FILE", required=True, help="answers of all students")
    command.add_argument("--oof", type=Path, metavar="FILE", help="write each scored row's out-of-fold prediction")
    command.add_argument("--folds", type=positive, default=5, help="number of folds")
    add_fitting_arguments(command)


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    check_settings([arguments.model], arguments)
    (answers,) = read_parts([arguments.data], arguments)
    if arguments.oof:
        arguments.oof.parent.mkdir(parents=True, exist_ok=True)  # a path that cannot be is said before the work
    done = 0

    def told(result: EvaluationReport, seconds: float) -> None:
        nonlocal done
        done += 1
        print(f"fold {done} of {arguments.folds} ({seconds:.1f} CPU s): {result.score}", flush=True)

    found = model_of(arguments.model, arguments).cross_validate(answers, arguments.folds, told)
    whole = report(answers, found.out_of_fold, protocol_named(arguments.protocol), arguments.seed)
    print(f"all students, each by a model of the others:\n{whole}")
    if arguments.oof:
        scored = protocol_named(arguments.protocol).scored(answers)
        nth = np.arange(len(answers)) - np.repeat(answers.offsets[:-1], answers.lengths)
        columns = (answers.student, nth, answers.answer, found.out_of_fold.astype(float))
        rows = zip(*(column[scored].tolist() for column in columns), strict=True)
        write_rows(arguments.oof, OUT_OF_FOLD, ((answers.student_names[s], *row) for s, *row in rows))
        print(f"out-of-fold predictions: {arguments.oof}")
    seconds = [round(value, 3) for value in found.cpu_seconds]
    return {
        **empty_report(),
        "test": figures_of(whole),
        "cpu_seconds": seconds,
        "folds": [r.as_dict() for r in found.reports],
    }
