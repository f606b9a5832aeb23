"""The tidy table: rows, students, repeats, skill sets."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data import Answers


@pytest.fixture
def answers() -> Answers:
    return Answers(
        student_names=["a", "b"],
        offsets=np.array([0, 3, 5]),
        answer=np.array([1, 0, 0, 1, -1], dtype=np.int8),
        skill_names=["x", "y"],
        skill=np.array([0, 0, 1, 1, 0, 1]),
        skill_offsets=np.array([0, 1, 3, 4, 5, 6]),
        question_names=["p", "q"],
        question=np.array([0, 1, 1, 1, 0]),
        extra={"test": np.array(list("12345"))},
    )


def test_leak_free_rows_are_those_whose_previous_row_of_the_student_is_another_question(answers):
    assert answers.leak_free.tolist() == [True, True, False, True, True]


def test_a_skill_set_becomes_a_filled_line(answers):
    assert answers.skill_matrix().tolist() == [[0, -1], [0, 1], [1, -1], [0, -1], [1, -1]]


def test_choosing_students_keeps_all_columns_of_their_rows(answers):
    second = answers.students(np.array([1]))
    assert second.student_names == ["b"]
    assert second.offsets.tolist() == [0, 2]
    assert second.answer.tolist() == [1, -1]
    assert second.skill_matrix().tolist() == [[0], [1]]
    assert second.extra["test"].tolist() == ["4", "5"]


def test_rows_to_be_predicted_are_left_out_and_students_without_rows_with_them(answers):
    assert answers.answered().answer.tolist() == [1, 0, 0, 1]
    none_of_the_first = answers.rows(np.array([False, False, False, True, True]))
    assert none_of_the_first.student_names == ["b"]
