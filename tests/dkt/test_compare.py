"""dkt compare, cv and data describe, and the figures they are made of."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dkt.cli import main
from dkt.data import write_parquet
from dkt.data.protocols import PROTOCOLS
from dkt.data.simulate import simulate
from dkt.evaluate import accuracy, auc, brier, ece, interval, log_loss, paired_difference, report
from dkt.models.elo import Elo

SCHOOL = ["--students", "80", "--questions", "80", "--skills", "12", "--concepts", "4", "--answers", "25"]


@pytest.fixture
def train(tmp_path, capsys):
    assert main(["simulate", str(tmp_path), *SCHOOL]) == 0
    capsys.readouterr()
    return str(tmp_path / "train_data.csv")


def test_compare_ends_in_one_table_of_the_same_rows(train, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main(["compare", "elo", "bkt", "dkt-r", "--epochs", "1", "--data", train, "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    models = written["models"]
    assert set(written["cpu_seconds"]) == set(written["parameters"]) == {"elo", "bkt", "dkt-r"}
    assert Path(written["plot"]).read_bytes().startswith(b"\x89PNG")
    assert len({r[0]["score"]["n"] for r in models.values()}) == 1
    lines = capsys.readouterr().out.splitlines()[:-1]  # the last one names the plot
    assert sorted(line.split()[0] for line in lines[-3:]) == ["bkt", "dkt-r", "elo"]
    assert "leak-free" in lines[-4]
    assert sum("±" in line for line in lines[-3:]) == 2


def test_a_stack_takes_the_models_that_are_fitted_already(train, tmp_path, monkeypatch):
    fits = []
    monkeypatch.setattr(Elo, "_fit", lambda self, *parts, _fit=Elo._fit: fits.append(1) or _fit(self, *parts))
    out = tmp_path / "out.json"
    assert main(["compare", "elo", "irt", "elo,irt", "--data", train, "--json", str(out)]) == 0
    assert len(fits) == 1
    loss = {name: r[0]["score"]["log_loss"] for name, r in json.loads(out.read_text())["models"].items()}
    assert loss["elo,irt"] not in (loss["elo"], loss["irt"])
    assert main(["compare", "elo,irt", "--data", train, "--json", str(out)]) == 0
    alone = json.loads(out.read_text())["models"]["elo,irt"][0]["score"]["log_loss"]
    assert alone == pytest.approx(loss["elo,irt"], abs=1e-12)


def test_compare_draws_its_table(train, tmp_path):
    picture = tmp_path / "plot.png"
    assert main(["compare", "elo", "irt", "--data", train, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_compare_reads_the_files_of_every_fold(train, tmp_path, capsys):
    text = (tmp_path / "train_data.csv").read_text()
    for part in ("train", "valid", "test"):
        for fold in (1, 2):
            (tmp_path / f"{part}{fold}.csv").write_text(text)
    files = [x for part in ("data", "valid", "test") for x in (f"--{part}", str(tmp_path / f"{part}{{fold}}.csv"))]
    files[1] = str(tmp_path / "train{fold}.csv")
    assert main(["compare", "elo", "--folds", "2", *files]) == 0
    assert "2 test sets" in capsys.readouterr().out


def test_cv_writes_one_prediction_for_each_row(train, tmp_path, capsys):
    oof = tmp_path / "oof.csv"
    assert main(["cv", "elo", "--data", train, "--folds", "3", "--oof", str(oof)]) == 0
    rows = oof.read_text().splitlines()
    assert rows[0] == "student,row,answer,prediction"
    assert len(rows) == len((tmp_path / "train_data.csv").read_text().splitlines())
    told = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("fold ")]
    assert told == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]


def test_out_of_fold_rows_are_those_the_protocol_scores_whatever_the_names(tmp_path, capsys):
    school = simulate(students=12, questions=24, skills=6, concepts=3)[0]
    names = [f'Kim, "{i:02}"' for i in range(12)]
    write_parquet(replace(school, student_names=names, extra={}), tmp_path / "new" / "school.parquet")
    oof, more = tmp_path / "newer" / "oof.csv", ["--epochs", "1", "--set", "dim=8", "--folds", "3"]
    command = ["cv", "dkt", "--data", str(tmp_path / "new" / "school.parquet"), "--protocol", "last", *more]
    assert main([*command, "--oof", str(oof)]) == 0
    rows = list(csv.DictReader(oof.read_text().splitlines()))
    assert [row["student"] for row in rows] == names
    assert [int(row["row"]) for row in rows] == (school.lengths - 1).tolist()
    assert all(0 < float(row["prediction"]) < 1 for row in rows)
    assert main(["ensemble", str(oof), str(oof), "-o", str(tmp_path / "both.csv")]) == 0
    assert (tmp_path / "both.csv").read_text() == oof.read_text()


def test_describe_says_what_is_there(train, capsys):
    assert main(["data", "describe", train, "--test", train]) == 0
    out = capsys.readouterr().out
    assert "students                  72" in out
    assert "leak: 72 student ids are in both files" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "gpt", "--data", "TRAIN"], "model 'gpt' is unknown"),
        (["compare", "elo", "--valid", "TRAIN"], "--valid and --test need --data FILE"),
        (["compare", "elo", "irt", "--epochs", "2", "--data", "TRAIN"], "--epochs: elo, irt is no net"),
        (["compare", "elo", "dtk-r", "--data", "TRAIN"], "model 'dtk-r' is unknown"),
        (["compare", "elo", "irt", "elo", "--data", "TRAIN"], "elo is there twice"),
        (["compare", "elo", "--data", "TRAIN", "--test", "TRAIN"], "--test needs --valid"),
        (["cv", "elo", "--data", "TRAIN", "--folds", "2"], "folds=2 must be at least 3"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(train, capsys, arguments, message):
    assert main([train if a == "TRAIN" else a for a in arguments]) == 2
    assert message in capsys.readouterr().err


def test_intervals_hold_the_auc_and_narrow_with_more_students():
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.6
    value = rng.normal(size=4000) + right
    student = np.arange(4000) // 10
    low, high = interval(right, value, student)
    assert low < auc(right, value) < high
    few = interval(right[:400], value[:400], student[:400])
    assert few[1] - few[0] > high - low


def test_a_model_against_itself_differs_by_nothing():
    right, value = np.arange(20) % 3 == 0, np.arange(20.0)
    assert paired_difference(right, value, value, np.arange(20) // 2) == (0.0, 0.0)


def test_calibration_error_of_known_cases():
    assert ece(np.array([True, False]), np.array([0.5, 0.5])) == 0
    assert ece(np.array([False, False]), np.array([1.0, 0.5])) == 0.75


def test_reports_split_by_the_place_in_the_history():
    answers, _ = simulate(students=30, questions=40, skills=6, concepts=2, answers_per_student=30)
    found = report(answers, answers.extra["truth"], PROTOCOLS["akt"])
    assert list(found.auc_by_history) == ["1", "2-5", "6-20", "21-100", "101+"]
    counts = [n for _, n in found.auc_by_history.values()]
    assert counts[0] == 30
    assert counts[1] == 4 * 30
    assert sum(counts) == len(answers)
    assert found.auc_by_history == found.auc_leakfree_by_history  # the simulated school repeats no question


def test_a_report_prints_every_figure_over_all_rows_and_over_leak_free_rows():
    answers, _ = simulate(students=30, questions=40, skills=6, concepts=2, answers_per_student=30)
    answers = replace(answers, question=answers.question // 2)  # now some rows ask the question of the row before
    found = report(answers, answers.extra["truth"], PROTOCOLS["akt"])
    head, all_rows, leak_free, _, *history = str(found).splitlines()
    assert head.split() == ["AUC", "95%", "by", "student", "accuracy", "log", "loss", "Brier", "ECE", "rows"]
    fresh, p = answers.leak_free, answers.extra["truth"]
    right = answers.answer.astype(bool)
    for line, name, rows in ((all_rows, "all rows", right | True), (leak_free, "leak-free", fresh)):
        figures = [f(right[rows], p[rows]) for f in (auc, accuracy, log_loss, brier, ece)]
        assert line.startswith(name)
        assert [cell for cell in line.split()[-7:] if ".." not in cell][:5] == [f"{f:.4f}" for f in figures]
        assert line.split()[-1] == f"{rows.sum():,}"
    assert [line[:9] for line in history] == ["all rows ", "leak-free"]


def test_without_question_ids_a_report_has_no_leak_free_figures():
    answers, _ = simulate(students=30, questions=40, skills=6, concepts=2, answers_per_student=30)
    found = report(replace(answers, question=None), answers.extra["truth"], PROTOCOLS["akt"])
    assert found.auc_leakfree_by_history is None
    assert str(found).splitlines()[2].split() == ["leak-free", *"-------"]
