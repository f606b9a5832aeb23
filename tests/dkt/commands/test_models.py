"""What --set and the arguments of nets give to which model, and what is refused before anything is fitted."""

from __future__ import annotations

import argparse

import pytest

from dkt.cli import main
from dkt.commands.models import add_fitting_arguments, model_of


def made(name, *argv):
    command = argparse.ArgumentParser()
    add_fitting_arguments(command)
    return model_of(name, command.parse_args(argv))


@pytest.mark.needs("lightgbm")
def test_each_model_of_a_stack_is_set_as_alone():
    argv = ["--patience", "3", "--lr", "0.5", "--cells", "1600", "--set", "dkt-r.dim=32", "--set", "trees.num_leaves=7"]
    stack = made("trees,dkt-r", *argv, "--seed", "4")
    alone = [made(name, *argv, "--seed", "4").arguments() for name in ("trees", "dkt-r")]
    assert [model.arguments() for model in stack.models] == alone
    assert alone[0]["patience"] == 40
    assert alone[0]["num_leaves"] == 7
    assert "lr" not in alone[0]
    assert (alone[1]["patience"], alone[1]["lr"], alone[1]["dim"], stack.seed) == (3, 0.5, 32, 4)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("0.5", 0.5), ("3", 3), ("gru", "gru"), ("true", True)])
def test_a_value_is_a_number_wherever_it_reads_as_one(text, value):
    assert made("dkt", "--set", f"lr={text}").lr == value


def test_a_value_that_is_no_yaml_is_a_fault_of_the_command_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        made("dkt", "--set", "dim=[1")
    assert "'dim=[1': the value is not YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["compare", "elo", "irt", "--set", "akt-r.dim=128"], "akt-r is none of the models here (elo, irt)"),
        (["compare", "elo", "dkt-r", "--set", "dkt-r.dimm=16"], "dkt-r does not take all of dimm: DKT has no dimm"),
        (["compare", "elo,dkt-r", "--set", "dktr.dim=16"], "dktr is none of the models here (elo, dkt-r)"),
        (["compare", "elo,irt", "--epochs", "3"], "--epochs: elo,irt is no net"),
        (["tune", "dkt-r", "--try", "dkt.dim=8|16"], "dkt is none of the models here (dkt-r)"),
        pytest.param(
            ["cv", "trees", "--set", "num_leavs=3"],
            "LightGBM has no parameter num_leavs; the nearest is num_leaves",
            marks=pytest.mark.needs("lightgbm"),
        ),
        (["cv", "dktplus", "--set", "wavines=1"], "dktplus does not take all of wavines"),
    ],
)
def test_a_setting_that_no_model_takes_is_refused_before_anything_is_fitted(tmp_path, capsys, command, message):
    (tmp_path / "three.csv").write_text("2\n1,1\n0,1\n")
    assert main([*command, "--data", str(tmp_path / "three.csv")]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "AUC" not in printed.out
