"""Logistic models of a student's record: IRT with a moving ability, and PFA (Pavlik et al., 2009).

Both are a few weights on numbers that the causal features give, found by Newton's method.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dkt.data.protocols import protocol_named
from dkt.data.table import Answers
from dkt.evaluate import Floats
from dkt.features import NAMES, FeatureSet
from dkt.live import Live, OfFeatures
from dkt.models.base import Model
from dkt.rasch import sigmoid


class Logistic(Model):
    """Log-odds linear in `columns`; out-of-fold ease of questions, so that the weights trust it as much as they may."""

    needs_valid = False
    learned = ("features", "weights")
    columns: ClassVar[tuple[str, ...]]

    def _fit(self, train: Answers, valid: Answers) -> None:
        self.features = FeatureSet(seed=self.seed)
        cut = protocol_named(self.protocol).sequences(train)
        X = self._design(self.features.fit_transform(train, *cut))
        known = ~np.isnan(X).any(axis=1)
        self.weights = logistic_regression(X[known], train.answer[known].astype(np.float64))

    def predict(self, answers: Answers) -> Floats:
        cut = protocol_named(self.protocol).sequences(answers)
        return self._of(self.features.transform(answers, *cut))

    def start(self) -> Live:
        return OfFeatures(self.features.known(), self._of)

    def _of(self, table: Floats) -> Floats:
        return sigmoid(self._design(table) @ self.weights)

    def _design(self, table: Floats) -> Floats:
        chosen = [table[:, NAMES.index(name)] for name in self.columns]
        return np.stack([np.ones(len(table)), *chosen], axis=1).astype(np.float64)

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights.tolist(), "features": self.features.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.weights = np.array(state["weights"])
        self.features = FeatureSet(seed=self.seed)
        self.features.load(state["features"])

    @property
    def n_parameters(self) -> int:
        bank = self.features.bank
        return len(self.weights) + (0 if bank is None else len(bank.question_ease) + len(bank.skill_ease))


class IRT(Logistic):
    """The ease of the question, and the student's ability as it was estimated from the answers before."""

    title = "IRT"
    columns = ("item_ease", "elo_student")


class PFA(Logistic):
    """Counts of right and of wrong answers to the skill, as logarithms, beside the ease of the question."""

    title = "PFA"
    columns = ("item_ease", "student_skill_count", "student_skill_rate")

    def _design(self, table: Floats) -> Floats:
        ease, n, rate = super()._design(table)[:, 1:].T
        prior = table[:, NAMES.index("skill_rate")]
        right = np.clip(rate * (n + 2) - 2 * prior, 0, None)  # undoes the pull towards the skill's rate
        wrong = np.clip(n - right, 0, None)
        return np.stack([np.ones(len(n)), ease, np.log1p(right), np.log1p(wrong)], axis=1)


def logistic_regression(X: Floats, right: Floats, pull: float = 1e-3, rounds: int = 25) -> Floats:
    """Weights of the most likely linear log-odds, by Newton's method; `pull` holds them near zero."""
    weights = np.zeros(X.shape[1])
    for _ in range(rounds):
        p = sigmoid(X @ weights)
        slope = X.T @ (right - p) - pull * weights
        curve = (X * (p * (1 - p))[:, None]).T @ X + pull * np.eye(X.shape[1])
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights
