"""Merging expanded rows: a problem of two skills is one row, and every merged row is counted."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data import Answers, DataError
from dkt.data.merge import merge_repeats

TABLE = Answers(
    student_names=["a", "b"],
    offsets=np.array([0, 4, 6]),
    answer=np.array([1, 1, 0, 1, 0, 0], dtype=np.int8),
    skill_names=["x", "y", "z"],
    skill=np.array([1, 0, 2, 2, 2, 0]),
    skill_offsets=np.arange(7),
    question_names=["p", "q"],
    question=np.array([0, 0, 1, 1, 1, 1]),
    time=np.arange(6),
)


def test_a_run_of_rows_of_one_question_becomes_one_row_with_all_its_skills():
    merged = merge_repeats(TABLE)
    table = merged.answers
    assert (merged.repeats, merged.contradicting) == (3, 1)
    assert table.answer.tolist() == [1, 0, 0]
    assert [table.skill[a:b].tolist() for a, b in zip(table.skill_offsets, table.skill_offsets[1:])] == [
        [0, 1],
        [2],
        [0, 2],
    ]
    assert (table.offsets.tolist(), table.time.tolist()) == ([0, 2, 3], [0, 2, 4])
    assert table.leak_free.all()


def test_runs_end_with_their_student():
    assert merge_repeats(TABLE).answers.question.tolist() == [0, 1, 1]


def test_merging_again_changes_nothing():
    assert merge_repeats(merge_repeats(TABLE).answers).repeats == 0


def test_without_question_ids_there_is_nothing_to_merge():
    with pytest.raises(DataError, match="without question ids"):
        merge_repeats(Answers(**{**vars(TABLE), "question": None}))
