"""Mastery: each step sees the answers until then, equal to a live student's, and ends in a table and a picture."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from dkt import DKT, Elo, LightGCN, simulate, split_students
from dkt.cli import main
from dkt.data.simulate import write_school
from dkt.mastery import ANY_QUESTION, mastery, write_csv

SCHOOL, TRUTH = simulate(students=60, questions=40, skills=8, concepts=3)
TRAIN, TEST = split_students(SCHOOL, (0.8, 0.2))


@pytest.fixture(scope="module", params=[lambda: DKT(epochs=2, dim=8, hidden=8), Elo, lambda: LightGCN(dim=8, epochs=2)])
def model(request):
    return request.param().fit(TRAIN)


def test_each_step_is_what_a_live_student_is_asked(model):
    name = TEST.student_names[0]
    found = mastery(model, TEST, name)
    own, student = TEST.students(np.array([0])), model.start()
    sets = np.split(np.array(own.skill_names)[own.skill], own.skill_offsets[1:-1])
    for step in range(6):
        live = [student.predict(ANY_QUESTION, [skill], float(own.time[max(0, step - 1)])) for skill in found.skills]
        np.testing.assert_allclose(found.probability[step], live, atol=1e-5)
        question = own.question_names[own.question[step]]
        student.answer(question, list(sets[step]), bool(own.answer[step]), float(own.time[step]))


def test_later_answers_do_not_move_earlier_steps(model):
    own = TEST.students(np.array([0]))
    answer = own.answer.copy()
    answer[5:] = 1 - answer[5:]
    before, after = (
        mastery(model, table, own.student_names[0]).probability for table in (own, replace(own, answer=answer))
    )
    np.testing.assert_allclose(after[:6], before[:6], atol=1e-6)
    assert not np.allclose(after[6:], before[6:])


def test_attempts_count_the_answers_to_a_skill():
    found = mastery(Elo().fit(TRAIN), TEST, TEST.student_names[0])
    own = TEST.students(np.array([0]))
    assert found.attempts[0].sum() == 0
    assert found.attempts[-1].sum() == len(own.skill)
    low, high = found.interval()
    assert ((low <= found.probability) & (found.probability <= high)).all()


def test_a_skill_with_a_comma_is_one_cell_of_the_table(tmp_path):
    named = replace(TEST, skill_names=[f"Area, part {i}" for i in range(len(TEST.skill_names))])
    found = mastery(Elo().fit(TRAIN), named, named.student_names[0])
    write_csv(found, tmp_path / "mastery.csv")
    rows = list(csv.DictReader((tmp_path / "mastery.csv").read_text().splitlines()))
    assert {row["skill"] for row in rows} == set(found.skills)


def test_the_command_writes_a_table_and_a_picture(tmp_path, capsys):
    write_school(SCHOOL, TRUTH, tmp_path)
    Elo().fit(TRAIN).save(tmp_path / "elo.pt")
    command = ["mastery", str(tmp_path / "elo.pt"), str(tmp_path / "test_data.csv"), "--out", str(tmp_path)]
    assert main([*command, "--student", "10"]) == 0
    rows = list(csv.DictReader((tmp_path / "mastery_10.csv").read_text().splitlines()))
    assert {"student", "step", "skill", "probability", "attempts", "low", "high"} == set(rows[0])
    assert (tmp_path / "mastery_10.png").read_bytes().startswith(b"\x89PNG")
    assert "student 10:" in capsys.readouterr().out
    test = tmp_path / "test_data.csv"
    test.write_text(re.sub("^10,", "a/b,", test.read_text(), flags=re.MULTILINE))
    (tmp_path / "test_data_truth.csv").unlink()
    assert main([*command, "--student", "a/b"]) == 0
    assert (tmp_path / "mastery_a_b.csv").exists()
    assert main([*command, "--student", "nobody"]) == 2
    assert "student 'nobody' is not in the file; it has 6, such as 0, 20, 30." in capsys.readouterr().err
