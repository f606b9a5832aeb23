"""Trees on causal features: better than the rates they are given, and on the rows of the protocol."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.evaluate import auc, baselines
from dkt.models.trees import Trees

pytestmark = pytest.mark.needs("lightgbm")
TRAIN, TEST = split_students(simulate(students=240, questions=40, skills=8, concepts=3)[0], (0.7, 0.3))


@pytest.fixture(scope="module")
def model() -> Trees:
    return Trees(trees=100).fit(TRAIN)


def test_trees_beat_the_rate_of_the_question(model):
    right = TEST.answer.astype(bool)
    assert auc(right, model.predict(TEST)) > auc(right, baselines(TRAIN, TEST)["rate of the question"]) + 0.02


def test_predictions_come_from_the_past_only(model):
    before = model.predict(TEST)
    last = TEST.offsets[1:] - 1
    turned = TEST.answer.copy()
    turned[last] = 1 - turned[last]
    assert np.array_equal(model.predict(type(TEST)(**{**vars(TEST), "answer": turned})), before)


def test_the_same_seed_gives_the_same_trees(model):
    assert np.array_equal(Trees(trees=100).fit(TRAIN).predict(TEST), model.predict(TEST))


def test_cross_validation_predicts_every_row_once_without_its_student():
    found = Trees(trees=20).cross_validate(TEST, folds=3)
    assert len(found.reports) == 3
    assert not np.isnan(found.out_of_fold).any()
    assert sum(r.score.n for r in found.reports) == len(TEST)
