"""The command line: simulate, train, evaluate and predict on files, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import polars
import pytest
import torch

from dkt.cli import main
from dkt.data import from_frame
from dkt.data.simulate import simulate
from dkt.models.catalogue import load_model
from dkt.models.elo import Elo
from helpers.extras import kinds_of_model

KEYS = {"test", "valid", "epochs", "train_interactions", "train_cpu_seconds", "seed", "command"}
FIGURES = {"auc", "auc_leakfree", "accuracy", "log_loss", "n"}
SCHOOL = ["--students", "80", "--questions", "80", "--skills", "12", "--concepts", "4", "--answers", "25"]
SMALL = ["--epochs", "2", "--lr", "0.03", "--set", "dim=8", "--set", "hidden=8", "--cells", "500"]


@pytest.fixture
def trained(tmp_path, capsys):
    """A school's folder, the report of a short training on it, and what was printed."""
    school = tmp_path / "school"
    assert main(["simulate", str(school), *SCHOOL]) == 0
    train, report = str(school / "train_data.csv"), tmp_path / "report.json"
    assert main(["train", train, "--test", train, *SMALL, "--out", str(tmp_path), "--json", str(report)]) == 0
    return school, json.loads(report.read_text()), capsys.readouterr().out


def test_training_reports_figures_between_majority_and_optimum(trained):
    _, report, out = trained
    assert set(report) >= KEYS
    assert set(report["test"]) >= FIGURES
    assert set(report["valid"]) >= FIGURES
    assert report["epochs"] == 2
    assert report["train_interactions"] > 2 * 1000
    assert report["train_cpu_seconds"] > 0
    assert report["command"].startswith("dkt train ")
    assert list(report["test_baselines"]) == [
        "majority guess",
        "rate of the skill",
        "rate of the question",
        "optimum (the truth)",
    ]
    assert 0.5 < report["test"]["auc"] < report["test_baselines"]["optimum (the truth)"]["auc"]
    assert "DKT-R" in out
    assert "leak-free" in out


