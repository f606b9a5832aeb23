"""The one shape of knowledge-tracing data: a row is a student's answer to a question that asks a *set* of skills.

Skills are an axis of a row, never extra rows: a problem of two skills is one answer, so its label cannot be read one
row earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TO_PREDICT = -1


@dataclass(frozen=True)
class Answers:
    """Answers of many students, a student's rows together and in the order they were given.

    Ids are dictionary-encoded: `question[i]` is a position in `question_names`, and the skills of row `i` are
    `skill[skill_offsets[i]:skill_offsets[i + 1]]`, positions in `skill_names`.
    """

    student_names: list[str]
    offsets: Ints  # students + 1: student s has the rows offsets[s]:offsets[s + 1]
    answer: npt.NDArray[np.int8]  # 1 right, 0 wrong, TO_PREDICT unknown
    skill_names: list[str]
    skill: Ints
    skill_offsets: Ints  # rows + 1
    question_names: list[str] = field(default_factory=list)
    question: Ints | None = None  # None: the file has no question ids
    time: Ints | None = None  # seconds since 1970
    extra: dict[str, npt.NDArray[Any]] = field(default_factory=dict)  # further columns, one value a row
    notes: tuple[str, ...] = ()  # what reading left out or merged, to be said to whoever reads figures

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def n_students(self) -> int:
        return len(self.student_names)

    @property
    def lengths(self) -> Ints:
        """How many answers each student gave."""
        return np.diff(self.offsets)

    @property
    def student(self) -> Ints:
        """The student of each row, as a position in `student_names`."""
        return np.repeat(np.arange(self.n_students), self.lengths)

    @property
    def skills_per_row(self) -> Ints:
        return np.diff(self.skill_offsets)

    @property
    def leak_free(self) -> Bools | None:
        """Rows whose previous row, of the same student, is another question; None where there are no question ids.

        Files that write a problem of two skills as two rows repeat its answer, which a model may copy.
        """
        if self.question is None:
            return None
        fresh = np.ones(len(self), dtype=bool)
        fresh[1:] = self.question[1:] != self.question[:-1]
        fresh[self.offsets[:-1]] = True
        return fresh

    def skill_matrix(self) -> Ints:
        """Skills as a table, one line a row, short sets filled with -1."""
        counts = self.skills_per_row
        table = np.full((len(self), max(1, int(counts.max(initial=0)))), -1, dtype=np.int64)
        table[np.arange(table.shape[1]) < counts[:, None]] = self.skill
        return table

    def in_order(self, rows: Ints) -> Answers:
        """The same table with its rows in another order, which must keep each student's rows where they are."""
        counts = self.skills_per_row[rows]
        offsets = cumulated(counts)
        place = np.repeat(self.skill_offsets[rows] - offsets[:-1], counts) + np.arange(len(self.skill))
        return replace(
            self,
            answer=self.answer[rows],
            skill=self.skill[place],
            skill_offsets=offsets,
            question=None if self.question is None else self.question[rows],
            time=None if self.time is None else self.time[rows],
            extra={name: column[rows] for name, column in self.extra.items()},
        )

    def rows(self, keep: Bools) -> Answers:
        """The same table with the rows of `keep` only; students left without a row are dropped."""
        lengths = np.add.reduceat(keep.astype(np.int64), self.offsets[:-1]) if len(self) else self.lengths
        stay = lengths > 0
        counts = self.skills_per_row
        return replace(
            self,
            student_names=[name for name, kept in zip(self.student_names, stay, strict=True) if kept],
            offsets=cumulated(lengths[stay]),
            answer=self.answer[keep],
            skill=self.skill[np.repeat(keep, counts)],
            skill_offsets=cumulated(counts[keep]),
            question=None if self.question is None else self.question[keep],
            time=None if self.time is None else self.time[keep],
            extra={name: column[keep] for name, column in self.extra.items()},
        )

    def students(self, which: Ints) -> Answers:
        """The rows of the students at the positions `which`, in file order."""
        chosen = np.zeros(self.n_students, dtype=bool)
        chosen[which] = True
        return self.rows(np.repeat(chosen, self.lengths))

    def answered(self) -> Answers:
        """Without the rows whose answer is still to be predicted."""
        known = self.answer != TO_PREDICT
        return self if known.all() else self.rows(known)


def cumulated(lengths: npt.NDArray[Any]) -> Ints:
    """Offsets of groups of these lengths: one more than there are groups, beginning with 0."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def one_skill_each(n: int) -> Ints:
    """`skill_offsets` of a table in which every row asks exactly one skill."""
    return np.arange(n + 1, dtype=np.int64)


def encode_numbers(values: Ints) -> tuple[list[str], Ints]:
    """Numeric ids as (names in ascending order, positions)."""
    distinct, codes = np.unique(values, return_inverse=True)
    return [str(value) for value in distinct.tolist()], codes.astype(np.int64)


def distinct_sets(values: Ints, offsets: Ints, n_values: int) -> tuple[Ints, Ints]:
    """Groups of values without repeats, as (values, offsets); a group that has repeats comes out in ascending order."""
    group = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    key = group * n_values + values
    distinct = np.unique(key)
    if len(distinct) == len(key):
        return values, offsets
    return distinct % n_values, cumulated(np.bincount(distinct // n_values, minlength=len(offsets) - 1))


class DataError(ValueError):
    """A data file that breaks its format; the message says where, what, and what is expected."""
