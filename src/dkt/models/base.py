"""What every model of knowledge tracing can do, from Elo to AKT: fit, predict, evaluate, cross_validate."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from typing_extensions import Self

from dkt.data.protocols import protocol_named
from dkt.data.splits import folds_of, split_students
from dkt.data.table import Answers
from dkt.evaluate import Floats, Report, report


class Model(ABC):
    """A model of whether students answer right; `protocol` says which history a prediction may use and what counts.

    >>> model = DKT(epochs=4)
    >>> model.fit(train)
    >>> probability = model.predict(test)
    """

    title: str  # as it stands in tables

    def __init__(self, protocol: str = "akt", seed: int = 0) -> None:
        protocol_named(protocol)
        self.protocol = protocol
        self.seed = seed

    def fit(self, train: Answers, valid: Answers | None = None) -> Self:
        """Learn from `train`; `valid` chooses when to stop, and is a tenth of the students where it is not given."""
        if valid is None and self.needs_valid:
            train, valid = split_students(train, (0.9, 0.1), self.seed)
        self._fit(train, train if valid is None else valid)
        return self

    needs_valid = True

    @abstractmethod
    def _fit(self, train: Answers, valid: Answers) -> None: ...

    @abstractmethod
    def predict(self, answers: Answers) -> Floats:
        """[rows] probability of a right answer, each from the rows before it in its sequence of the protocol."""

    @property
    def n_parameters(self) -> int:
        """Numbers learned; 0 where a model does not count them."""
        return 0

    def evaluate(self, answers: Answers) -> Report:
        """All figures over the positions that the protocol scores."""
        return report(answers, self.predict(answers), protocol_named(self.protocol), self.seed)

    def cross_validate(self, answers: Answers, folds: int = 5) -> CrossValidation:
        """Each fold's students predicted by a model of the others; the next fold chooses when to stop."""
        parts = folds_of(answers, folds, self.seed)
        probability = np.full(len(answers), np.nan)
        reports, seconds = [], []
        for k in range(folds):
            model, since = copy.deepcopy(self), time.process_time()
            rest = [part for j, part in enumerate(parts) if j not in (k, (k + 1) % folds)]
            model._fit(answers.students(np.concatenate(rest)), answers.students(parts[(k + 1) % folds]))
            test = answers.students(parts[k])
            predicted = model.predict(test)
            seconds.append(time.process_time() - since)
            is_test = np.zeros(answers.n_students, dtype=bool)
            is_test[parts[k]] = True
            probability[is_test[answers.student]] = predicted
            reports.append(report(test, predicted, protocol_named(self.protocol), self.seed))
        return CrossValidation(reports, probability, seconds)


@dataclass(frozen=True)
class CrossValidation:
    """What each fold showed, and every row's prediction by a model that did not know its student."""

    reports: list[Report]
    out_of_fold: Floats
    cpu_seconds: list[float]
