"""Files that the project may not carry: counted and scored where `DKT_DATA` names their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dkt.cli import main
from dkt.data import find_twins, read_answers, without_twins
from dkt.data.protocols import PROTOCOLS

DATA = Path(os.environ.get("DKT_DATA", ""))

pytestmark = pytest.mark.skipif(
    "DKT_DATA" not in os.environ, reason="the data may not be passed on; set DKT_DATA to a folder that holds it"
)


@pytest.mark.parametrize(("name", "targets", "students"), [("test1", 60_915, 830), ("valid1", 61_280, 830)])
def test_akt_scores_every_row_of_the_first_fold(name, targets, students):
    answers = read_answers(DATA / "assist2009_pid" / f"{name}.csv")
    assert answers.n_students == students
    assert PROTOCOLS["akt"].sequences(answers)[1].sum() == targets


def test_pykt_does_not_score_the_first_answer_of_a_chunk():
    answers = read_answers(DATA / "assist2009_pid" / "valid1.csv")
    assert PROTOCOLS["pykt"].scored(answers).sum() == 60_306


def test_the_five_tests_hold_the_repeats_that_were_counted():
    folds = [read_answers(DATA / "assist2009_pid" / f"test{i}.csv") for i in range(1, 6)]
    assert sum(map(len, folds)) == 325_589
    assert sum(int((~fold.leak_free).sum()) for fold in folds) == 51_052
    merged = [read_answers(DATA / "assist2009_pid" / f"test{i}.csv", merge=True) for i in range(1, 6)]
    assert sum(map(len, merged)) == 325_589 - 51_052
    assert "8,915 of 60,915 rows repeat the question of the row before and were merged" in merged[0].notes[-1]


def test_the_five_tests_hold_the_twins_that_were_counted():
    folds = [read_answers(DATA / "assist2009_pid" / f"test{i}.csv", merge=True) for i in range(1, 6)]
    assert len(find_twins(*folds)) == 89
    parts = [read_answers(DATA / "assist2009_pid" / f"{name}1.csv", merge=True) for name in ("train", "valid", "test")]
    cleaned = without_twins(*parts)
    assert [len(old) - len(new) for old, new in zip(parts, cleaned)] == [42_711, 3_039, 780]


def test_three_line_files_are_read_whole():
    answers = read_answers(DATA / "assist2015" / "test.csv")
    assert (len(answers), answers.n_students, len(answers.skill_names)) == (199_761, 5_905, 100)
    assert answers.question is None
    assert read_answers(DATA / "synthetic" / "v0_train1.csv").lengths.tolist() == [50] * 1400


@pytest.mark.slow
def test_the_defaults_reach_the_published_range(tmp_path):
    folder, report = DATA / "assist2009_pid", tmp_path / "report.json"
    files = [str(folder / f"{name}1.csv") for name in ("train", "valid", "test")]
    arguments = ["train", files[0], "--valid", files[1], "--test", files[2], "--out", str(tmp_path)]
    assert main([*arguments, "--json", str(report)]) == 0
    test = json.loads(report.read_text())["test"]
    assert test["n"] == 60_915
    assert test["auc"] >= 0.82
    assert test["auc_leakfree"] >= 0.76
