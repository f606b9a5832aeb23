"""A fitted model, written and read again, predicts the same; what is no model is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dkt.data import DataError
from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.models.catalogue import NAMES, load_model, model_named
from dkt.models.elo import Elo
from dkt.models.hybrid import Stack
from dkt.models.logistic import IRT
from dkt.models.sequence import DKT
from dkt.models.trees import Trees
from helpers.extras import kinds_of_model

TRAIN, TEST = split_students(simulate(students=40, questions=24, skills=6, concepts=3)[0], (0.7, 0.3))
SMALL = {"trees": {"trees": 5}, "bkt": {"rounds": 1}, "hybrid": {"trees": 5, "epochs": 1}}


def fitted(name):
    nets = {} if name in ("elo", "irt", "pfa", "bkt", "trees") else {"dim": 8, "epochs": 1}
    return model_named(name, **SMALL.get(name, nets)).fit(TRAIN)


@pytest.mark.parametrize("name", kinds_of_model(*NAMES, "dkt-r+features"))
def test_a_saved_model_predicts_the_same(name, tmp_path):
    model = fitted(name)
    model.save(tmp_path / "model.pt")
    again = load_model(tmp_path / "model.pt")
    assert type(again) is type(model)
    assert again.title == model.title
    assert again.arguments() == model.arguments()
    assert np.array_equal(again.predict(TEST), model.predict(TEST))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_stack_is_saved_with_its_models(tmp_path):
    stack = Stack([Elo(), IRT(), DKT(epochs=1, dim=8)]).fit(TRAIN)
    stack.save(tmp_path / "stack.pt")
    again = load_model(tmp_path / "stack.pt")
    assert again.title == "Elo & IRT & DKT-R"
    assert np.array_equal(again.predict(TEST), stack.predict(TEST))


@pytest.mark.parametrize("name", kinds_of_model("dkt-r+features", "trees", "irt"))
def test_no_student_is_in_the_file(tmp_path, name):
    named = TRAIN.students(np.arange(TRAIN.n_students))
    named.student_names[:] = [f"pupil{i}" for i in range(named.n_students)]
    fitted(name).fit(named).save(tmp_path / name)
    assert b"pupil" not in (tmp_path / name).read_bytes()


def test_a_model_without_fit_says_so():
    for model in (Elo(), Trees(), DKT()):
        with pytest.raises(AttributeError, match="has learned nothing yet; call fit"):
            model.predict(TEST)
    with pytest.raises(AttributeError, match="DKT has no attribute 'taks'"):
        _ = DKT().taks


def test_what_is_no_model_is_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "other.pt")
    for text in ("hello", "userID,assessmentItemID,testId\n1,2,3\n", "student,answer\n", "0,1\n"):
        (tmp_path / "text").write_text(text)
        with pytest.raises(DataError, match="is not a saved model"):
            load_model(tmp_path / "text")
    with pytest.raises(DataError, match="neither a model that dkt saved"):
        load_model(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "absent")
