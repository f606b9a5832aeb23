"""The stack: several models' log-odds, weighed by a logistic regression on students that none of them learned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dkt.data.protocols import protocol_named
from dkt.data.table import Answers
from dkt.evaluate import Floats
from dkt.live import Live, Weighed
from dkt.models.base import Model
from dkt.models.logistic import logistic_regression
from dkt.models.sequence import DKT
from dkt.models.trees import Trees
from dkt.rasch import sigmoid


class Stack(Model):
    """Weighs `models`, each fitted on the training data, on the validation data."""

    learned = ("weights",)

    def __init__(self, models: Sequence[Model], protocol: str = "akt", seed: int = 0) -> None:
        super().__init__(protocol, seed)
        others = [model.title for model in models if model.protocol != protocol]
        if others:
            raise ValueError(f"{', '.join(others)}: another protocol than the stack's, {protocol}; give all the same.")
        self.models = list(models)

    @property
    def title(self) -> str:  # type: ignore[override]  # a plain attribute in other models
        return " & ".join(model.title for model in self.models)

    def _fit(self, train: Answers, valid: Answers) -> None:
        for model in self.models:
            model.fit(train, valid)
        self.weigh(valid)

    def weigh(self, valid: Answers) -> None:
        """Find the weights only: the models are fitted already, and not on these students."""
        scored = protocol_named(self.protocol).scored(valid)
        self.weights = logistic_regression(self._log_odds(valid)[scored], valid.answer[scored].astype(np.float64), 1.0)

    def predict(self, answers: Answers) -> Floats:
        return sigmoid(self._log_odds(answers) @ self.weights)

    def _log_odds(self, answers: Answers) -> Floats:
        columns = [np.clip(model.predict(answers).astype(np.float64), 1e-6, 1 - 1e-6) for model in self.models]
        return np.stack([np.ones(len(answers)), *(np.log(p / (1 - p)) for p in columns)], axis=1)

    def start(self) -> Live:
        return Weighed([model.start() for model in self.models], self.weights)

    def described(self) -> dict[str, Any]:
        found = super().described()
        if "models" in found["arguments"]:
            found["arguments"]["models"] = [
                {"model": type(model).__name__, "arguments": model.arguments()} for model in self.models
            ]
        return found

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights.tolist(), "models": [model.state() for model in self.models]}

    def restore(self, state: dict[str, Any]) -> None:
        self.weights = np.array(state["weights"])
        for model, its in zip(self.models, state["models"], strict=True):
            model.restore(its)

    @property
    def n_parameters(self) -> int:
        return sum(model.n_parameters for model in self.models)


class Hybrid(Stack):
    """Trees and DKT-R on the same causal features: what the one overlooks, the other sees.

    The best of what was measured (docs/knowledge-tracing.md). Needs lightgbm.
    """

    def __init__(self, trees: int = 2000, epochs: int | None = None, protocol: str = "akt", seed: int = 0) -> None:
        net = DKT(features=True, epochs=epochs, protocol=protocol, seed=seed)
        super().__init__([Trees(trees=trees, protocol=protocol, seed=seed), net], protocol, seed)
        self.trees = trees
        self.epochs = epochs
