"""The Rasch fit finds the ease of questions of a simulated school, and trusts little what it saw little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dkt.data.simulate import simulate
from dkt.rasch import fit_rasch


def test_difficulties_of_the_school_are_found():
    answers, truth = simulate(students=600, questions=80, skills=10, concepts=3)
    rasch = fit_rasch(answers)
    pairs = answers.skill_matrix()[np.unique(answers.question, return_index=True)[1]]
    of_skills = np.where(pairs >= 0, rasch.skill[pairs], 0).sum(1) / (pairs >= 0).sum(1)
    assert np.corrcoef(of_skills + rasch.question, -truth.difficulty)[0, 1] > 0.9


def test_what_was_not_seen_is_average():
    answers, _ = simulate(students=20, questions=16, skills=4, concepts=2)
    more = replace(answers, question_names=[*answers.question_names, "new"], skill_names=[*answers.skill_names, "new"])
    rasch = fit_rasch(more)
    assert rasch.question[-1] == 0
    assert rasch.skill[-1] == 0
