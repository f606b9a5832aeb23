"""Expanded files made whole: rows that repeat a problem once per skill become one row with a set of skills."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dkt.data.table import Answers, DataError, cumulated


@dataclass(frozen=True)
class Merged:
    """A table without repeats, and what was merged into it."""

    answers: Answers
    repeats: int  # rows that asked the question of the row before
    contradicting: int  # of these, rows that carried another answer than the first

    def __str__(self) -> str:
        return (
            f"{self.repeats:,} of {self.repeats + len(self.answers):,} rows repeat the question of the row before and "
            f"were merged into it ({self.contradicting:,} of them with another answer, of which the first is kept)"
        )


def merge_repeats(answers: Answers) -> Merged:
    """One row for each run of rows of a student that ask the same question; its skills are all of theirs."""
    first = answers.leak_free
    if first is None:
        raise DataError("without question ids nobody can see which rows repeat a question; there is nothing to merge.")
    run = np.cumsum(first) - 1
    run_of_skill = np.repeat(run, answers.skills_per_row)
    pairs = np.unique(np.stack([run_of_skill, answers.skill], axis=1), axis=0)
    lengths = np.bincount(answers.student[first], minlength=answers.n_students)
    kept = answers.answer[first]
    return Merged(
        replace(
            answers,
            offsets=cumulated(lengths),
            answer=kept,
            skill=pairs[:, 1],
            skill_offsets=cumulated(np.bincount(pairs[:, 0], minlength=int(first.sum()))),
            question=None if answers.question is None else answers.question[first],
            time=None if answers.time is None else answers.time[first],
            extra={name: column[first] for name, column in answers.extra.items()},
        ),
        int((~first).sum()),
        int((answers.answer != kept[run]).sum()),
    )
