"""Expanded files made whole: rows that repeat a problem once per skill become one row with a set of skills."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dkt.data.table import Answers, Bools, DataError, cumulated


@dataclass(frozen=True)
class Merged:
    """A table without repeats, and what was merged into it."""

    answers: Answers
    repeats: int  # rows that asked the question of the row before
    contradicting: int  # of these, rows that carried another answer than the first
    why: str = "repeat the question of the row before"

    def __str__(self) -> str:
        return (
            f"{self.repeats:,} of {self.repeats + len(self.answers):,} rows {self.why} and "
            f"were merged into it ({self.contradicting:,} of them with another answer, of which the first is kept)"
        )


def merge_repeats(answers: Answers) -> Merged:
    """One row for each run of rows of a student that ask the same question; its skills are all of theirs."""
    first = answers.leak_free
    if first is None:
        raise DataError("without question ids nobody can see which rows repeat a question; there is nothing to merge.")
    return merge_where(answers, first)


def merge_where(answers: Answers, first: Bools, why: str = Merged.why) -> Merged:
    """One row for each row in `first` and those that follow it; the table notes how many rows that were, and `why`."""
    if first.all():
        return Merged(answers, 0, 0, why)
    run = np.cumsum(first) - 1
    n, n_skills = int(first.sum()), len(answers.skill_names)
    pairs = np.unique(np.repeat(run, answers.skills_per_row) * n_skills + answers.skill)
    kept = answers.answer[first]
    table = replace(
        answers,
        offsets=cumulated(np.bincount(answers.student[first], minlength=answers.n_students)),
        answer=kept,
        skill=pairs % n_skills,
        skill_offsets=cumulated(np.bincount(pairs // n_skills, minlength=n)),
        question=None if answers.question is None else answers.question[first],
        time=None if answers.time is None else answers.time[first],
        extra={name: column[first] for name, column in answers.extra.items()},
    )
    merged = Merged(table, int((~first).sum()), int((answers.answer != kept[run]).sum()), why)
    return replace(merged, answers=replace(table, notes=(*answers.notes, str(merged))))
