"""--merge and --drop-twins: what the commands that fit models do to their files first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dkt.cli import main
from dkt.data import write_parquet
from dkt.data.simulate import simulate
from helpers.answers import joined


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """train, valid and test; one test student is in training too, backwards and under another id."""
    school = replace(simulate(students=60, questions=160, answers_per_student=60)[0], extra={})
    order = np.argsort(-school.lengths)  # the longest history is the test's
    parts = {"train": order[20:], "valid": order[10:20], "test": order[:10]}
    tables = {name: school.students(np.sort(which)) for name, which in parts.items()}
    twin = school.students(order[:1])
    twin = replace(twin.in_order(np.arange(len(twin))[::-1]), student_names=["twin"], time=np.sort(twin.time))
    tables["train"] = joined(tables["train"], twin)
    for name, table in tables.items():
        write_parquet(table, tmp_path / f"{name}.parquet")
    return {name: str(tmp_path / f"{name}.parquet") for name in tables}


@pytest.mark.parametrize("command", ["train", "compare", pytest.param("tune", marks=pytest.mark.needs("optuna"))])
def test_twins_are_left_out_of_training_on_request(files, tmp_path, capsys, command):
    split = ["--valid", files["test"]] if command == "tune" else ["--valid", files["valid"], "--test", files["test"]]
    arguments = {
        "train": ["train", files["train"], "--model", "elo", "--out", str(tmp_path / "runs")],
        "compare": ["compare", "elo", "--data", files["train"], "--plot", str(tmp_path / "plot.png")],
        "tune": ["tune", "dkt", "--data", files["train"], "--trials", "1", "--epochs", "1", "--try", "dim=8|16"],
    }[command]
    assert main([*arguments, *split]) == 0
    assert "there twice" not in capsys.readouterr().out
    assert main([*arguments, *split, "--drop-twins"]) == 0
    assert "train.parquet: 1 students with" in capsys.readouterr().out


def test_cross_validation_splits_no_twins(files, tmp_path, capsys):
    import polars as pl

    whole = tmp_path / "whole.parquet"
    pl.concat([pl.read_parquet(files[name]) for name in ("train", "test")]).write_parquet(whole)
    out = tmp_path / "oof.csv"
    assert main(["cv", "elo", "--data", str(whole), "--folds", "3", "--drop-twins", "--oof", str(out)]) == 0
    assert "1 students with" in capsys.readouterr().out
    students = pl.read_csv(out, infer_schema=False)["student"]
    assert students.n_unique() == 50  # of 51


def test_training_merges_repeats_on_request(tmp_path, capsys):
    lines = [f"{i},{i}\n10,10,{11 + i % 3}\n5,6,6\n{i % 2},{i % 2},{(i // 2) % 2}\n" for i in range(40)]
    path, report = tmp_path / "four.csv", tmp_path / "report.json"
    path.write_text("".join(lines))
    arguments = ["train", str(path), "--model", "elo", "--out", str(tmp_path / "runs"), "--json", str(report)]
    assert main([*arguments, "--merge"]) == 0
    assert "40 of 120 rows repeat the question of the row before and were merged" in capsys.readouterr().out
    assert json.loads(report.read_text())["train_interactions"] == 2 * 34
