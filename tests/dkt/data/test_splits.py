"""Splitting by student."""

from __future__ import annotations

import pytest

from dkt.data import DataError
from dkt.data.simulate import simulate
from dkt.data.splits import split_students


@pytest.fixture(scope="module")
def answers():
    return simulate(students=20, questions=80, skills=12, concepts=4, answers_per_student=10)[0]


def test_parts_share_no_student_and_miss_none(answers):
    parts = split_students(answers, (0.7, 0.15, 0.15))
    assert [part.n_students for part in parts] == [14, 3, 3]
    assert sorted(int(name) for part in parts for name in part.student_names) == list(range(20))


def test_the_same_seed_gives_the_same_parts(answers):
    first, again, other = (split_students(answers, (0.5, 0.5), seed)[1].student_names for seed in (0, 0, 1))
    assert first == again != other


def test_too_few_students_to_split_is_an_error(answers):
    with pytest.raises(DataError, match="20 students are too few"):
        split_students(answers, (0.99, 0.01))