@pytest.mark.parametrize("name", kinds_of_model("elo", "lightgcn", "trees", "sakt-r", "elo,irt"))
def test_every_kind_of_model_is_trained_evaluated_and_predicts(tmp_path, capsys, name):
    assert main(["simulate", str(tmp_path), *SCHOOL]) == 0
    small = {
        "lightgcn": ["--epochs", "2"],
        "sakt-r": ["--epochs", "1", "--set", "dim=8"],
        "trees": ["--set", "trees=9"],
    }
    train, trained, again = str(tmp_path / "train_data.csv"), tmp_path / "trained.json", tmp_path / "again.json"
    files = ["--test", train, "--out", str(tmp_path / "runs"), "--json", str(trained)]
    assert main(["train", train, "--model", name, *small.get(name, []), *files]) == 0
    report = json.loads(trained.read_text())
    assert main(["evaluate", report["checkpoint"], train, "--json", str(again)]) == 0
    assert json.loads(again.read_text())["test"] == report["test"]
    assert (
        main(["predict", report["checkpoint"], str(tmp_path / "test_data.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    )
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 9


def test_windows_are_what_a_net_learns_from(tmp_path, capsys):
    assert main(["simulate", str(tmp_path), *SCHOOL]) == 0
    train, once = str(tmp_path / "train_data.csv"), []
    for more in ([], ["--windows", "10:5"]):
        report = tmp_path / "report.json"
        assert main(["train", train, *SMALL, *more, "--out", str(tmp_path), "--json", str(report)]) == 0
        once.append(json.loads(report.read_text())["train_interactions"])
    assert once[0] < once[1] < 2 * once[0]


def test_a_checkpoint_of_training_is_loaded_with_its_settings(trained):
    model = load_model(trained[1]["checkpoint"])
    assert {"lr": 0.03, "dim": 8, "hidden": 8, "rasch": True, "protocol": "akt"}.items() <= model.arguments().items()
    fresh = type(model)(**model.arguments())
    assert fresh.new_task(simulate(students=20)[0]).hparams["dim"] == 8


def test_evaluate_repeats_the_figures_of_training(trained, tmp_path):
    school, report, _ = trained
    again = tmp_path / "again.json"
    assert main(["evaluate", report["checkpoint"], str(school / "train_data.csv"), "--json", str(again)]) == 0
    assert json.loads(again.read_text())["test"] == report["test"]


def test_evaluate_prints_every_figure_both_ways_with_an_interval_and_by_history(trained, capsys):
    school, report, _ = trained
    assert main(["evaluate", report["checkpoint"], str(school / "train_data.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    with_interval = [line.split() for line in lines if ".." in line]
    assert [(line[0], len(line)) for line in with_interval] == [("all", 9), ("leak-free", 8)]
    assert sum("1: " in line and "2-5: " in line and "101+: " in line for line in lines) == 2


def test_predict_writes_the_courses_submission(trained, tmp_path):
    school, report, _ = trained
    output = tmp_path / "outputs" / "submission.csv"
    assert main(["predict", report["checkpoint"], str(school / "test_data.csv"), "-o", str(output)]) == 0
    lines = output.read_text().splitlines()
    students = {line.split(",")[0] for line in (school / "test_data.csv").read_text().splitlines()[1:]}
    assert lines[0] == "id,prediction"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(len(students))]
    assert all(0 < float(line.split(",")[1]) < 1 for line in lines[1:])


def test_the_same_seed_gives_the_same_figures(trained, tmp_path):
    school, report, _ = trained
    train, again = str(school / "train_data.csv"), tmp_path / "again.json"
    assert main(["train", train, "--test", train, *SMALL, "--out", str(tmp_path), "--json", str(again)]) == 0
    assert json.loads(again.read_text())["test"] == report["test"]


def test_files_without_question_ids_have_null_for_leak_free(tmp_path):
    data, report = tmp_path / "three.csv", tmp_path / "report.json"
    data.write_text("".join(f"{4}\n1,2,1,{1 + i % 2}\n1,{i % 2},0,{(i + 1) % 2}\n" for i in range(40)))
    assert main(["train", str(data), *SMALL, "--out", str(tmp_path), "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert figures["test"] is None
    assert figures["valid"]["auc_leakfree"] is None
    assert figures["valid"]["auc"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.csv"], "none.csv does not exist"),
        (["train", "--valid", "x.csv"], "--valid and --test need DATA"),
        (["train", "broken.csv"], "broken.csv:3: record 1 (student '2'): answer 2 is '5'; an answer is 0 or 1."),
        (["train", "one.csv"], "1 students are too few to split"),
        (["train", "one.csv", "--model", "elo", "--epochs", "3"], "--epochs: elo is no net"),
        (
            ["train", "one.csv", "--model", "elo", "--resume", "x", "--valid", "one.csv"],
            "--resume continues the training",
        ),
        (["train", "one.csv", "--windows", "5:9", "--valid", "one.csv"], "windows 5:9 would skip answers"),
        (
            ["train", "one.csv", "--model", "dkt+features", "--windows", "5:5", "--valid", "one.csv"],
            "overlap, and causal",
        ),
        (["train", "one.csv", "--valid", "same.csv"], "the validation answers are all the same"),
        (["train", "one.csv", "--valid", "one.csv", "--cells", "1"], "cells=1 is less than the longest sequence (2)"),
        (["train", "one.csv", "--valid", "one.csv", "--protocol", "leakfree"], "protocol leakfree needs question ids"),
        (["simulate", "school", "--students", "0"], "students=0 must be at least 1"),
        (["evaluate", "none.ckpt", "one.csv"], "none.ckpt"),
        (["evaluate", "truncated.ckpt", "one.csv"], "truncated.ckpt"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.csv").write_text("2\n1,1\n0,5\n")
    (tmp_path / "one.csv").write_text("2\n1,1\n0,1\n")
    (tmp_path / "same.csv").write_text("2\n1,1\n1,1\n")
    (tmp_path / "truncated.ckpt").write_bytes(b"PK\x03\x04 cut off")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"dkt {arguments[0]}: error: ")
    assert error.count("\n") == 1


def test_a_file_that_polars_cannot_read_and_one_with_nothing_to_score_are_said_in_one_line(tmp_path, capsys):
    rows = {"student": ["a", "b"], "skills": ["x", "x"], "answer": [1, 0], "marks": [[1], [2, 3]]}
    polars.DataFrame(rows).write_parquet(tmp_path / "lists.parquet")
    assert main(["data", "describe", str(tmp_path / "lists.parquet")]) == 2
    assert capsys.readouterr().err.startswith("dkt data: error: ")
    single = polars.DataFrame(rows).drop("marks")
    single.write_parquet(tmp_path / "single.parquet")
    Elo(protocol="pykt").fit(from_frame(single)).save(tmp_path / "elo.pt")
    assert main(["evaluate", str(tmp_path / "elo.pt"), str(tmp_path / "single.parquet")]) == 2
    assert "has no row that the model's protocol, pykt, scores" in capsys.readouterr().err


def test_a_flag_out_of_range_is_refused_before_anything_is_read(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--epochs", "0"])
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


def test_a_run_continued_from_a_checkpoint_of_other_data_is_refused(trained, capsys):
    school, report, _ = trained
    three = school / "three.csv"
    three.write_text("2\n1,1\n0,1\n")
    assert main(["train", str(three), "--valid", str(three), "--resume", report["checkpoint"]]) == 2
    assert "was trained on other skills or questions" in capsys.readouterr().err
    assert main(["train", str(school / "train_data.csv"), "--resume", report["checkpoint"]]) == 2
    assert "was trained with lr=0.03, dim=8, hidden=8; give the same settings" in capsys.readouterr().err
    load_model(report["checkpoint"]).save(school / "model.pt")
    assert main(["train", str(school / "train_data.csv"), *SMALL, "--resume", str(school / "model.pt")]) == 2
    assert "model.pt holds DKT-R, whose training cannot go on; name a last.ckpt of a net" in capsys.readouterr().err


def test_a_continued_run_keeps_the_best_of_all_its_epochs_and_the_last(tmp_path, capsys):
    assert main(["simulate", str(tmp_path), *SCHOOL]) == 0
    report, files = tmp_path / "report.json", tmp_path / "dkt" / "version_0" / "checkpoints"
    command = ["train", str(tmp_path / "train_data.csv"), "--lr", "0.3", "--set", "dim=8", "--set", "hidden=8"]
    command += ["--cells", "500", "--patience", "20", "--out", str(tmp_path), "--json", str(report)]
    scores, best_epochs, last_epochs, resume = [], [], [], []
    for epochs in ("4", "8"):
        assert main([*command, "--epochs", epochs, *resume]) == 0
        scores.append(json.loads(report.read_text())["valid"]["auc"])
        best_epochs.append(torch.load(files / "best.ckpt", weights_only=True)["epoch"])
        last_epochs.append(torch.load(files / "last.ckpt", weights_only=True)["epoch"])
        resume = ["--resume", str(files / "last.ckpt")]
    assert last_epochs == [3, 7]
    assert best_epochs[0] == best_epochs[1] < 4  # at this rate training soon gets worse
    assert scores[0] == scores[1]
    assert sorted(path.name for path in files.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_predict_on_a_file_with_nothing_to_predict_says_what_to_do(trained, capsys):
    school, report, _ = trained
    assert main(["predict", report["checkpoint"], str(school / "train_data.csv")]) == 2
    assert "`dkt evaluate` scores known answers" in capsys.readouterr().err


@pytest.mark.slow
def test_help_teaches_the_formats_and_python_m_dkt_is_the_same_command():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "dkt", "train", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    for word in ("3line", "4line", "answerCode", "leak-free", "--valid"):
        assert word in ran.stdout
