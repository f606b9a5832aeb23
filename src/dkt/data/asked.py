"""The row of each student whose answer is to be predicted, and what may be known when it is."""

from __future__ import annotations

import numpy as np

from dkt.data.table import TO_PREDICT, Answers, DataError, Ints


def until_asked(answers: Answers, longest: int) -> Answers:
    """Each student's row to be predicted as the last one, with at most `longest - 1` rows before it."""
    row = asked_rows(answers)
    place, end = np.arange(len(answers)), np.repeat(row, answers.lengths)
    return answers.rows((place <= end) & (place > end - longest))


def asked_rows(answers: Answers) -> Ints:
    """[students] each student's row to be predicted; exactly one, or the submission's ids would be ambiguous."""
    asked = answers.answer == TO_PREDICT
    if not asked.any():
        raise DataError(
            f"no row has answerCode {TO_PREDICT}, so there is nothing to predict; `dkt evaluate` scores known answers."
        )
    per_student = np.bincount(answers.student[asked], minlength=answers.n_students)
    wrong = np.flatnonzero(per_student != 1)
    if len(wrong):
        name, n = answers.student_names[wrong[0]], per_student[wrong[0]]
        raise DataError(
            f"student {name} has {n} rows with answerCode {TO_PREDICT} ({len(wrong)} such students); "
            "the course's submission has one line a student, so exactly one row of each is to be predicted."
        )
    return np.flatnonzero(asked)
