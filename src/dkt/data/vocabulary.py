"""Which number stands for which skill or question in a model: fixed by the training data, kept in the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dkt.data.table import Answers, Ints

UNKNOWN = 0  # also fills short skill sets and short batches: its embedding is zero


@dataclass(frozen=True)
class Vocabulary:
    """Ids seen in training; the first one has number 1, an id not seen has number `UNKNOWN`."""

    skills: list[str]
    questions: list[str]

    @classmethod
    def of(cls, answers: Answers) -> Vocabulary:
        return cls(list(answers.skill_names), list(answers.question_names))

    def skills_of(self, answers: Answers) -> Ints:
        """[rows, most skills of a row] numbers of the asked skills."""
        numbers = np.append(_numbers(self.skills, answers.skill_names), UNKNOWN)  # the last one serves the filling -1
        return numbers[answers.skill_matrix()]

    def questions_of(self, answers: Answers) -> Ints:
        """[rows] numbers of the questions, `UNKNOWN` where the file has no question ids."""
        if answers.question is None:
            return np.full(len(answers), UNKNOWN, dtype=np.int64)
        return _numbers(self.questions, answers.question_names)[answers.question]


def _numbers(known: list[str], names: list[str]) -> Ints:
    number = {name: i for i, name in enumerate(known, start=1)}
    return np.array([number.get(name, UNKNOWN) for name in names], dtype=np.int64)
