"""dkt ensemble: several models' predictions as one."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dkt.commands.shared import Report, empty_report, write_submission
from dkt.data.table import DataError
from dkt.ensemble import (
    FOLDS,
    OUT_OF_FOLD,
    WAYS,
    Predictions,
    Stacking,
    average,
    check_same_rows,
    rank_average,
    read_predictions,
    stacked_out_of_fold,
)
from dkt.evaluate import Floats, score
from dkt.utils import write_rows

EPILOG = """\
  dkt ensemble dkt.csv trees.csv -o submission.csv                   the mean of submissions
  dkt ensemble dkt.csv trees.csv --how rank --weights 2 1            of their ranks, the first one counting twice
  dkt ensemble dkt_oof.csv trees_oof.csv                             of out-of-fold files: what each way is worth
  dkt ensemble dkt_oof.csv trees_oof.csv --how stack --apply dkt.csv trees.csv -o submission.csv
                                                                     weights learned from the first, used on the second
"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of dkt predict, or of dkt cv --oof")
    command.add_argument("--how", choices=WAYS, default="average", help="how they become one; stack needs the answers")
    command.add_argument("--weights", nargs="+", type=float, metavar="W", help="of average and rank, one for each file")
    command.add_argument(
        "--apply", nargs="+", type=Path, metavar="FILE", help="submissions of the same models, for weights of a stack"
    )
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write the result")


def run(arguments: argparse.Namespace) -> Report:
    files = _files(arguments.files)
    columns = [file.prediction for file in files]
    if arguments.weights and len(arguments.weights) != len(files):
        raise ValueError(f"--weights has {len(arguments.weights)} numbers for {len(files)} files; give one for each.")
    if arguments.weights and (min(arguments.weights) < 0 or sum(arguments.weights) <= 0):
        raise ValueError(f"--weights {arguments.weights} must not be negative, and some must count.")
    if arguments.weights and arguments.how == "stack":
        raise ValueError(f"--weights {arguments.weights}: a stack learns its own; leave them out.")
    right = files[0].right
    if right is None:
        return _of_submissions(arguments, files, columns)
    ways = {
        "average": average(columns, arguments.weights),
        "rank": rank_average(columns, arguments.weights),
    }
    if arguments.how == "stack" or len(set(files[0].student)) >= FOLDS:
        ways["stack"] = stacked_out_of_fold(columns, right, files[0].student)
    figures = {str(file.path): score(right.astype(np.int8), file.prediction, None) for file in files}
    figures |= {way: score(right.astype(np.int8), values, None) for way, values in ways.items()}
    for name, found in figures.items():
        calibration = "" if name == "rank" else f"  log loss {found.log_loss:.4f}  ECE {found.ece:.4f}"
        print(f"{name:<40} AUC {'-' if found.auc is None else f'{found.auc:.4f}'}{calibration}")
    report = {**empty_report(), "models": {name: found.as_dict() for name, found in figures.items()}}
    if arguments.apply:
        others = _files(arguments.apply)
        if len(others) != len(files) or others[0].right is not None:
            raise DataError(f"--apply needs the submissions of the same {len(files)} models, in the same order.")
        if arguments.how != "stack":
            raise ValueError(f"--how {arguments.how} learns nothing to --apply; give the submissions as FILEs.")
        stack = Stacking(columns, right)
        weights = dict(zip(["constant", *map(str, arguments.files)], stack.weights.tolist(), strict=True))
        print("weights: " + "  ".join(f"{name} {weight:+.3f}" for name, weight in weights.items()))
        _write(arguments, stack([other.prediction for other in others]))
        return {**report, "weights": weights, "output": str(arguments.output) if arguments.output else None}
    if arguments.output:
        _write_out_of_fold(arguments.output, files[0], ways[arguments.how])
    return report


def _of_submissions(arguments: argparse.Namespace, files: list[Predictions], columns: list[Floats]) -> Report:
    if arguments.how == "stack" or arguments.apply:
        raise ValueError(
            "submissions do not hold the answers that a stack is learned from; give the out-of-fold files of "
            "`dkt cv --oof` as FILEs and the submissions after --apply."
        )
    made = {"average": average, "rank": rank_average}[arguments.how](columns, arguments.weights)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant column has no correlation
        together = np.corrcoef(np.stack(columns))
    for file, line in zip(files, np.atleast_2d(together), strict=True):
        print(f"{file.path!s:<40} correlation with each: {'  '.join(f'{value:.3f}' for value in line)}")
    _write(arguments, made)
    return {**empty_report(), "predictions": len(made), "output": str(arguments.output) if arguments.output else None}


def _files(paths: list[Path]) -> list[Predictions]:
    files = [read_predictions(path) for path in paths]
    check_same_rows(files)
    return files


def _write(arguments: argparse.Namespace, probability: Floats) -> None:
    if arguments.output is None:
        raise ValueError("name the file to write: -o submission.csv")
    write_submission(arguments.output, probability)
    print(f"{arguments.output}: {len(probability):,} predictions, {arguments.how}")


def _write_out_of_fold(path: Path, first: Predictions, probability: Floats) -> None:
    assert first.right is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = zip(first.keys, first.right.tolist(), probability.tolist(), strict=True)
    write_rows(path, OUT_OF_FOLD, ((student, row, int(right), p) for (student, row), right, p in columns))
    print(f"{path}: {len(probability):,} out-of-fold predictions")
