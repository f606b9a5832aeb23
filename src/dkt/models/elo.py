"""Elo: a student's level rises with each answer that was better than expected; the ease of questions is fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dkt.data.protocols import protocol_named
from dkt.data.table import Answers
from dkt.evaluate import Floats
from dkt.features import NAMES, Bank, compute
from dkt.live import Live, OfFeatures
from dkt.models.base import Model
from dkt.rasch import sigmoid


class Elo(Model):
    """Level of the student and of the student in the skill, each `weight` of the sum, beside the question's ease."""

    title = "Elo"
    needs_valid = False
    learned = ("bank",)

    def __init__(self, weight: float = 0.6, protocol: str = "akt", seed: int = 0) -> None:
        super().__init__(protocol, seed)
        self.weight = weight

    def _fit(self, train: Answers, valid: Answers) -> None:
        self.bank = Bank.of(train)

    def predict(self, answers: Answers) -> Floats:
        items = self.bank.items(answers)
        return self._of(compute(answers, *protocol_named(self.protocol).sequences(answers), items))

    def start(self) -> Live:
        return OfFeatures(self.bank, self._of)

    def _of(self, table: npt.NDArray[np.float32]) -> Floats:
        names = ("item_ease", "elo_student", "elo_student_skill")
        ease, level, level_in_skill = (table[:, NAMES.index(name)].astype(np.float64) for name in names)
        return sigmoid(ease + self.weight * (level + level_in_skill))

    def state(self) -> dict[str, Any]:
        return self.bank.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.bank = Bank.of_state(state)

    @property
    def n_parameters(self) -> int:
        return len(self.bank.question_ease) + len(self.bank.skill_ease)
