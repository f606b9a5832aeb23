"""LightGCN: answers travel along the edges, both ways and with their sign; the past alone makes a student."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.evaluate import auc, baselines
from dkt.models.lightgcn import Graph, LightGCN, LightGCNNet

TRAIN, TEST = split_students(simulate(students=240, questions=40, skills=8, concepts=3)[0], (0.7, 0.3))


@pytest.fixture(scope="module")
def model():
    return LightGCN(dim=8).fit(TRAIN)


def graph():
    student, question = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 2, 3])
    return Graph.of(student, question, torch.tensor([1.0, -1.0, 1.0, -1.0]), 3, 4)


def test_edges_carry_the_sign_and_the_roots_of_both_degrees():
    dense = graph().to_students.to_dense()
    expected = torch.tensor([[0, 2**-0.5, -(4**-0.5), 0], [0, 0, 2**-0.5, 0], [0, 0, 0, -1]])
    torch.testing.assert_close(dense, expected)
    assert torch.equal(graph().to_questions.to_dense(), dense.T)


def test_the_gradient_of_a_layer_is_that_of_the_dense_product():
    x = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(3, 3)
    (graph().students(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, graph().to_questions.to_dense() @ weight)


def test_a_right_answer_moves_its_student_one_way_and_a_wrong_one_the_other():
    questions = torch.randn(4, 5)
    students = graph().students(questions)
    torch.testing.assert_close(students[1], questions[2] * 2**-0.5)
    torch.testing.assert_close(students[2], -questions[3])


def test_what_one_student_answered_reaches_the_questions_of_others_in_two_steps():
    net = LightGCNNet(n_skills=2, skill_of_question=torch.zeros(4, 1, dtype=torch.int64), dim=4, layers=2)
    (before,) = net.known(graph()).layers
    with torch.no_grad():
        net.question.weight[1] += 1  # question 1: student 0 answered it, and question 2 as well
    (after,) = net.known(graph()).layers
    assert (after[2] != before[2]).any()
    assert torch.equal(after[3], before[3])  # of a student who shares nothing


def test_a_student_row_by_row_is_the_student_of_the_graph():
    message, start = torch.randn(7, 3), torch.tensor([0, 0, 0, 3, 3, 3, 3])
    found = LightGCNNet.students(message, start)
    assert torch.equal(found[[0, 3]], torch.zeros(2, 3))  # nothing is known of a student yet
    torch.testing.assert_close(found[2], message[:2].sum(0) / 2**0.5)
    torch.testing.assert_close(found[6], message[3:6].sum(0) / 3**0.5)


def test_propagation_is_what_tells_students_apart(model):
    """Without edges nothing is left but the ease of the question, and much of the AUC is gone."""
    right = TEST.answer.astype(bool)
    whole = auc(right, model.predict(TEST))
    known = model.known
    model.known = replace(known, layers=[torch.zeros_like(x) for x in known.layers], degree=known.degree * 1e12)
    severed = auc(right, model.predict(TEST))
    model.known = known
    assert whole > severed + 0.02
    assert whole > auc(right, baselines(TRAIN, TEST)["rate of the question"]) + 0.02


def test_a_prediction_does_not_know_its_own_answer_or_later_ones(model):
    before = model.predict(TEST)
    for t in (0, 3):
        rows = TEST.offsets[:-1] + t
        later = np.arange(len(TEST)) >= np.repeat(rows, TEST.lengths)
        turned = replace(TEST, answer=np.where(later, 1 - TEST.answer, TEST.answer).astype(np.int8))
        np.testing.assert_allclose(model.predict(turned)[rows], before[rows], rtol=0, atol=1e-7)
        later = np.arange(len(TEST)) == np.repeat(rows - 1, TEST.lengths)
        turned = replace(TEST, answer=np.where(later, 1 - TEST.answer, TEST.answer).astype(np.int8))
        assert t == 0 or (model.predict(turned)[rows] != before[rows]).all()


def test_the_graph_of_a_fold_does_not_hold_the_answers_that_it_predicts():
    model = LightGCN(folds=3)
    model.vocabulary = LightGCN(dim=4, epochs=1).fit(TRAIN).vocabulary
    parts = model._held_out(TRAIN)
    assert sum(len(rows.question) for _, rows in parts) == len(TRAIN)
    for graph, rows in parts:
        assert int(graph.to_students.values().numel()) <= len(TRAIN) - len(rows.question)
        assert graph.to_students.shape[0] == TRAIN.n_students - int((torch.diff(rows.start) > 0).sum() + 1)


def test_unknown_questions_are_known_by_their_skills(model):
    new = replace(TEST, question_names=[f"new {name}" for name in TEST.question_names])
    assert auc(TEST.answer.astype(bool), model.predict(new)) > 0.6


def test_without_question_ids_skills_are_the_nodes():
    train, test = (replace(part, question=None, question_names=[]) for part in (TRAIN, TEST))
    model = LightGCN(dim=4, epochs=5).fit(train)
    assert auc(test.answer.astype(bool), model.predict(test)) > auc(
        test.answer.astype(bool), baselines(train, test)["rate of the skill"]
    )


@pytest.mark.parametrize(("wrong", "message"), [({"layers": 0}, "layers=0"), ({"folds": 1}, "folds=1")])
def test_settings_that_make_no_graph_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LightGCN(**wrong).fit(TRAIN)
