"""What every model of knowledge tracing can do, from Elo to AKT: fit, predict, evaluate, cross_validate, save."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import torch
from typing_extensions import Self

from dkt.data.asked import until_asked
from dkt.data.protocols import protocol_named
from dkt.data.splits import folds_of, split_students
from dkt.data.table import Answers
from dkt.evaluate import Floats, Report, report
from dkt.live import Live, Replay

FORMAT = 1  # of saved models


@contextlib.contextmanager
def trainer_messages(shown: bool) -> Iterator[None]:
    """What a trainer says of itself, such as the line that a fit ends with, is shown or not; warnings are."""
    log = logging.getLogger("fulgurite")
    before = log.level
    if not shown:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


class Model(ABC):
    """A model of whether students answer right; `protocol` says which history a prediction may use and what counts.

    >>> model = DKT(epochs=4)
    >>> model.fit(train)
    >>> probability = model.predict(test)
    """

    title: str  # as it stands in tables
    learned: ClassVar[tuple[str, ...]] = ()  # attributes that exist after fit only

    def __init__(self, protocol: str = "akt", seed: int = 0) -> None:
        protocol_named(protocol)
        self.protocol = protocol
        self.seed = seed

    def fit(self, train: Answers, valid: Answers | None = None) -> Self:
        """Learn from `train`; `valid` chooses when to stop, and is a tenth of the students where it is not given.

        Rows whose answer is to be predicted are left out of both.
        """
        train = train.answered()
        if valid is None and self.needs_valid:
            train, valid = split_students(train, (0.9, 0.1), self.seed)
        self._fit(train, train if valid is None else valid.answered())
        return self

    needs_valid = True

    @abstractmethod
    def _fit(self, train: Answers, valid: Answers) -> None: ...

    @abstractmethod
    def predict(self, answers: Answers) -> Floats:
        """[rows] probability of a right answer, each from the rows before it in its sequence of the protocol."""

    def predict_asked(self, answers: Answers) -> Floats:
        """[students] the probability for each one's row of answer -1, from the latest rows before it."""
        shown = until_asked(answers, protocol_named(self.protocol).chunk)
        return self.predict(shown)[shown.offsets[1:] - 1]

    def arguments(self) -> dict[str, Any]:
        """What this model was made with: `type(model)(**model.arguments())` is a fresh one like it."""
        found: dict[str, Any] = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name)
            found |= value if parameter.kind is parameter.VAR_KEYWORD else {name: value}
        return found

    def state(self) -> dict[str, Any]:
        """What fit learned, as plain values and tensors."""
        raise NotImplementedError(f"{type(self).__name__} cannot be saved: it does not say what it learned (`state`).")

    def restore(self, state: dict[str, Any]) -> None:
        """The opposite of `state`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be loaded: it does not define `restore`.")

    def save(self, path: str | Path) -> None:
        """Write the fitted model; `dkt.models.catalogue.load_model` reads it. No row and no student is in the file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")  # a reader never sees half a file
        try:
            torch.save({"dkt": FORMAT, **self.described()}, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def described(self) -> dict[str, Any]:
        """Name, arguments and state: all that is needed to make this fitted model again."""
        return {"model": type(self).__name__, "arguments": self.arguments(), "state": self.state()}

    if not TYPE_CHECKING:  # a type checker would take any misspelt name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            if name in type(self).learned:
                raise AttributeError(
                    f"this {type(self).__name__} has learned nothing yet; call fit(train) before you use it.", name=name
                )
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)

    def start(self) -> Live:
        """A student of whom nothing is known yet, to whom answers are given one by one."""
        return Replay(self.predict, protocol_named(self.protocol).chunk)

    @property
    def n_parameters(self) -> int:
        """Numbers learned; 0 where a model does not count them."""
        return 0

    def evaluate(self, answers: Answers) -> Report:
        """All figures over the positions that the protocol scores."""
        return report(answers, self.predict(answers), protocol_named(self.protocol), self.seed)

    def cross_validate(
        self, answers: Answers, folds: int = 5, told: Callable[[Report, float], None] = lambda report, seconds: None
    ) -> CrossValidation:
        """Each fold's students predicted by a model of the others; the next fold chooses when to stop.

        `told` hears of each fold when it is done: its report, and the CPU seconds it took.
        """
        parts = folds_of(answers, folds, self.seed)
        probability = np.full(len(answers), np.nan)
        reports, seconds = [], []
        for k in range(folds):
            model, since = copy.deepcopy(self), time.process_time()
            rest = [part for j, part in enumerate(parts) if j not in (k, (k + 1) % folds)]
            train, valid = answers.students(np.concatenate(rest)), answers.students(parts[(k + 1) % folds])
            model._fit(train.answered(), valid.answered())
            test = answers.students(parts[k])
            predicted = model.predict(test)
            seconds.append(time.process_time() - since)
            is_test = np.zeros(answers.n_students, dtype=bool)
            is_test[parts[k]] = True
            probability[is_test[answers.student]] = predicted
            reports.append(report(test, predicted, protocol_named(self.protocol), self.seed))
            told(reports[-1], seconds[-1])
        return CrossValidation(reports, probability, seconds)


@dataclass(frozen=True)
class CrossValidation:
    """What each fold showed, and every row's prediction by a model that did not know its student."""

    reports: list[Report]
    out_of_fold: Floats
    cpu_seconds: list[float]
