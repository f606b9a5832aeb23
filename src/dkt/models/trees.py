"""Gradient-boosted trees on causal features: what wins where concepts are not hidden. Needs lightgbm."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from dkt.data.protocols import protocol_named
from dkt.data.table import Answers
from dkt.evaluate import Floats
from dkt.features import NAMES, FeatureSet
from dkt.live import Live, OfFeatures
from dkt.models.base import Model


class Trees(Model):
    """LightGBM; what it knows of questions and skills is out of fold by student, so that it does not trust itself.

    Further keywords are LightGBM's own parameters: `Trees(num_leaves=15)`.
    """

    title = "trees"
    learned = ("features", "booster")

    def __init__(
        self, trees: int = 2000, patience: int = 40, protocol: str = "akt", seed: int = 0, **settings: Any
    ) -> None:
        super().__init__(protocol, seed)
        if settings:
            _check(settings)
        self.trees = trees
        self.patience = patience
        self.settings = {
            "objective": "binary",
            "metric": "auc",
            "learning_rate": 0.05,
            "num_leaves": 31,
            "min_data_in_leaf": 50,
            "feature_fraction": 0.7,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "num_threads": 1,
            "verbose": -1,
            "seed": seed,
            **settings,
        }

    def _fit(self, train: Answers, valid: Answers) -> None:
        lightgbm = _lightgbm()
        self.features = FeatureSet(seed=self.seed)
        X, X_valid = self._table(self.features.fit_transform, train), self._table(self.features.transform, valid)
        rows, rows_valid = (~np.isnan(table[:, 0]) for table in (X, X_valid))
        data = lightgbm.Dataset(X[rows], train.answer[rows], categorical_feature=[NAMES.index("skill")])
        held_out = lightgbm.Dataset(X_valid[rows_valid], valid.answer[rows_valid], reference=data)
        stop = lightgbm.early_stopping(self.patience, verbose=False)
        self.booster = lightgbm.train(self.settings, data, self.trees, valid_sets=[held_out], callbacks=[stop])

    def predict(self, answers: Answers) -> Floats:
        return self._of(self._table(self.features.transform, answers))

    def start(self) -> Live:
        return OfFeatures(self.features.known(), self._of)

    def _of(self, table: Floats) -> Floats:
        return np.asarray(self.booster.predict(table, num_iteration=self.booster.best_iteration))

    def state(self) -> dict[str, Any]:
        booster = self.booster.model_to_string(num_iteration=self.booster.best_iteration)
        return {"booster": booster, "best": self.booster.best_iteration, "features": self.features.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.booster = _lightgbm().Booster(model_str=state["booster"])
        self.booster.best_iteration = state["best"]
        self.features = FeatureSet(seed=self.seed)
        self.features.load(state["features"])

    @property
    def n_parameters(self) -> int:
        return int(self.booster.best_iteration) * int(self.settings["num_leaves"])

    def importance(self) -> dict[str, float]:
        """How much each feature lowered the loss, the strongest first."""
        gain = self.booster.feature_importance("gain")
        return {NAMES[i]: float(gain[i]) for i in np.argsort(-gain)}

    def _table(self, features: Any, answers: Answers) -> Any:
        return features(answers, *protocol_named(self.protocol).sequences(answers))


def _check(settings: dict[str, Any]) -> None:
    """Raise for a name that LightGBM does not know: it would only warn, and `verbose` hides that."""
    aliases = _lightgbm().basic._ConfigAliases._get_all_param_aliases()  # the only list of its parameters
    known = {*aliases, *(alias for others in aliases.values() for alias in others)}
    for name in settings:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise TypeError(f"LightGBM has no parameter {name}; the nearest is {nearest}")


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("trees need lightgbm: pip install 'fulgurite[trees]'", name="lightgbm") from error
    return lightgbm
