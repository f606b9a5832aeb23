"""One student, answer by answer: what a model says of the next question, equal to what it says of a table.

A table is cut into the protocol's chunks, each begun without memory; a live student forgets nothing that the model
can hold. Within the first chunk the two are equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dkt.data.table import TO_PREDICT, Answers, cumulated
from dkt.data.vocabulary import Vocabulary
from dkt.features import Bank, LiveFeatures, NetFeatures, check_skills
from dkt.models.dkt import DKTNet
from dkt.rasch import sigmoid

Floats = npt.NDArray[np.floating]
Asked = tuple["str | None", Sequence[str], float]  # question, its skills, seconds (NaN where unknown)


class Live(ABC):
    """A student whose answers arrive one by one.

    >>> student = model.start()
    >>> student.answer("q17", ["fractions"], right=True)
    >>> student.predict("q18", ["fractions"])
    """

    @abstractmethod
    def answer(self, question: str | None, skills: Sequence[str], right: bool, time: float = np.nan) -> None:
        """Take in what was answered."""

    @abstractmethod
    def predict(self, question: str | None, skills: Sequence[str], time: float = np.nan) -> float:
        """The probability that the student would answer this right now; nothing is remembered of having asked."""


class Replay(Live):
    """Any model: the last `longest` answers are read again for each prediction."""

    def __init__(self, predict: Callable[[Answers], Floats], longest: int) -> None:
        self._predict = predict
        self._longest = longest
        self._asked: list[Asked] = []
        self._right: list[int] = []

    def answer(self, question: str | None, skills: Sequence[str], right: bool, time: float = np.nan) -> None:
        check_skills(skills)
        self._asked.append((question, skills, time))
        self._right.append(int(right))

    def predict(self, question: str | None, skills: Sequence[str], time: float = np.nan) -> float:
        known = max(0, len(self._asked) - self._longest + 1)
        asked = [*self._asked[known:], (question, skills, time)]
        return float(self._predict(one_student(asked, [*self._right[known:], TO_PREDICT]))[-1])


class OfFeatures(Live):
    """A model that reads nothing but a row of causal features."""

    def __init__(self, bank: Bank, predict: Callable[[npt.NDArray[np.float32]], Floats]) -> None:
        self._features = LiveFeatures(bank)
        self._predict = predict

    def answer(self, question: str | None, skills: Sequence[str], right: bool, time: float = np.nan) -> None:
        self._features.answer(question, skills, right, time)

    def predict(self, question: str | None, skills: Sequence[str], time: float = np.nan) -> float:
        return float(self._predict(self._features.features(question, skills, time)[None])[0])


class Recurrent(Live):
    """DKT: the recurrent state is kept, so that an answer costs one step however long the history is."""

    @torch.inference_mode()
    def __init__(self, net: DKTNet, vocabulary: Vocabulary, features: NetFeatures | None) -> None:
        self._net = net.eval()
        self._vocabulary = vocabulary
        self._scale = features
        self._features = None if features is None else LiveFeatures(features.known())
        self._h, self._memory = net.rnn(net.beginning.view(1, 1, -1))

    @torch.inference_mode()
    def answer(self, question: str | None, skills: Sequence[str], right: bool, time: float = np.nan) -> None:
        skill, number, features = self._inputs(question, skills, time)
        x_11D = self._net.happened(skill, torch.full((1, 1), int(right)), number, features)
        self._h, self._memory = self._net.rnn(x_11D, self._memory)
        if self._features is not None:
            self._features.answer(question, skills, right, time)

    @torch.inference_mode()
    def predict(self, question: str | None, skills: Sequence[str], time: float = np.nan) -> float:
        return float(torch.sigmoid(self._net.logits(self._h, *self._inputs(question, skills, time))))

    def _inputs(self, question: str | None, skills: Sequence[str], time: float) -> tuple[Tensor, Tensor, Tensor]:
        asked = one_student([(question, skills, np.nan)], [TO_PREDICT])
        skill, number = self._vocabulary.skills_of(asked), self._vocabulary.questions_of(asked)
        features = torch.zeros(1, 1, 0)
        if self._features is not None and self._scale is not None:
            row = self._features.features(question, skills, time)[None]
            features = torch.from_numpy(self._scale.scaled(row))[None]
        return torch.from_numpy(skill)[None], torch.from_numpy(number)[None], features


class Weighed(Live):
    """A stack: the weighed log-odds of its models' students."""

    def __init__(self, students: Sequence[Live], weights: Floats) -> None:
        self._students = students
        self._weights = weights

    def answer(self, question: str | None, skills: Sequence[str], right: bool, time: float = np.nan) -> None:
        for student in self._students:
            student.answer(question, skills, right, time)

    def predict(self, question: str | None, skills: Sequence[str], time: float = np.nan) -> float:
        p = np.clip([student.predict(question, skills, time) for student in self._students], 1e-6, 1 - 1e-6)
        return float(sigmoid(self._weights[0] + np.log(p / (1 - p)) @ self._weights[1:]))


def one_student(asked: Sequence[Asked], right: Sequence[int]) -> Answers:
    """A table of one student's rows."""
    for _, skills, _ in asked:
        check_skills(skills)
    sets = [list(dict.fromkeys(skills)) for _, skills, _ in asked]  # a skill named twice is asked once
    names, questions = [name for skills in sets for name in skills], [question for question, _, _ in asked]
    skill_names, question_names = list(dict.fromkeys(names)), [q for q in dict.fromkeys(questions) if q is not None]
    if question_names and None in questions:
        raise ValueError("some answers name their question and some do not; name all or none.")
    time = np.array([seconds for _, _, seconds in asked], dtype=np.float64)
    place: dict[Any, int] = {name: i for i, name in enumerate(question_names)}
    skill_place = {name: i for i, name in enumerate(skill_names)}
    return Answers(
        student_names=["live"],
        offsets=np.array([0, len(sets)]),
        answer=np.array(right, dtype=np.int8),
        skill_names=skill_names,
        skill=np.array([skill_place[name] for name in names]),
        skill_offsets=cumulated(np.array([len(skills) for skills in sets])),
        question_names=question_names,
        question=np.array([place[q] for q in questions]) if question_names else None,
        time=None if np.isnan(time).any() else time.astype(np.int64),
    )
