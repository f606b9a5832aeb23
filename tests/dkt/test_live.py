"""A live student: every prediction equals the table's, whatever the model, and asking leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.models.catalogue import NAMES, model_named
from dkt.models.elo import Elo
from dkt.models.hybrid import Stack
from dkt.models.logistic import IRT
from helpers.extras import kinds_of_model

TRAIN, TEST = split_students(simulate(students=40, questions=24, skills=6, concepts=3)[0], (0.7, 0.3))
SMALL = {"trees": {"trees": 5}, "bkt": {"rounds": 1}, "elo": {}, "irt": {}, "pfa": {}}


def rows_of(student):
    """(question, skills, time, right) of one student's rows."""
    for i in range(len(student)):
        skills = student.skill[student.skill_offsets[i] : student.skill_offsets[i + 1]]
        names = [student.skill_names[k] for k in skills]
        yield student.question_names[student.question[i]], names, float(student.time[i]), bool(student.answer[i])


@pytest.mark.parametrize(
    "name", kinds_of_model(*(name for name in NAMES if name != "hybrid"), "dkt-r+features", "akt-r+features")
)
def test_a_live_student_is_told_what_the_table_is_told(name):
    model = model_named(name, **SMALL.get(name, {"dim": 8, "epochs": 1})).fit(TRAIN)
    one = TEST.students(np.array([1]))
    expected, student = model.predict(one), model.start()
    for i, (question, skills, time, right) in enumerate(rows_of(one)):
        near = pytest.approx(expected[i], abs=2e-5)  # AKT's distances round differently in a shorter history
        assert student.predict(question, skills, time) == near
        student.predict("another question", ["a skill never met"], time)  # leaves no trace
        student.answer(question, skills, right, time)


def test_a_stack_has_a_live_student_too():
    stack = Stack([Elo(), IRT()]).fit(TRAIN)
    one = TEST.students(np.array([0]))
    student = stack.start()
    for p, (question, skills, time, right) in zip(stack.predict(one), rows_of(one)):
        assert student.predict(question, skills, time) == pytest.approx(p, abs=1e-6)
        student.answer(question, skills, right, time)


def test_a_live_student_needs_neither_questions_nor_times():
    model = model_named("dkt", dim=8, epochs=1).fit(TRAIN)
    one = replace(TEST.students(np.array([0])), question=None, question_names=[], time=None)
    expected, student = model.predict(one), model.start()
    for i in range(len(one)):
        skills = [one.skill_names[k] for k in one.skill[one.skill_offsets[i] : one.skill_offsets[i + 1]]]
        assert student.predict(None, skills) == pytest.approx(expected[i], abs=1e-6)
        student.answer(None, skills, bool(one.answer[i]))


def test_a_question_without_a_skill_is_refused():
    with pytest.raises(ValueError, match="asks no skill"):
        model_named("bkt", rounds=1).fit(TRAIN).start().predict("q", [])


@pytest.mark.parametrize("name", ["elo", "bkt", "dkt"])
def test_skills_are_names_in_a_list_and_never_one_text(name):
    student = model_named(name, **SMALL.get(name, {"dim": 8, "epochs": 1} if name == "dkt" else {})).fit(TRAIN).start()
    with pytest.raises(TypeError, match=r"give \['11'\]"):
        student.answer("q", "11", True)
    with pytest.raises(ValueError, match="asks no skill"):
        student.predict("q", [])
    assert 0 < student.predict("q", ["11"]) < 1
