"""Settings from files: what a command prints, it reads back; what the file gets wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from dkt.cli import main

TINY = "students: 20\nquestions: 16\nskills: 4\nconcepts: 2\nanswers: 10\n"


def students(directory):
    return len({line.split(",")[0] for line in (directory / "train_data.csv").read_text().splitlines()[1:]})


def test_a_file_sets_what_the_command_line_leaves_out(tmp_path):
    (tmp_path / "school.yaml").write_text(f"{TINY}directory: {tmp_path}\n")
    assert main(["simulate", "--config", str(tmp_path / "school.yaml")]) == 0
    assert students(tmp_path) == 18


def test_the_command_line_goes_before_the_file(tmp_path):
    (tmp_path / "school.yaml").write_text(TINY)
    assert main(["simulate", str(tmp_path), "--config", str(tmp_path / "school.yaml"), "--students", "10"]) == 0
    assert students(tmp_path) == 9


def test_a_printed_config_gives_the_same_results(tmp_path, capsys):
    school = tmp_path / "school"
    assert main(["simulate", str(school), "--students", "40", "--questions", "16", "--answers", "12"]) == 0
    command = ["compare", "elo", "bkt", "--data", str(school / "train_data.csv"), "--json", str(tmp_path / "a.json")]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["models"] == ["elo", "bkt"]
    assert "# answers to learn from" in printed
    (tmp_path / "compare.yaml").write_text(printed.replace("a.json", "b.json"))
    assert main(["compare", "--config", str(tmp_path / "compare.yaml")]) == 0
    once, again = (json.loads((tmp_path / name).read_text())["models"] for name in ("a.json", "b.json"))
    assert once == again


def test_settings_of_a_model_stand_below_set(tmp_path, capsys):
    (tmp_path / "cv.yaml").write_text("model: elo\ndata: none.csv\nset:\n  weight: 0.3\n")
    assert main(["cv", "--config", str(tmp_path / "cv.yaml"), "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["set"] == {"weight": 0.3}


def test_one_setting_may_stand_as_on_the_command_line(tmp_path, capsys):
    for given in ("weight=0.3", "[weight=0.3]"):
        (tmp_path / "cv.yaml").write_text(f"model: elo\ndata: none.csv\nset: {given}\n")
        assert main(["cv", "--config", str(tmp_path / "cv.yaml"), "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["set"] == {"weight": 0.3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("students: [5, 6]", "students is [5, 6]; it is one value, not a list."),
        ("student: 5", "student is no setting of `dkt simulate`; did you mean students?"),
        ("students: many", "students: invalid int value: 'many'"),
        ("5", "holds no settings"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, capsys, text, message):
    (tmp_path / "school.yaml").write_text(text)
    assert main(["simulate", str(tmp_path), "--config", str(tmp_path / "school.yaml")]) == 2
    error = capsys.readouterr().err
    assert "school.yaml" in error
    assert message in error


def test_a_setting_that_the_model_does_not_take_is_named(tmp_path, capsys):
    assert main(["simulate", str(tmp_path), "--students", "20", "--questions", "16"]) == 0
    assert main(["cv", "elo", "--data", str(tmp_path / "train_data.csv"), "--set", "depth=3"]) == 2
    assert "elo does not take all of depth" in capsys.readouterr().err


def test_help_comes_without_loading_torch():
    code = "import sys; from dkt.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
