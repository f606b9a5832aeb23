"""Causal features: the future never moves the past, live equals batch, training rows do not know themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkt.data import Answers
from dkt.data.protocols import PROTOCOLS
from dkt.data.simulate import simulate
from dkt.features import FEATURES, NAMES, Bank, FeatureSet, LiveFeatures, compute

SKILLS, QUESTIONS = 4, 5
SCHOOL, _ = simulate(students=40, questions=24, skills=6, concepts=3, answers_per_student=15)
BANK = Bank.of(SCHOOL)


def table(rows: list[tuple[int, int, int, int]]) -> Answers:
    """One student's (answer, question, first skill, second skill)."""
    answer, question, first, second = map(np.array, zip(*rows))
    sets = [sorted({a, b}) for a, b in zip(first, second)]
    return Answers(
        student_names=["s"],
        offsets=np.array([0, len(rows)]),
        answer=answer.astype(np.int8),
        skill_names=[str(k) for k in range(1, SKILLS + 1)],
        skill=np.concatenate(sets),
        skill_offsets=np.cumsum([0, *map(len, sets)]),
        question_names=[SCHOOL.question_names[i] for i in range(QUESTIONS)],
        question=question,
        time=np.arange(len(rows)) ** 2,
    )


def features_of(answers: Answers):
    return compute(answers, answers.offsets[:-1], answers.lengths, BANK.items(answers))


A_ROW = st.tuples(st.integers(0, 1), st.integers(0, QUESTIONS - 1), *[st.integers(0, SKILLS - 1)] * 2)
LIVES = st.lists(A_ROW, min_size=2, max_size=25)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(life=LIVES, other=LIVES, data=st.data())
def test_changing_the_future_never_changes_the_features_of_the_past(name, life, other, data):
    t = data.draw(st.integers(0, len(life) - 1))
    answer, *asked = life[t]
    changed = [*life[:t], (1 - answer, *asked), *other]  # from the answer at t on, everything is another
    column = NAMES.index(name)
    before, after = features_of(table(life)), features_of(table(changed))
    assert np.array_equal(before[: t + 1, column], after[: t + 1, column], equal_nan=True)


@settings(max_examples=12, deadline=None)
@given(life=LIVES)
def test_a_live_student_has_the_features_of_the_table(life):
    answers, live = table(life), LiveFeatures(BANK)
    batch, names = features_of(answers), np.array(answers.skill_names)
    for i, (right, question, *_) in enumerate(life):
        skills = names[answers.skill[answers.skill_offsets[i] : answers.skill_offsets[i + 1]]].tolist()
        asked = (answers.question_names[question], skills, float(answers.time[i]))
        np.testing.assert_allclose(live.features(*asked), batch[i], rtol=1e-5, atol=1e-6)
        live.answer(asked[0], skills, bool(right), asked[2])


def test_features_of_a_student_do_not_depend_on_who_else_is_in_the_table():
    some = SCHOOL.students(np.array([3, 17]))
    whole, part = features_of(SCHOOL), features_of(some)
    assert np.array_equal(part, whole[np.isin(SCHOOL.student, [3, 17])], equal_nan=True)


def test_a_training_row_knows_nothing_of_its_own_answers():
    cut = PROTOCOLS["akt"].sequences(SCHOOL)
    mine = SCHOOL.student == 5
    turned = replace(SCHOOL, answer=np.where(mine, 1 - SCHOOL.answer, SCHOOL.answer).astype(np.int8))
    first = np.flatnonzero(mine)[0]
    before, after = FeatureSet().fit_transform(SCHOOL, *cut), FeatureSet().fit_transform(turned, *cut)
    assert np.array_equal(before[first], after[first], equal_nan=True)


def test_rows_to_predict_are_described_and_not_remembered():
    asked = SCHOOL.students(np.array([0]))
    hidden = asked.answer.copy()
    hidden[4] = -1
    table = features_of(replace(asked, answer=hidden))
    assert table[5, NAMES.index("student_count")] == 4
    assert table[4, NAMES.index("student_count")] == 4


def test_features_need_a_bank():
    with pytest.raises(ValueError, match="call fit_transform with the training data first"):
        FeatureSet().transform(SCHOOL, *PROTOCOLS["akt"].sequences(SCHOOL))


def test_known_values_of_a_short_life():
    rows = features_of(table([(1, 0, 0, 0), (1, 0, 0, 0), (0, 1, 1, 1), (1, 0, 0, 0)]))
    column = dict(zip(NAMES, rows.T))
    assert column["student_count"].tolist() == [0, 1, 2, 3]
    assert column["streak"].tolist() == [0, 1, 2, -1]
    assert column["same_question"].tolist() == [0, 1, 0, 0]
    assert column["attempts"].tolist() == [0, 1, 0, 2]
    assert column["steps_since_skill"][[1, 3]].tolist() == [1, 2]
    assert np.isnan(column["last_on_skill"][[0, 2]]).all()
    assert column["mean_of_last_3"][3] == pytest.approx(2 / 3)
    assert set(FEATURES) == set(column)
