"""MIRT: its filter is Bayes' rule, and it finds what a simulated school hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dkt.data.simulate import simulate
from dkt.models.catalogue import load_model, model_named
from dkt.models.mirt import DAY, MIRTNet


def bayes(net: MIRTNet, right: list[int]) -> list[float]:
    """The probability of a right answer before each of these, one skill, no learning: by a sum over a fine grid."""
    ability = np.linspace(-8, 8, 4001)
    variance = float(net.spread.mul(2).exp().sum())
    belief = np.exp(-(ability**2) / (2 * variance))
    guess, slip = float(torch.sigmoid(net.guess)), float(torch.sigmoid(net.slip))
    knows = 1 / (1 + np.exp(-(np.exp(float(net.slope)) * ability + float(net.ease))))
    likely = guess + (1 - guess - slip) * knows
    found = []
    for answer in right:
        belief /= belief.sum()
        found.append(float((belief * likely).sum()))
        belief = belief * (likely if answer else 1 - likely)
    return found


@torch.no_grad()
def test_a_student_is_known_as_bayes_rule_knows_them():
    net = MIRTNet(n_skills=1, dim=1).eval()
    net.skill_ease.weight.zero_()
    net.pace.fill_(-30.0)  # nothing is learned
    right = [1, 1, 0, 1, 1, 1, 0, 1]
    skill = torch.ones(1, len(right), 1, dtype=torch.int64)
    logits = net(skill, torch.tensor([right]), torch.zeros(1, len(right), dtype=torch.int64), torch.zeros(1, 8, 0))
    expected = bayes(net, right)
    found = torch.sigmoid(logits[0]).tolist()
    assert found[:2] == pytest.approx(expected[:2], abs=1e-3), "exact but for the quadrature"
    assert found == pytest.approx(expected, abs=3e-3), "and for the belief being a Gaussian"


@torch.no_grad()
def test_what_was_learned_is_forgotten_by_days_and_not_by_rows():
    net = MIRTNet(n_skills=1, n_features=1, time_column=0).eval()
    net.fading.fill_(-30.0)
    skill, answer = torch.ones(1, 3, 1, dtype=torch.int64), torch.tensor([[1, 1, 1]])

    def last(*days: float) -> float:
        times = torch.tensor(days).mul(DAY).log1p().view(1, 3, 1)
        return float(net(skill, answer, answer, times)[0, -1])

    assert last(0, 0, 0) > last(0, 0, 5) > last(0, 0, 50)
    assert last(0, 2, 3) == pytest.approx(last(0, 3, 2), abs=0.05), "little was learned in between"
    kept = net._kept(torch.zeros(1, 1), torch.tensor([[[np.log1p(20 * DAY)]]], dtype=torch.float32))
    assert float(kept) == pytest.approx(np.exp(-20 * np.exp(-3)), rel=1e-5)


@pytest.mark.slow
def test_concepts_that_no_file_names_are_found_and_the_model_survives_its_file(tmp_path):
    school, truth = simulate(students=250, questions=48, skills=6, concepts=2, answers_per_student=60, seed=1)
    train, test = school.students(np.arange(220)), school.students(np.arange(220, 250))
    model = model_named("mirt-r", dim=2, epochs=20).fit(train)
    share = torch.softmax(model.task.model.concepts.weight[1:], -1)[:, 0]
    numbers = [int(name) - 1 for name in model.task.vocabulary.skills]
    concept = truth.concept_of_skill[numbers]
    of_first, of_second = share[concept == 0], share[concept == 1]
    assert max(of_first.max(), of_second.max()) > 0.5 > min(of_first.max(), of_second.max())
    assert (of_first > 0.5).all() != (of_second > 0.5).all(), share
    assert float(model.evaluate(test).score.auc) > 0.7
    model.save(tmp_path / "mirt.pt")
    assert (load_model(tmp_path / "mirt.pt").predict(test) == model.predict(test)).all()
