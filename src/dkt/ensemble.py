"""Several models' predictions as one: their mean, the mean of their ranks, or weights learned from out-of-fold rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dkt.data.table import Bools, DataError
from dkt.evaluate import Floats
from dkt.models.logistic import logistic_regression
from dkt.rasch import sigmoid

WAYS = ("average", "rank", "stack")
FOLDS = 5  # of students, by which a stack is judged
SUBMISSION = ("id", "prediction")
OUT_OF_FOLD = ("student", "row", "answer", "prediction")


@dataclass(frozen=True)
class Predictions:
    """One file: what `dkt predict` wrote for each student, or `dkt cv --oof` for each row, its answer beside it."""

    path: Path
    keys: list[tuple[str, ...]]  # (id,) or (student, row)
    prediction: Floats
    right: Bools | None  # of out-of-fold files

    @property
    def student(self) -> list[str]:
        return [key[0] for key in self.keys]


def read_predictions(path: Path) -> Predictions:
    """A submission or an out-of-fold file, told apart by its header."""
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    header = tuple(frame.columns)
    if header not in (SUBMISSION, OUT_OF_FOLD):
        raise DataError(
            f"{path} has the columns {','.join(header)}; a submission has {','.join(SUBMISSION)} (dkt predict), an "
            f"out-of-fold file {','.join(OUT_OF_FOLD)} (dkt cv --oof)."
        )
    prediction = frame["prediction"].cast(pl.Float64, strict=False)
    bad = np.flatnonzero(~prediction.is_between(0, 1).fill_null(False).to_numpy())
    if len(bad):
        raise DataError(f"{path}:{bad[0] + 2}: prediction {frame['prediction'][int(bad[0])]!r} is not between 0 and 1.")
    keys = list(zip(*(frame[name].to_list() for name in header if name in ("id", "student", "row")), strict=True))
    right = frame["answer"].to_numpy().astype(str) == "1" if header == OUT_OF_FOLD else None
    return Predictions(path, keys, prediction.to_numpy(), right)


def check_same_rows(files: Sequence[Predictions]) -> None:
    """Raise unless all files speak of the same rows in the same order."""
    first = files[0]
    for other in files[1:]:
        if (first.right is None) != (other.right is None):
            raise DataError(f"{first.path} and {other.path} are a submission and an out-of-fold file; give one kind.")
        if len(first.keys) != len(other.keys):
            raise DataError(f"{first.path} has {len(first.keys):,} rows and {other.path} {len(other.keys):,}.")
        for line, (one, two) in enumerate(zip(first.keys, other.keys, strict=True), start=2):
            if one != two:
                raise DataError(
                    f"line {line}: {first.path} is about {' '.join(one)}, {other.path} about {' '.join(two)}."
                )


def average(columns: Sequence[Floats], weights: Sequence[float] | None = None) -> Floats:
    """The mean of probabilities: as calibrated as they are."""
    return np.asarray(np.average(np.stack(columns), axis=0, weights=weights))


def rank_average(columns: Sequence[Floats], weights: Sequence[float] | None = None) -> Floats:
    """The mean of ranks, in (0, 1): what counts for an AUC, also where scales differ; no longer a probability."""
    return average([(_mean_rank(column) + 0.5) / len(column) for column in columns], weights)


class Stacking:
    """A logistic regression on the log-odds of each model, learned from out-of-fold rows."""

    def __init__(self, columns: Sequence[Floats], right: Bools) -> None:
        self.weights = logistic_regression(_design(columns), right.astype(np.float64), 1.0)

    def __call__(self, columns: Sequence[Floats]) -> Floats:
        return sigmoid(_design(columns) @ self.weights)


def stacked_out_of_fold(columns: Sequence[Floats], right: Bools, student: Sequence[str], folds: int = FOLDS) -> Floats:
    """What the stack is worth: each student's rows by weights that other students' rows gave."""
    _, who = np.unique(np.asarray(student), return_inverse=True)
    if int(who.max(initial=0)) + 1 < folds:
        raise DataError(f"{int(who.max(initial=0)) + 1} students are too few to learn the weights of a stack.")
    fold = np.random.default_rng(0).permutation(int(who.max()) + 1)[who] % folds
    found = np.empty(len(right))
    for k in range(folds):
        here = fold == k
        found[here] = Stacking([c[~here] for c in columns], right[~here])([c[here] for c in columns])
    return found


def _design(columns: Sequence[Floats]) -> Floats:
    clipped = [np.clip(column.astype(np.float64), 1e-6, 1 - 1e-6) for column in columns]
    return np.stack([np.ones(len(clipped[0])), *(np.log(p / (1 - p)) for p in clipped)], axis=1)


def _mean_rank(values: Floats) -> Floats:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count + 1) / 2)[place])
