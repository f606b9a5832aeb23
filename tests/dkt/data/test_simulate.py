"""The simulated school: deterministic, with a truth that fits what it shows."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data import TO_PREDICT, DataError, read_answers
from dkt.data.simulate import TRUTH, simulate, truth_path, with_truth, write_school
from dkt.evaluate import auc, baselines

SMALL = {"students": 120, "questions": 80, "skills": 12, "concepts": 4, "answers_per_student": 30}


def test_the_same_seed_gives_the_same_school_and_another_seed_another():
    (a, truth_a), (b, truth_b), (c, _) = simulate(**SMALL, seed=1), simulate(**SMALL, seed=1), simulate(**SMALL, seed=2)
    assert a.answer.tobytes() == b.answer.tobytes()
    assert a.time.tobytes() == b.time.tobytes()
    assert truth_a.difficulty.tobytes() == truth_b.difficulty.tobytes()
    assert a.answer.tobytes() != c.answer.tobytes()


def test_answers_are_right_as_often_as_their_probability_says():
    answers, _ = simulate(students=1000)
    p = answers.extra[TRUTH]
    for low in np.arange(0, 1, 0.1):
        rows = (p >= low) & (p < low + 0.1)
        if rows.sum() > 500:
            assert answers.answer[rows].mean() == pytest.approx(p[rows].mean(), abs=0.02)


def test_knowing_more_predicts_better_up_to_the_optimum():
    answers, _ = simulate(students=800)
    half = np.arange(800) % 2 == 0
    train, test = answers.students(np.flatnonzero(half)), answers.students(np.flatnonzero(~half))
    found = {name: auc(test.answer.astype(bool), p) for name, p in baselines(train, test).items()}
    found["optimum"] = auc(test.answer.astype(bool), test.extra[TRUTH])
    assert list(found) == ["majority guess", "rate of the skill", "rate of the question", "optimum"]
    assert np.diff(list(found.values())).min() > 0.05


def test_time_passes_within_a_student_and_no_question_is_asked_twice():
    answers, _ = simulate(**SMALL)
    inside = np.diff(answers.student) == 0
    assert (np.diff(answers.time)[inside] > 0).all()
    assert len(set(zip(answers.student.tolist(), answers.question.tolist()))) == len(answers)


def test_some_questions_ask_two_skills_and_concepts_are_fewer_than_skills():
    answers, truth = simulate(**SMALL)
    assert set(answers.skills_per_row.tolist()) == {1, 2}
    assert set(truth.concept_of_skill.tolist()) == {0, 1, 2, 3}


def test_written_files_read_back_with_the_last_test_answer_hidden_and_the_truth_beside(tmp_path):
    answers, truth = simulate(**SMALL)
    paths = write_school(answers, truth, tmp_path)
    train, test = read_answers(paths["train"]), read_answers(paths["test"])
    assert train.n_students + test.n_students == answers.n_students
    assert (test.answer[test.offsets[1:] - 1] == TO_PREDICT).all()
    assert (test.answer == TO_PREDICT).sum() == test.n_students
    own = answers.students(np.array([int(name) for name in train.student_names]))
    assert with_truth(train, truth_path(paths["train"])).extra[TRUTH].tolist() == own.extra[TRUTH].tolist()
    assert train.time.tolist() == own.time.tolist()


def test_a_truth_file_of_other_rows_is_refused(tmp_path):
    answers, truth = simulate(**SMALL)
    paths = write_school(answers, truth, tmp_path)
    with pytest.raises(DataError, match="does not belong to its data file"):
        with_truth(read_answers(paths["train"]), truth_path(paths["test"]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"students": 0}, "students=0 must be at least 1"),
        ({"questions": 3}, "questions=3 must be between 8"),
        ({"skills": 2, "concepts": 5}, "skills=2 is less than concepts=5"),
    ],
)
def test_an_impossible_school_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{**SMALL, **wrong})
