"""Elo, IRT, PFA, BKT: better than the skill's rate, from the past only, and BKT finds the numbers it was made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dkt.data import Answers
from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.evaluate import auc, baselines
from dkt.models.bkt import BKT
from dkt.models.elo import Elo
from dkt.models.logistic import IRT, PFA, logistic_regression

TRAIN, TEST = split_students(simulate(students=240, questions=40, skills=8, concepts=3)[0], (0.7, 0.3))


@pytest.fixture(scope="module", params=[Elo, IRT, PFA, BKT])
def model(request):
    return request.param().fit(TRAIN)


def test_better_than_the_rate_of_the_skill(model):
    right = TEST.answer.astype(bool)
    assert auc(right, model.predict(TEST)) > auc(right, baselines(TRAIN, TEST)["rate of the skill"]) + 0.03


def test_a_prediction_does_not_know_its_own_answer_or_later_ones(model):
    before = model.predict(TEST)
    for t in (0, 3):
        rows = TEST.offsets[:-1] + t
        later = np.arange(len(TEST)) >= np.repeat(rows, TEST.lengths)
        turned = replace(TEST, answer=np.where(later, 1 - TEST.answer, TEST.answer).astype(np.int8))
        assert np.array_equal(model.predict(turned)[rows], before[rows])


def test_probabilities_within_zero_and_one_also_for_unknown_skills(model):
    new = replace(TEST, skill_names=[f"new {name}" for name in TEST.skill_names], question_names=["x"] * 40)
    p = model.predict(new)
    assert ((p > 0) & (p < 1)).all()


def test_bkt_finds_the_numbers_of_a_simulated_skill():
    rng, students, steps = np.random.default_rng(0), 3000, 8
    first, learn, guess, slip = 0.3, 0.2, 0.15, 0.08
    known = rng.random(students) < first
    answer = np.zeros((students, steps), dtype=np.int8)
    for t in range(steps):
        answer[:, t] = np.where(known, rng.random(students) > slip, rng.random(students) < guess)
        known |= rng.random(students) < learn
    n = answer.size
    table = Answers(
        student_names=[str(i) for i in range(students)],
        offsets=np.arange(students + 1) * steps,
        answer=answer.ravel(),
        skill_names=["x"],
        skill=np.zeros(n, dtype=np.int64),
        skill_offsets=np.arange(n + 1),
    )
    model = BKT(rounds=60).fit(table)
    found = [column[1] for column in (model.first, model.learn, model.guess, model.slip)]
    assert found == pytest.approx([first, learn, guess, slip], abs=0.03)


@pytest.mark.needs("sklearn")
def test_logistic_regression_equals_scikit_learns():
    from sklearn import linear_model

    rng = np.random.default_rng(0)
    X = np.c_[np.ones(500), rng.normal(size=(500, 2))]
    y = (rng.random(500) < 1 / (1 + np.exp(-X @ [0.3, 1, -2]))).astype(float)
    theirs = linear_model.LogisticRegression(C=1e6, fit_intercept=False, tol=1e-10).fit(X, y).coef_[0]
    assert logistic_regression(X, y, pull=1e-6) == pytest.approx(theirs, abs=1e-4)
