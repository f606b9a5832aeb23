"""Twins: students who are another student of the data once more, under another id and often in another order.

Files hold some accounts twice. Where one of the two is learned from and the other is scored, every rate of a question
has counted the very answers that are to be predicted, and a model that remembers students copies them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np
import numpy.typing as npt

from dkt.data.table import TO_PREDICT, Answers, DataError, Ints, cumulated
from dkt.rasch import sigmoid

LEAST = 20  # questions of a student: fewer tell nobody apart
ALIKE = 0.7  # the share of what either of two students answered that both answered alike
SAME = 0.98  # how often twins agree on a question that both have
BY_CHANCE = 1e-6  # pairs so alike that a file of this size may hold without twins
BANDS, WIDTH = 15, 4  # of MinHash: of pairs that are just ALIKE 98% meet in a band, of pairs alike by 0.8 99.9%
NEARLY = 0.5  # twins' hashes are the same as often as they are alike, give or take 0.06
CROWD = 100  # so many students in one band of it are no twins

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Twin:
    """Two students of tables that were looked through together: (number of the table, position in it) of each."""

    one: tuple[int, int]
    other: tuple[int, int]  # in the same table or in a later one
    questions: int  # that both answered
    equal: int  # of these, the same way


def find_twins(*parts: Answers) -> list[Twin]:
    """Pairs of students, within a table or of two, too alike for two people; empty where there are no question ids.

    Alike is who gave the same first answers to the same questions: the Jaccard similarity of the sets of (question,
    answer) is at least 0.7. Candidates are found by MinHash (Broder, 1997), then counted exactly, and kept if one
    student twice explains them better than two of their abilities do, by so much that chance cannot be the reason.
    """
    if any(part.question is None for part in parts):
        return []
    given = _Given.of(parts)
    found = []
    surprise = math.log(max(1, given.n_students * (given.n_students - 1) / 2) / BY_CHANCE)
    for a, b in _candidates(given):
        question, right, again = given.shared(a, b)
        equal = int((right == again).sum())
        if equal < ALIKE * (given.size(a) + given.size(b) - equal):
            continue
        likely = np.where(again, given.chance(b, question), 1 - given.chance(b, question))
        if np.log(np.where(right == again, SAME, 1 - SAME) / likely).sum() >= surprise:
            found.append(Twin(given.place[a], given.place[b], len(question), equal))
    return found


def without_twins(*parts: Answers) -> tuple[Answers, ...]:
    """The same tables with each student once: in the last table that has them, the longer history within a table.

    Give them in the order train, valid, test: what is scored loses only doubles of its own. Each table notes what it
    lost.
    """
    if any(part.question is None for part in parts):
        raise DataError("without question ids nobody can see which students are there twice; there is none to drop.")
    dropped: list[set[int]] = [set() for _ in parts]
    for twin in find_twins(*parts):
        table, student = min(twin.one, twin.other, key=lambda place: (place[0], parts[place[0]].lengths[place[1]]))
        dropped[table].add(student)
    return tuple(_without(part, students) for part, students in zip(parts, dropped, strict=True))


def _without(answers: Answers, students: set[int]) -> Answers:
    if not students:
        return answers
    kept = answers.students(np.setdiff1d(np.arange(answers.n_students), list(students)))
    note = (
        f"{len(students):,} students with {len(answers) - len(kept):,} of {len(answers):,} rows are there twice, under "
        "another id here or in what is chosen and scored by, and were left out"
    )
    return replace(kept, notes=(*kept.notes, note))


@dataclass(frozen=True)
class _Given:
    """First answers of all students of some tables, those of a student together and by ascending question."""

    place: list[tuple[int, int]]  # of each student that has enough: (table, position)
    offsets: Ints  # students + 1
    question: Ints
    right: npt.NDArray[np.bool_]
    ease: npt.NDArray[np.float64]  # [questions] log-odds of a right answer
    ability: npt.NDArray[np.float64]  # [students] log-odds beyond those of all

    @classmethod
    def of(cls, parts: Sequence[Answers]) -> _Given:
        number = {name: i for i, name in enumerate(dict.fromkeys(n for part in parts for n in part.question_names))}
        columns = []
        first_student = 0
        for part in parts:
            assert part.question is not None  # find_twins has looked
            known = part.answer != TO_PREDICT
            code = np.array([number[name] for name in part.question_names], dtype=np.int64)[part.question[known]]
            columns.append(np.stack([first_student + part.student[known], code, part.answer[known]]))
            first_student += part.n_students
        student, question, right = np.concatenate(columns, axis=1)
        _, first = np.unique(student * max(1, len(number)) + question, return_index=True)
        student, question, right = student[first], question[first], right[first]
        enough = np.bincount(student, minlength=first_student) >= LEAST
        kept = enough[student]
        student, question, right = (np.cumsum(enough) - 1)[student[kept]], question[kept], right[kept].astype(bool)
        places = [(i, s) for i, part in enumerate(parts) for s in range(part.n_students)]
        return cls(
            [place for place, there in zip(places, enough, strict=True) if there],
            cumulated(np.bincount(student, minlength=int(enough.sum()))),
            question,
            right,
            _log_odds(question, right, len(number)),
            _log_odds(student, right, int(enough.sum())) - _log_odds(np.zeros_like(student), right, 1),
        )

    @property
    def n_students(self) -> int:
        return len(self.place)

    def size(self, student: int) -> int:
        return int(self.offsets[student + 1] - self.offsets[student])

    def shared(self, a: int, b: int) -> tuple[Ints, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(questions that both answered, how a did, how b did)"""
        mine, theirs = (slice(self.offsets[s], self.offsets[s + 1]) for s in (a, b))
        question, i, j = np.intersect1d(
            self.question[mine], self.question[theirs], assume_unique=True, return_indices=True
        )
        return question, self.right[mine][i], self.right[theirs][j]

    def chance(self, student: int, question: Ints) -> npt.NDArray[np.float64]:
        """The probability that a student of this ability answers such questions right."""
        return sigmoid(self.ease[question] + self.ability[student])


def _log_odds(group: Ints, right: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.float64]:
    """Of a right answer in each of n groups, one invented answer of each kind among them."""
    number, hits = np.bincount(group, minlength=n), np.bincount(group, right, minlength=n)
    return np.asarray(np.log((hits + 1) / (number - hits + 1)))


def _candidates(given: _Given) -> list[tuple[int, int]]:
    """Pairs of students who fall together in some band of MinHash; a crowd in a band is passed over."""
    if given.n_students < 2:
        return []
    answer = _mixed(given.question.astype(np.uint64) * np.uint64(2) + given.right.astype(np.uint64))
    salts = np.random.default_rng(0).integers(1 << 63, size=BANDS * WIDTH, dtype=np.uint64)
    least = np.stack([np.minimum.reduceat(_mixed(answer ^ salt), given.offsets[:-1]) for salt in salts])
    pairs: set[tuple[int, int]] = set()
    for rows in np.split(least, BANDS):
        band = reduce(lambda so_far, row: _mixed(so_far ^ row), rows)
        order = np.argsort(band, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            if 2 <= len(group) <= CROWD:
                pairs.update(combinations(group.tolist(), 2))
    first, second = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    same = np.zeros(len(first), dtype=np.int64)
    for row in least:
        same += row[first] == row[second]
    close = same >= NEARLY * len(least)
    return list(zip(first[close].tolist(), second[close].tolist(), strict=True))


def _mixed(x: Hashes) -> Hashes:
    """Each number scattered over all 64 bits (the finalizer of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: Hashes = x ^ (x >> np.uint64(31))
    return scattered
