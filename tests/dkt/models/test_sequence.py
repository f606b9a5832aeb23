"""The interface of all models: fit, predict, evaluate, cross-validate, on the rows of the protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fulgurite as pl
from dkt.data.batches import sequence_loader
from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.evaluate import auc, baselines
from dkt.models.catalogue import SEQUENCE, load_model, model_named
from dkt.models.elo import Elo
from dkt.models.hybrid import Stack
from dkt.models.logistic import IRT
from dkt.models.sequence import DKT

TRAIN, TEST = split_students(simulate(students=120, questions=40, skills=8, concepts=3)[0], (0.7, 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("features", [False, True], ids=["plain", "features"])
@pytest.mark.parametrize("name", SEQUENCE)
def test_every_net_learns_something_in_a_few_steps(name, features):
    model = SEQUENCE[name](epochs=6, cells=500, lr=0.02, dim=16, features=features).fit(TRAIN)
    p = model.predict(TEST)
    right = TEST.answer.astype(bool)
    assert auc(right, p) > auc(right, baselines(TRAIN, TEST)["rate of the skill"])


def test_the_best_epoch_is_kept_and_training_stops_after_it():
    model = DKT(epochs=30, patience=1, lr=0.1, cells=500, dim=8, hidden=8).fit(TRAIN)
    assert len(model.history) < 30
    valid = split_students(TRAIN, (0.9, 0.1), 0)[1]
    assert model.evaluate(valid).score.auc == pytest.approx(max(model.history), abs=1e-6)


def test_a_hybrid_is_the_same_after_a_checkpoint_of_its_task(tmp_path):
    model = DKT(epochs=1, features=True, dim=8, hidden=8).fit(TRAIN)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(model.task, sequence_loader(model.task.sequences(TEST), 2000), verbose=False)
    trainer.save_checkpoint(tmp_path / "hybrid.ckpt")
    again = load_model(tmp_path / "hybrid.ckpt")
    assert again.title == "DKT-R + features"
    assert np.array_equal(again.predict(TEST), model.predict(TEST))


def test_a_prediction_of_a_hybrid_does_not_know_its_own_answer_or_later_ones():
    model = DKT(epochs=1, features=True, dim=8, hidden=8).fit(TRAIN)
    rows = TEST.offsets[:-1] + 3
    later = np.arange(len(TEST)) >= np.repeat(rows, TEST.lengths)
    turned = replace(TEST, answer=np.where(later, 1 - TEST.answer, TEST.answer).astype(np.int8))
    assert np.array_equal(model.predict(turned)[rows], model.predict(TEST)[rows])


def test_a_stack_is_no_worse_than_its_best_model_on_what_it_was_weighed_on():
    train, valid = split_students(TRAIN, (0.7, 0.3))
    stack = Stack([Elo(), IRT()]).fit(train, valid)
    alone = [model.evaluate(valid).score.log_loss for model in stack.models]
    assert stack.evaluate(valid).score.log_loss < min(alone) + 1e-3
    assert stack.title == "Elo & IRT"


def test_a_stack_of_different_protocols_is_refused():
    with pytest.raises(ValueError, match="Elo: another protocol than the stack's"):
        Stack([Elo(protocol="last")])


@pytest.mark.parametrize(
    ("given", "batches", "expected"),
    [
        ({}, 100, (8, 3)),
        ({}, 22, (28, 7)),
        ({}, 1, (40, 10)),
        ({"epochs": 5}, 1, (5, 3)),
        ({"patience": 2}, 100, (8, 2)),
    ],
    ids=["large", "small", "tiny", "epochs given", "patience given"],
)
def test_small_data_gets_more_epochs_unless_they_are_given(given, batches, expected):
    assert DKT(**given).schedule([None] * batches) == expected


def test_the_scalar_of_a_question_is_read_or_learned():
    read, learned = (DKT(scalar=scalar).new_task(TRAIN) for scalar in ("out-of-fold", "learned"))
    assert read.features.names == ("question_ease",)  # tests/dkt/test_features.py: it knows nothing of its own row
    assert read.model.scalar.question_ease is None
    assert learned.features is None
    assert learned.model.scalar.question_ease.num_embeddings == len(TRAIN.question_names) + 1
    with pytest.raises(ValueError, match="scalar='guessed' is unknown; choose one of learned, out-of-fold"):
        DKT(scalar="guessed").new_task(TRAIN)


def test_names_of_the_catalogue():
    assert model_named("dkt").title == "DKT"
    assert model_named("akt-r+features", epochs=2).title == "AKT-R + features"
    assert model_named("akt", epochs=2).epochs == 2
    with pytest.raises(ValueError, match="model 'gpt' is unknown; choose from elo, irt"):
        model_named("gpt")


def test_only_the_last_rows_count_under_that_protocol():
    assert Elo(protocol="last").fit(TRAIN).evaluate(TEST).score.n == TEST.n_students


@pytest.mark.parametrize("name", ["elo", "irt", "dkt-r"])
def test_rows_to_be_predicted_are_not_learned_from(name):
    hidden = np.where(np.arange(len(TRAIN)) % 3 == 2, -1, TRAIN.answer).astype(np.int8)
    asking = replace(TRAIN, answer=hidden)
    model = model_named(name, **({"epochs": 1, "dim": 8, "hidden": 8} if name == "dkt-r" else {}))
    once = model.fit(asking, asking).predict(TEST)
    assert np.array_equal(model.fit(asking.answered(), asking.answered()).predict(TEST), once)
    found = Elo().cross_validate(asking, folds=3)
    assert not np.isnan(found.out_of_fold).any()
    assert sum(report.score.n for report in found.reports) == len(asking.answered())
