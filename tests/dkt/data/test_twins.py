"""Students who are there twice under two ids: found whatever the order of their rows, and left out on request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dkt.data import Answers, DataError, find_twins, without_twins
from dkt.data.describe import describe
from dkt.data.simulate import simulate
from helpers.answers import joined


@pytest.fixture(scope="module")
def school() -> Answers:
    """120 students; the last twenty are those of whom a test is made."""
    return simulate(students=120, questions=160, skills=12, concepts=4, answers_per_student=60)[0]


@pytest.fixture(scope="module")
def parts(school: Answers) -> tuple[Answers, Answers]:
    return school.students(np.arange(100)), school.students(np.arange(100, 120))


def again(answers: Answers, student: int, wrong: int = 0, seed: int = 0) -> Answers:
    """One student of `answers` alone, as another account: rows in another order, so many answers changed."""
    alone = answers.students(np.array([student]))
    rng = np.random.default_rng(seed)
    shuffled = alone.in_order(rng.permutation(len(alone)))
    answer = shuffled.answer.copy()
    answer[:wrong] = 1 - answer[:wrong]
    return replace(shuffled, student_names=["again"], answer=answer)


def longest(answers: Answers) -> int:
    return int(answers.lengths.argmax())


def test_an_account_that_is_there_twice_is_found_in_any_order(parts: tuple[Answers, Answers]) -> None:
    train, _ = parts
    student = longest(train)
    questions = len(np.unique(train.students(np.array([student])).question))
    (twin,) = find_twins(train, again(train, student))
    assert (twin.one, twin.other) == ((0, student), (1, 0))
    assert (twin.questions, twin.equal) == (questions, questions)


def test_a_few_different_answers_and_missing_questions_hide_nobody(parts: tuple[Answers, Answers]) -> None:
    train, _ = parts
    student = longest(train)
    other = again(train, student, wrong=3)
    some = other.rows(np.arange(len(other)) < 0.9 * len(other))
    (twin,) = find_twins(train, some)
    assert twin.one == (0, student)
    assert twin.equal == twin.questions - 3


def test_a_school_without_double_accounts_has_no_twins() -> None:
    assert find_twins(simulate(students=400)[0]) == []
    same_questions, _ = simulate(students=400, questions=48, answers_per_student=200)
    assert find_twins(same_questions) == []


def test_two_students_who_know_everything_are_not_one(parts: tuple[Answers, Answers]) -> None:
    train, _ = parts
    student = longest(train)
    strong = train.answer.copy()
    strong[train.offsets[student] : train.offsets[student + 1]] = 1
    table = replace(train, answer=strong)
    (twin,) = find_twins(train, again(train, student))
    assert twin.equal == twin.questions, "the same rows with their own answers are an account that is there twice"
    assert find_twins(table, again(table, student)) == []


def test_what_is_scored_stays_whole_and_training_loses_its_twins(parts: tuple[Answers, Answers]) -> None:
    train, test = parts
    student = longest(test)
    copied = again(test, student)
    both = joined(train, copied)
    cleaned, scored = without_twins(both, test)
    assert scored is test
    assert cleaned.student_names == train.student_names
    assert f"1 students with {len(copied)} of {len(both):,} rows are there twice" in cleaned.notes[-1]


def test_within_a_table_the_longer_history_stays(parts: tuple[Answers, Answers]) -> None:
    train, _ = parts
    student = longest(train)
    copied = again(train, student)
    shorter = copied.rows(np.arange(len(copied)) < 0.9 * len(copied))
    (cleaned,) = without_twins(joined(train, shorter))
    assert cleaned.student_names == train.student_names


def test_without_question_ids_nobody_can_tell(parts: tuple[Answers, Answers]) -> None:
    blind = replace(parts[0], question=None, question_names=[])
    assert find_twins(blind, blind) == []
    with pytest.raises(DataError, match="without question ids nobody can see which students are there twice"):
        without_twins(blind)


def test_describe_names_twins_within_a_file_and_between_two(parts: tuple[Answers, Answers]) -> None:
    train, test = parts
    plain = replace(joined(train, again(train, longest(train))), extra={})
    found = describe(plain)
    assert found["twins"] == 1
    assert "1 pairs of students are twins" in found["leaks"][0]
    between = describe(replace(joined(train, again(test, longest(test))), extra={}), replace(test, extra={}))
    assert not any("under another id" in leak for leak in describe(test, test)["leaks"]), "the id is the same"
    name = test.student_names[longest(test)]
    assert f"1 students of the second file are there in the first too, {name} as again" in between["leaks"][0]
