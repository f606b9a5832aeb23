"""Hidden concepts are found again from what a model predicts; the index of agreement is the known one."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.concepts import adjusted_rand_index, hidden_concepts, influence
from dkt.data.simulate import simulate
from dkt.models.base import Model
from dkt.models.elo import Elo

SCHOOL, TRUTH = simulate(students=60, questions=48, skills=8, concepts=2, answers_per_student=30)


class KnowsConcepts(Model):
    """Believes the last answer of the same concept."""

    title = "knows"

    def _fit(self, train, valid):
        pass

    def predict(self, answers):
        concept = TRUTH.concept_of_skill[answers.skill_matrix()[:, 0]]
        p = np.full(len(answers), 0.5)
        for s in range(answers.n_students):
            last = {}
            for row in range(answers.offsets[s], answers.offsets[s + 1]):
                p[row] = last.get(concept[row], 0.5)
                last[concept[row]] = 0.2 + 0.6 * answers.answer[row]
        return p


def test_an_answer_influences_the_skills_of_its_concept_only_and_they_are_found():
    one_skill = SCHOOL.rows(SCHOOL.skills_per_row == 1)
    found = influence(KnowsConcepts(), one_skill, students=20)
    same = TRUTH.concept_of_skill[:, None] == TRUTH.concept_of_skill
    seen = ~np.isnan(found)
    assert (found[same & seen] >= 0).all()
    assert found[same & seen].mean() > 0.1
    assert not found[~same & seen].any()
    assert adjusted_rand_index(hidden_concepts(found, 2), TRUTH.concept_of_skill) == 1.0


def test_influence_of_a_real_model_is_positive():
    assert np.nanmean(influence(Elo().fit(SCHOOL), SCHOOL, students=3)) > 0


@pytest.mark.parametrize(
    ("one", "other", "index"),
    [([0, 0, 1, 1], [1, 1, 0, 0], 1.0), ([0, 0, 1, 1], [0, 1, 0, 1], -0.5), ([0, 0, 1, 2], [0, 0, 1, 1], 4 / 7)],
    ids=["the same under other names", "crossed", "nearly"],
)
def test_adjusted_rand_index(one, other, index):
    assert adjusted_rand_index(np.array(one), np.array(other)) == pytest.approx(index)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="concepts=9 must be between 1 and the 8 skills"):
        hidden_concepts(np.zeros((8, 8)), 9)
    with pytest.raises(ValueError, match="of 2 and 3"):
        adjusted_rand_index(np.zeros(2, dtype=int), np.zeros(3, dtype=int))
