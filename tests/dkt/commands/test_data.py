"""dkt data: what it prints of a file, and the files it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dkt.cli import main
from dkt.data import read_answers
from dkt.data.simulate import simulate
from helpers.answers import ednet_folder, rows_of

FOUR = "0,71\n10,10,11\n5,6,6\n1,1,0\n1,72\n12,10\n6,6\n0,0\n"


@pytest.fixture
def four(tmp_path):
    path = tmp_path / "four.txt"
    path.write_text(FOUR)
    return path


def test_what_reading_did_and_the_leaks_are_printed(four, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main(["data", "describe", str(four), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 5 rows ask the question of the row before" in printed
    assert "leak: 1 rows (20.0%) ask the question of the row before, and 1 of them repeat its answer" in printed
    assert json.loads(out.read_text())["data"]["repeats"] == 1


def test_the_folder_at_hand_is_described(four, tmp_path, monkeypatch, capsys):
    assert main(["data", "convert", str(four), str(tmp_path / "store")]) == 0
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "store")
        assert main(["data", "describe", "."]) == 0
    assert "students                  2" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["answers.parquet", "store"])
def test_converted_files_read_as_the_same_table(four, tmp_path, name):
    assert main(["data", "convert", str(four), str(tmp_path / name)]) == 0
    assert rows_of(read_answers(tmp_path / name)) == rows_of(read_answers(four))


def test_repeats_are_merged_on_request(four, tmp_path, capsys):
    assert main(["data", "convert", str(four), str(tmp_path / "a.parquet"), "--merge"]) == 0
    assert "1 of 5 rows repeat the question of the row before and were merged into it" in capsys.readouterr().out
    assert len(read_answers(tmp_path / "a.parquet")) == 4


def test_ednet_becomes_a_store_or_a_sample_of_its_students(tmp_path, capsys):
    answers, _ = simulate(students=12, questions=40, skills=6, concepts=2, answers_per_student=9)
    answers.student_names[:] = [f"u{name}" for name in answers.student_names]
    ednet_folder(answers, tmp_path / "EdNet")
    assert main(["data", "convert", str(tmp_path / "EdNet"), str(tmp_path / "store")]) == 0
    assert rows_of(read_answers(tmp_path / "store")) == rows_of(read_answers(tmp_path / "EdNet"))
    for n, name in ((5, "sample"), (5, "sample.parquet")):
        assert main(["data", "convert", str(tmp_path / "EdNet"), str(tmp_path / name), "--students", str(n)]) == 0
        assert read_answers(tmp_path / name).n_students == n
    assert "5 students" in capsys.readouterr().out


def test_a_large_file_becomes_a_store_in_parts(tmp_path):
    assert main(["simulate", str(tmp_path), "--students", "20", "--questions", "40", "--answers", "9"]) == 0
    train = str(tmp_path / "train_data.csv")
    assert main(["data", "convert", train, str(tmp_path / "store"), "--parts", "3"]) == 0
    assert sorted(rows_of(read_answers(tmp_path / "store"))) == sorted(rows_of(read_answers(train)))


def test_a_format_may_name_the_column_of_the_skills(tmp_path):
    table = tmp_path / "steps.txt"
    header = "Anon Student Id\tProblem Name\tStep Name\tFirst Transaction Time\tFirst Attempt\tKC (A)\n"
    table.write_text(header + "S1\tP1\ta\t2011-09-21 17:35:22\tcorrect\tforces\n")
    for format, skill in (("datashop", "forces"), ("datashop:Step Name", "a")):
        output = tmp_path / f"{skill}.parquet"
        assert main(["data", "convert", str(table), str(output), "--format", format]) == 0
        assert read_answers(output).skill_names == [skill]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "FOUR"], "convert needs a second name"),
        (["convert", "FOUR", "x.parquet", "--students", "9"], "--students 9 is more than the 2 there are"),
        (["convert", "FOUR", "x.parquet", "--parts", "4"], "--parts writes a store of all students"),
        (["convert", "FOUR", "store", "--parts", "4"], "of format 4line cannot be read in parts"),
        (["describe", "FOUR", "FOUR"], "a second part is named with --test FILE"),
        (["describe", "FOUR", "--format", "3line:tag"], "names a column, and"),
        (["describe", "."], "is a directory without EdNet's"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(four, capsys, arguments, message):
    assert main(["data", *(str(four) if a == "FOUR" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_format_is_refused_with_those_there_are(four, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "describe", str(four), "--format", "excel"])
    assert "'excel' is unknown; choose one of course, assist2009" in capsys.readouterr().err


def test_times_and_further_columns_survive_conversion(tmp_path):
    assert main(["simulate", str(tmp_path), "--students", "20", "--questions", "40", "--answers", "9"]) == 0
    train = tmp_path / "train_data.csv"
    assert main(["data", "convert", str(train), str(tmp_path / "a.parquet")]) == 0
    first, again = read_answers(train), read_answers(tmp_path / "a.parquet")
    assert np.array_equal(first.time, again.time)
    assert first.extra["test"].tolist() == again.extra["test"].tolist()
