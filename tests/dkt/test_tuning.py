"""dkt tune: what is tried, that the best is found and handed on, and what says nothing to try."""

from __future__ import annotations

import json
from functools import partial

import pytest
import yaml

from dkt.cli import main
from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.evaluate import auc
from dkt.models.catalogue import NAMES, model_named
from dkt.models.elo import Elo
from dkt.tuning import SPACES, Choice, space_of, tune

pytestmark = pytest.mark.needs("optuna")
TRAIN, VALID = split_students(simulate(students=60, questions=24, skills=6, concepts=3)[0], (0.7, 0.3))


class Fixed:
    """Answers as optuna's trial would: what it was asked for."""

    def suggest_int(self, *asked, **more):
        return "int", asked, more

    def suggest_float(self, *asked, **more):
        return "float", asked, more

    def suggest_categorical(self, *asked):
        return "categorical", asked


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("16|32", ("categorical", ("x", [16, 32]))),
        ("lstm|gru", ("categorical", ("x", ["lstm", "gru"]))),
        ("true|false", ("categorical", ("x", [True, False]))),
        ("1..8", ("int", ("x", 1, 8), {"log": False})),
        ("0.0..0.5", ("float", ("x", 0.0, 0.5), {"log": False})),
        ("1e-3..1e-2:log", ("float", ("x", 1e-3, 1e-2), {"log": True})),
    ],
)
def test_texts_say_what_to_try(text, asked):
    assert Choice(text).suggest(Fixed(), "x") == asked


@pytest.mark.parametrize("text", ["5", "a..b", "1..2:lin", "3..1", "0..1:log", "1..1"])
def test_texts_that_say_nothing_are_refused(text):
    with pytest.raises(ValueError, match=text):
        Choice(text)


@pytest.mark.parametrize("name", [*(n for n in NAMES if n not in ("irt", "pfa", "bkt", "hybrid")), "dkt-r+features"])
def test_what_is_tried_of_each_model_is_a_setting_that_it_takes(name):
    settings = {key: Choice(choice.text).suggest(None) for key, choice in space_of(name).items()}
    assert settings
    model = model_named(name, **{key: values[0] for key, values in settings.items()})
    if name not in SPACES:
        model.new_task(TRAIN)


def test_a_model_of_which_nothing_is_known_says_how_to_say_it():
    with pytest.raises(ValueError, match="--try NAME=1"):
        space_of("bkt")


def test_the_best_trial_is_the_best_of_those_that_were_told():
    heard = []
    best = tune(Elo, {"weight": Choice("0.05..2.0")}, TRAIN, VALID, 5, told=heard.append)
    assert len(heard) == 5
    assert best.auc == max(trial.auc for trial in heard)
    model = Elo(**best.settings).fit(TRAIN)
    assert auc(VALID.answer.astype(bool), model.predict(VALID)) == best.auc


def test_the_same_seed_tries_the_same():
    heard = [[], []]
    for one in heard:
        tune(Elo, {"weight": Choice("0.05..2.0")}, TRAIN, VALID, 3, seed=1, told=one.append)
    assert [t.settings for t in heard[0]] == [t.settings for t in heard[1]]


def test_a_search_that_was_kept_goes_on(tmp_path):
    heard, storage = [], f"sqlite:///{tmp_path}/tune.db"
    for _ in range(2):
        tune(Elo, {"weight": Choice("0.05..2.0")}, TRAIN, VALID, 2, told=heard.append, storage=storage)
    assert [trial.number for trial in heard] == [0, 1, 2, 3]
    assert len({trial.settings["weight"] for trial in heard}) == 4
    tune(Elo, {"weight": Choice("0.05..2.0")}, VALID, TRAIN, 1, told=heard.append, storage=storage)
    assert heard[-1].number == 0  # figures of other answers are another search


def test_only_rows_that_the_protocol_scores_choose():
    last = partial(Elo, protocol="last")
    best = tune(last, {"weight": Choice("0.05..2.0")}, TRAIN, VALID, 1)
    assert best.auc == last(**best.settings).fit(TRAIN).evaluate(VALID).score.auc


def test_the_best_settings_are_a_config_of_dkt_train(tmp_path, capsys):
    assert main(["simulate", str(tmp_path), "--students", "60", "--questions", "24", "--answers", "20"]) == 0
    train, best = str(tmp_path / "train_data.csv"), tmp_path / "best.yaml"
    command = ["tune", "dkt-r", "--data", train, "--trials", "2", "--epochs", "1", "--set", "hidden=8"]
    command += ["--try", "dim=8|16"]
    assert main([*command, "--out", str(best), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["trials"]) == 2
    assert yaml.safe_load(best.read_text())["set"] == found["best"]["settings"]
    assert set(found["best"]["settings"]) == {"dim", "hidden"}
    assert main(["train", train, "--config", str(best), "--out", str(tmp_path)]) == 0
    more = ["--lr", "0.02", "--merge", "--drop-twins", "--format", "course"]
    assert main([*command, *more, "--out", str(best)]) == 0
    written = yaml.safe_load(best.read_text())
    assert {"lr": 0.02, "merge": True, "drop_twins": True, "format": "course"}.items() <= written.items()
    assert main(["train", train, "--config", str(best), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main([*command, "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["try"] == {"dim": "8|16"}
