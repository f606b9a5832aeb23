"""Split students, never rows: a student's answers are all in one part."""

from __future__ import annotations

import random

import numpy as np

from dkt.data.table import Answers, DataError, Ints


def split_students(answers: Answers, shares: tuple[float, ...], seed: int = 0) -> tuple[Answers, ...]:
    """Random parts of the students, `shares[i]` of them in part i; the first part takes what is left."""
    order = np.random.default_rng(seed).permutation(answers.n_students)
    sizes = [round(share * answers.n_students) for share in shares[1:]]
    if min(sizes) < 1 or sum(sizes) >= answers.n_students:
        raise DataError(
            f"{answers.n_students} students are too few to split into parts of {shares}; "
            "give the parts as files of their own."
        )
    ends = np.cumsum([answers.n_students - sum(sizes), *sizes])
    return tuple(answers.students(order[end - size : end]) for end, size in zip(ends, [ends[0], *sizes], strict=True))


def course_split(answers: Answers, ratio: float = 0.7, seed: int = 0) -> tuple[Answers, Answers]:
    """The course's split, the same students on each side as its `split_data` with the same seed: train, valid."""
    order = list(range(answers.n_students))
    random.Random(seed).shuffle(order)
    size = int(answers.n_students * ratio)
    return answers.students(np.array(order[:size], dtype=np.int64)), answers.students(
        np.array(order[size:], dtype=np.int64)
    )


def folds_named(answers: Answers, column: str = "fold") -> dict[str, Ints]:
    """The groups of students that a file's own column names, such as pyKT's `fold`: value -> positions."""
    if column not in answers.extra:
        known = ", ".join(answers.extra) or "none"
        raise DataError(f"there is no column {column!r} to split by; further columns of this data: {known}.")
    values = answers.extra[column][answers.offsets[:-1]]
    if (np.repeat(values, answers.lengths) != answers.extra[column]).any():
        raise DataError(f"column {column!r} changes within a student; a fold is a group of whole students.")
    return {str(value): np.flatnonzero(values == value) for value in np.unique(values).tolist()}


def folds_of(answers: Answers, folds: int, seed: int = 0) -> list[Ints]:
    """Random groups of the students, as positions, as equal in size as possible."""
    if not 3 <= folds <= answers.n_students:
        raise ValueError(
            f"folds={folds} must be at least 3 (to learn, to choose, to test) and at most the "
            f"{answers.n_students} students."
        )
    return np.array_split(np.random.default_rng(seed).permutation(answers.n_students), folds)
