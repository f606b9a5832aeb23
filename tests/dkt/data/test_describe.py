"""dkt data describe: counts, and each way in which a file would flatter a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dkt.data import TO_PREDICT, Answers
from dkt.data.describe import describe
from dkt.data.merge import merge_repeats
from dkt.data.simulate import TRUTH, simulate

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


@pytest.fixture(scope="module")
def parts():
    answers, _ = simulate(students=60, questions=40, skills=6, concepts=2, answers_per_student=25)
    plain = replace(answers, extra={})
    return plain.students(np.arange(40)), plain.students(np.arange(40, 60))


def leaks(*tables):
    return describe(*tables)["leaks"]


def rate_of_the_question(table, *counted):
    """Each row's rate of right answers of its question, over the rows of `counted`."""
    right = sum(np.bincount(t.question, t.answer, minlength=40) for t in counted)
    number = sum(np.bincount(t.question, minlength=40) for t in counted)
    return (right / np.maximum(number, 1))[table.question]


def test_repeats_and_shared_students_are_named():
    found = describe(TABLE, TABLE)
    assert (found["repeats"], found["students_shared"], found["right"]) == (3, 2, 0.5)
    assert "3 rows (50.0%) ask the question of the row before" in found["leaks"][0]
    assert "2 student ids are in both files" in found["leaks"][1]


def test_nothing_is_found_where_there_is_no_leak(parts):
    assert leaks(merge_repeats(TABLE).answers) == []
    assert leaks(*parts) == []


def test_the_true_probability_is_no_leak():
    answers, _ = simulate(students=60, questions=40, skills=6, concepts=2, answers_per_student=25)
    assert TRUTH in answers.extra
    assert leaks(answers) == []


def test_a_student_under_another_id_is_recognised_by_the_history(parts):
    train, _ = parts
    again = replace(train.students(np.arange(3)), student_names=["x", "y", "z"])
    assert "3 students of the second file, for example x, have exactly the answers of" in leaks(train, again)[0]
    hidden = again.answer.copy()
    hidden[again.offsets[1:] - 1] = TO_PREDICT
    assert "3 students of the second file" in leaks(train, replace(again, answer=hidden))[0]


def test_numbered_students_are_not_taken_for_the_same(parts):
    train, test = parts
    renamed = replace(test, student_names=[str(i) for i in range(test.n_students)])
    found = describe(train, renamed)
    assert found["students_shared"] == "unknown: both files number their students from 0"
    assert found["leaks"] == []


def test_a_rate_counted_with_the_tests_answers_is_named_and_one_of_training_alone_is_not(parts):
    train, test = parts

    def with_rate(*counted):
        return replace(test, extra={"item_rate": rate_of_the_question(test, *counted)})

    message = "in the second file, column item_rate is the rate of right answers of each question"
    assert message in leaks(train, with_rate(train, test))[0]
    assert message in leaks(train, with_rate(test))[0]
    assert leaks(train, with_rate(train)) == []


def test_a_rate_over_a_students_whole_history_is_named(parts):
    train, _ = parts
    mean = np.add.reduceat(train.answer, train.offsets[:-1], dtype=np.float64) / train.lengths
    column = np.round(np.repeat(mean, train.lengths), 3)
    message = "column user_mean is the rate of right answers of each student"
    assert message in leaks(replace(train, extra={"user_mean": column}))[0]


def test_a_column_that_tells_the_answer_is_named(parts):
    train, _ = parts
    attempts = np.where(train.answer == 1, 1, 2 + np.arange(len(train)) % 3).astype(np.float64)
    attempts[::50] = 1
    assert "column attempts alone tells the answer (AUC 0.9" in leaks(replace(train, extra={"attempts": attempts}))[0]


def test_rows_to_predict_before_known_answers_are_named(parts):
    train, _ = parts
    answer = train.answer.copy()
    answer[train.offsets[1:-1] - 1] = TO_PREDICT
    assert leaks(replace(train, answer=answer)) == []
    answer[3] = TO_PREDICT
    assert "1 rows to be predicted are followed by known answers" in leaks(replace(train, answer=answer))[0]


def test_unseen_questions_are_counted():
    first, second = TABLE.students(np.array([0])), TABLE.students(np.array([1]))
    found = describe(replace(second, student_names=["c"]), first)
    assert found["questions_only_in_second"] == 1
    assert found["rows_of_unseen_questions"] == "2 (50.0%)"
    assert found["skills_only_in_second"] == 1
