"""DKT: only the past speaks, only the asked skill is computed, a set of skills is one row."""

from __future__ import annotations

import pytest
import torch

from dkt.models.dkt import DKTNet

SKILL, ANSWER, QUESTION = (
    torch.tensor([[[1], [2], [3], [1]]]),
    torch.tensor([[1, 0, 1, 1]]),
    torch.tensor([[1, 2, 3, 4]]),
)


NONE = torch.zeros(1, 4, 0)  # no features


@pytest.fixture
def model() -> DKTNet:
    return DKTNet(n_skills=3, n_questions=4, dim=8, hidden=8).eval()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_comes_at_and_after_a_step_does_not_move_its_prediction(cell):
    model = DKTNet(n_skills=3, n_questions=4, dim=8, hidden=8, cell=cell).eval()
    before = model(SKILL, ANSWER, QUESTION, NONE)
    for t in range(4):
        answer = ANSWER.clone()
        answer[:, t:] = 1 - answer[:, t:]
        skill = SKILL.clone()
        skill[:, t + 1 :] = 2
        after = model(skill, answer, QUESTION, NONE)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        assert t == 3 or not torch.equal(after[:, t + 1 :], before[:, t + 1 :])


def test_the_answer_just_given_moves_the_next_prediction(model):
    other = model(SKILL, torch.tensor([[0, 0, 1, 1]]), QUESTION, NONE)
    assert not torch.equal(other[:, 1], model(SKILL, ANSWER, QUESTION, NONE)[:, 1])


def test_filling_a_skill_set_changes_nothing(model):
    filled = torch.cat([SKILL, torch.zeros_like(SKILL)], dim=-1)
    torch.testing.assert_close(model(filled, ANSWER, QUESTION, NONE), model(SKILL, ANSWER, QUESTION, NONE))


def test_the_order_of_a_skill_set_does_not_matter(model):
    pair = torch.tensor([[[1, 2], [2, 3], [3, 1], [1, 2]]])
    torch.testing.assert_close(model(pair.flip(-1), ANSWER, QUESTION, NONE), model(pair, ANSWER, QUESTION, NONE))


def test_a_question_adds_one_scalar_to_its_own_logit_and_tells_how_easy_the_answer_was_later(model):
    before = model(SKILL, ANSWER, QUESTION, NONE)
    with torch.no_grad():
        model.scalar.question_ease.weight[2] = 1.5
    moved = model(SKILL, ANSWER, QUESTION, NONE) - before
    torch.testing.assert_close(moved[:, :2], torch.tensor([[0.0, 1.5]]))
    assert moved[:, 2:].all()


def test_an_unknown_skill_still_tells_whether_it_was_answered_right(model):
    unknown = torch.zeros_like(SKILL)
    right, wrong = (
        model(unknown, torch.ones_like(ANSWER), QUESTION, NONE),
        model(unknown, torch.zeros_like(ANSWER), QUESTION, NONE),
    )
    assert torch.isfinite(right).all()
    state_right = model.answered.weight[1] + model.practised.weight[4]
    assert torch.equal(state_right, model.answered.weight[1])
    assert torch.equal(right[:, 0], wrong[:, 0])


def test_an_unknown_cell_is_named():
    with pytest.raises(ValueError, match="cell='rnn' is unknown; choose one of lstm, gru"):
        DKTNet(3, cell="rnn")
