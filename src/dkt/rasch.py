"""How hard questions and skills are, and how able students, from answers alone: the Rasch model with shrinkage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dkt.data.table import Answers, Ints

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rasch:
    """Log-odds of a right answer = `mean` + the ease of its skills (their mean) + of its question + ability."""

    mean: float
    skill: Floats
    question: Floats
    ability: Floats


def fit_rasch(answers: Answers, rounds: int = 12, pull: tuple[float, float, float] = (0.3, 0.7, 0.7)) -> Rasch:
    """The most likely values, skills, questions and students taken in turns; each block's step is Newton's.

    `pull` are the weights with which the values of skills, questions and students are held near zero, so that what
    was seen once is not trusted.
    """
    right = answers.answer.astype(np.float64)
    weight = np.repeat(1 / answers.skills_per_row, answers.skills_per_row)
    row_of_skill = np.repeat(np.arange(len(answers)), answers.skills_per_row)
    question = answers.question if answers.question is not None else np.zeros(len(answers), dtype=np.int64)
    student = answers.student
    skill_ease = np.zeros(len(answers.skill_names))
    question_ease = np.zeros(max(1, len(answers.question_names)))
    ability = np.zeros(answers.n_students)
    base = np.clip(right.mean(), 1e-3, 1 - 1e-3)
    mean = float(np.log(base / (1 - base)))
    one_each = len(answers.skill) == len(answers)

    def logit() -> Floats:
        of_skills = skill_ease[answers.skill]
        if not one_each:
            of_skills = np.add.reduceat(of_skills * weight, answers.skill_offsets[:-1])
        total: Floats = mean + of_skills + question_ease[question] + ability[student]
        return total

    def newton(value: Floats, code: Ints, per_row: Any, share: Any, pull: float) -> Floats:
        p = sigmoid(logit())
        slope, curve = (right - p)[per_row] * share, (p * (1 - p))[per_row] * share**2
        up = np.bincount(code, slope, minlength=len(value)) - pull * value
        step: Floats = up / (np.bincount(code, curve, minlength=len(value)) + pull)
        return value + step

    everywhere = slice(None)
    for _ in range(rounds):
        ability = newton(ability, student, everywhere, 1.0, pull[2])
        if one_each:
            skill_ease = newton(skill_ease, answers.skill, everywhere, 1.0, pull[0])
        else:
            skill_ease = newton(skill_ease, answers.skill, row_of_skill, weight, pull[0])
        if answers.question is not None:
            question_ease = newton(question_ease, question, everywhere, 1.0, pull[1])
    return Rasch(mean, skill_ease, question_ease, ability)


def sigmoid(logit: npt.NDArray[Any]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))
