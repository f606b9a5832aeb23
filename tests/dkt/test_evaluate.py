"""Figures: equal to scikit-learn's, and always over all rows and over leak-free rows."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data import Answers
from dkt.evaluate import accuracy, auc, baselines, brier, ece, log_loss, score


def pairs(seed=0, n=5000):
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.6
    return right, rng.normal(size=n) + right


@pytest.mark.needs("sklearn")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [0, 1, 12])
def test_auc_equals_scikit_learns_with_and_without_ties(dtype, digits):
    from sklearn import metrics

    right, value = pairs()
    value = np.round(value, digits).astype(dtype)
    assert auc(right, value) == pytest.approx(metrics.roc_auc_score(right, value), abs=1e-12)


def test_auc_of_packed_keys_equals_the_count_of_pairs_won():
    right, value = pairs(n=300)
    value = np.round(value, 1).astype(np.float32)
    won = (value[right][:, None] > value[~right]) + 0.5 * (value[right][:, None] == value[~right])
    assert auc(right, value) == won.mean()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auc_of_logits_equals_that_of_their_probabilities_and_no_value_is_changed(dtype):
    right, value = pairs(n=2000)
    value = np.round(value, 2).astype(dtype)
    before = value.copy()
    assert auc(right, value) == auc(right, (value + 10) / 100)
    assert value.tolist() == before.tolist()


def test_minus_zero_ties_with_zero():
    assert auc(np.array([True, False]), np.array([-0.0, 0.0], dtype=np.float32)) == 0.5


def test_auc_of_one_class_does_not_exist():
    assert auc(np.array([True, True]), np.array([0.1, 0.2])) is None


def test_auc_of_nan_is_refused():
    with pytest.raises(ValueError, match="1 of 2 predictions are NaN"):
        auc(np.array([True, False]), np.array([0.1, np.nan]))


def test_accuracy_and_log_loss_of_known_cases():
    right, p = np.array([True, False, True, False]), np.array([0.9, 0.2, 0.4, 0.5])
    assert accuracy(right, p) == 0.5
    assert log_loss(right, p) == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.5]).mean())
    assert np.isfinite(log_loss(np.array([True]), np.array([0.0])))


def test_leak_free_figures_are_those_of_the_rows_kept():
    right, value = pairs()
    p = 1 / (1 + np.exp(-value))
    fresh = np.arange(len(p)) % 3 > 0
    figures = score(right.astype(np.int8), p, fresh)
    assert figures.auc_leakfree == auc(right[fresh], p[fresh])
    assert figures.n_leakfree == fresh.sum()
    assert figures.brier_leakfree == brier(right[fresh], p[fresh])
    assert figures.ece_leakfree == ece(right[fresh], p[fresh])
    assert f"AUC {figures.auc:.4f} (leak-free {figures.auc_leakfree:.4f})" in str(figures)


def test_without_question_ids_leak_free_figures_are_null():
    right, value = pairs()
    figures = score(right.astype(np.int8), 1 / (1 + np.exp(-value)), None).as_dict()
    assert [figures[name] for name in ("auc_leakfree", "accuracy_leakfree", "n_leakfree")] == [None] * 3
    assert {"auc", "auc_leakfree", "accuracy", "log_loss", "n"} <= set(figures)


def table(answer, skill, question=None):
    n = len(answer)
    return Answers(
        student_names=["s"],
        offsets=np.array([0, n]),
        answer=np.array(answer, dtype=np.int8),
        skill_names=["x", "y"],
        skill=np.array(skill),
        skill_offsets=np.arange(n + 1),
        question_names=["p", "q"] if question else [],
        question=np.array(question) if question else None,
    )


def test_baselines_are_smoothed_rates_of_the_training_data():
    found = baselines(table([1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1]), table([1, 0], [1, 0], [0, 1]))
    assert found["majority guess"].tolist() == [0.75, 0.75]
    assert found["rate of the skill"].tolist() == [(1 + 5 * 0.75) / 7, (2 + 5 * 0.75) / 7]
    assert found["rate of the question"].tolist() == [(1 + 5 * 0.75) / 6, (2 + 5 * 0.75) / 8]


def test_without_question_ids_there_is_no_rate_of_the_question():
    assert list(baselines(table([1, 0], [0, 1]), table([1], [0]))) == ["majority guess", "rate of the skill"]
