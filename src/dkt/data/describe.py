"""What a file of answers holds, and every way in which it would flatter a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dkt.data.merge import merge_repeats
from dkt.data.table import TO_PREDICT, Answers, Bools, Ints
from dkt.data.twins import Twin, find_twins
from dkt.evaluate import auc

TELLS_THE_ANSWER = 0.95  # AUC of a single column from which on it is hardly a cause and more likely a consequence
SAME_HISTORY = {True: 10, False: 40}  # so long a history, with and without question ids, is hardly shared by chance
ROUNDED = 5.1e-4  # a rate written with three digits is this far from itself


def describe(answers: Answers, other: Answers | None = None) -> dict[str, object]:
    """Counts, and the leaks found; `other` is a second part (a test file) that should share no student."""
    known = answers.answer != TO_PREDICT
    found: dict[str, object] = {
        "students": answers.n_students,
        "answers": len(answers),
        "to_predict": int((~known).sum()),
        "right": round(float(answers.answer[known].mean()), 4) if known.any() else None,
        "skills": len(np.unique(answers.skill)),
        "questions": None if answers.question is None else len(np.unique(answers.question)),
        "skills_per_row": round(len(answers.skill) / max(1, len(answers)), 3),
        "length_median": int(np.median(answers.lengths)),
        "length_max": int(answers.lengths.max(initial=0)),
        "has_times": answers.time is not None,
        "further_columns": ", ".join(answers.extra) or None,
    }
    leaks = []
    if answers.question is not None:
        merged = merge_repeats(answers)
        found["repeats"], found["contradicting"] = merged.repeats, merged.contradicting
        if merged.repeats:
            share = merged.repeats / len(answers)
            leaks.append(
                f"{merged.repeats:,} rows ({share:.1%}) ask the question of the row before, and "
                f"{merged.repeats - merged.contradicting:,} of them repeat its answer: quote the leak-free figures, "
                "or merge the rows (--merge)"
            )
    if answers.time is not None:
        found["same_time"] = int((_same_student(answers) & (np.diff(answers.time) == 0)).sum())
    followed = int((_same_student(answers) & ~known[:-1] & known[1:]).sum())
    if followed:
        leaks.append(
            f"{followed:,} rows to be predicted are followed by known answers of the same student: a model that reads "
            "in both directions, or features over whole histories, would use what came later"
        )
    leaks += _columns_that_leak(answers, None)
    tables = [answers] if other is None else [answers, other]
    if all(table.question is not None for table in tables):
        twins = find_twins(*tables)
        found["twins"] = len(twins)
        leaks += _twins_that_leak(twins, tables)
    if other is not None:
        found |= _compare(answers, other, leaks)
        leaks += [f"in the second file, {leak}" for leak in _columns_that_leak(other, answers)]
    found["leaks"] = leaks
    found["notes"] = list(answers.notes)
    return found


def _twins_that_leak(twins: list[Twin], tables: list[Answers]) -> Iterator[str]:
    """Students who are there twice under two ids: within the first table, and in both."""
    for where, text in {
        (0, 0): "pairs of students are twins, {0} and {1} for example: an account that is there twice, under two ids",
        (0, 1): "students of the second file are there in the first too, {1} as {0} for example, under another id",
    }.items():
        pairs = [twin for twin in twins if (twin.one[0], twin.other[0]) == where and _two_ids(twin, tables)]
        if pairs:
            ids = (tables[table].student_names[student] for table, student in (pairs[0].one, pairs[0].other))
            students = {twin.other for twin in pairs} if where[1] else pairs
            yield (
                f"{len(students):,} {text.format(*ids)}, with the same answers to {pairs[0].equal:,} of "
                f"{pairs[0].questions:,} questions both had: no split is clean until one is left out (--drop-twins)"
            )


def _two_ids(twin: Twin, tables: list[Answers]) -> bool:
    """Whether the ids differ, or name nobody; the same id in both files is another leak, told by `_compare`."""
    one, other = (tables[table].student_names[student] for table, student in (twin.one, twin.other))
    return one != other or all(_numbered(table) for table in tables)


def _compare(answers: Answers, other: Answers, leaks: list[str]) -> dict[str, object]:
    """What two parts share, and what only the second one has."""
    found: dict[str, object] = {}
    if _numbered(answers) and _numbered(other):
        found["students_shared"] = "unknown: both files number their students from 0"
    else:
        shared = set(answers.student_names) & set(other.student_names)
        found["students_shared"] = len(shared)
        if shared:
            leaks.append(
                f"{len(shared):,} student ids are in both files, for example {min(shared)}: a model has seen answers "
                "of these students"
            )
    mine, theirs = _histories(answers), _histories(other)
    again = [theirs[history] for history in theirs.keys() & mine.keys()]
    if again:
        leaks.append(
            f"{len(again):,} students of the second file, for example {min(again)}, have exactly the answers of a "
            "student of the first, whatever their ids"
        )
    found["histories_shared"] = len(again)
    new_skill = _is_new(answers.skill_names, answers.skill, other.skill_names)[other.skill]
    found["skills_only_in_second"] = len(np.unique(other.skill[new_skill]))
    if answers.question is not None and other.question is not None:
        new = _is_new(answers.question_names, answers.question, other.question_names)[other.question]
        found["questions_only_in_second"] = len(np.unique(other.question[new]))
        found["rows_of_unseen_questions"] = f"{int(new.sum()):,} ({new.mean():.1%})"
    return found


def _numbered(answers: Answers) -> bool:
    """Whether ids are 0, 1, 2, ..., as line formats without ids get them: they name nobody."""
    return answers.student_names == [str(i) for i in range(answers.n_students)]


def _same_student(answers: Answers) -> Bools:
    """[rows - 1] whether the next row is of the same student."""
    same: Bools = np.diff(answers.student) == 0
    return same


def _is_new(names: list[str], codes: Ints, other_names: list[str]) -> Bools:
    """[other names] which of them no row of the first table has."""
    seen = {names[code] for code in np.unique(codes).tolist()}
    return np.array([name not in seen for name in other_names], dtype=bool)


def _histories(answers: Answers) -> dict[tuple[int, int], str]:
    """Each long enough history, as a hash of what was asked and answered, -> a student who has it."""
    names, codes = (
        (answers.skill_names, answers.skill_matrix()[:, 0])
        if answers.question is None
        else (answers.question_names, answers.question)
    )
    of_name = np.array([hash(name) for name in names], dtype=np.int64)
    asked, given = of_name[codes], np.maximum(answers.answer, 0)
    found = {}
    least = SAME_HISTORY[answers.question is not None]
    spans = zip(answers.student_names, answers.offsets[:-1].tolist(), answers.offsets[1:].tolist(), strict=True)
    for name, a, b in spans:
        if b - a >= least:  # the last answer may be hidden in one of the files
            found[hash(asked[a:b].tobytes()), hash(given[a : b - 1].tobytes())] = name
    return found


def _columns_that_leak(answers: Answers, train: Answers | None) -> Iterator[str]:
    """Further columns that tell the answer, or that are rates which the answers themselves were counted in."""
    known = answers.answer != TO_PREDICT
    for name, values in answers.extra.items():
        if values.dtype.kind not in "iuf":
            continue
        column = values.astype(np.float64)
        there = known & ~np.isnan(column)
        if there.any():
            alone = auc(answers.answer[there].astype(bool), column[there])
            if alone is not None and max(alone, 1 - alone) >= TELLS_THE_ANSWER:
                sure = f"AUC {max(alone, 1 - alone):.4f}"
                yield f"column {name} alone tells the answer ({sure}): it is probably known only after it"
        for group, mine, theirs in _groups(answers, train):
            if _is_rate_of(column, mine, answers, theirs, train):
                yield f"column {name} is the rate of right answers of each {group}, this file's own answers among them"


Group = tuple[str, tuple[list[str], Ints], tuple[list[str], Ints] | None]


def _groups(answers: Answers, train: Answers | None) -> Iterator[Group]:
    """What rates are counted over: (what, names and codes here, names and codes in the training data)."""
    if answers.question is not None:
        seen = None if train is None or train.question is None else (train.question_names, train.question)
        yield "question", (answers.question_names, answers.question), seen
    yield "student", (answers.student_names, answers.student), None


def _is_rate_of(
    column: npt.NDArray[np.float64],
    mine: tuple[list[str], Ints],
    answers: Answers,
    theirs: tuple[list[str], Ints] | None,
    train: Answers | None,
) -> bool:
    """Whether a column holds each group's rate, and the answers of this table (not of training alone) are in it."""
    names, codes = mine
    right, number = _counts(codes, answers, len(names))
    tables = [(right, number)]
    fits_training = 0.0
    if theirs is not None and train is not None:
        place = {name: i for i, name in enumerate(names)}
        code = np.array([place.get(name, len(names)) for name in theirs[0]], dtype=np.int64)[theirs[1]]
        train_right, train_number = (x[:-1] for x in _counts(code, train, len(names) + 1))
        tables.append((right + train_right, number + train_number))
        fits_training = _agreement(column, codes, train_right, train_number)
    best = max(_agreement(column, codes, *table) for table in tables)
    return best >= 0.99 and best > fits_training


def _counts(codes: Ints, answers: Answers, n: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    known = answers.answer != TO_PREDICT
    return np.bincount(codes[known], answers.answer[known], minlength=n), np.bincount(codes[known], minlength=n)


def _agreement(
    column: npt.NDArray[np.float64], codes: Ints, right: npt.NDArray[Any], number: npt.NDArray[Any]
) -> float:
    """The share of rows in which the column is its group's rate; 0 where the rates do not differ."""
    rate = (right / np.maximum(number, 1))[codes]
    there = (number[codes] > 0) & ~np.isnan(column)
    if not there.any() or np.ptp(rate[there]) == 0:
        return 0.0
    return float((np.abs(column - rate) <= ROUNDED)[there].mean())
