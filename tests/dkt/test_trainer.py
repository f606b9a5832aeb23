"""The course's `dkt.trainer`: its files, its refusals, and what is learned from."""

from __future__ import annotations

import logging
import runpy
import sys
from pathlib import Path

import pytest
import torch

from dkt import trainer
from dkt.args import parse_args
from dkt.data.simulate import simulate, write_school
from dkt.dataloader import Preprocess, get_loaders
from dkt.model import BERT, LSTM
from dkt.models.course import MODELS

COURSE = Path(__file__).parents[2] / "examples" / "course"
SMALL = ["--hidden_dim", "12", "--n_epochs", "2", "--lr", "0.01", "--max_seq_len", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    folder = tmp_path_factory.mktemp("school")
    answers, truth = simulate(students=80, questions=24, skills=6, concepts=3, answers_per_student=16, seed=1)
    write_school(answers, truth, folder)
    return folder


@pytest.fixture
def closed_log():
    """The course's log is the process's: put it back."""
    yield
    log = logging.getLogger("dkt")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)


def settings(school, *more):
    return parse_args(["--data_dir", str(school), *SMALL, *more])


def prepared(args):
    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    return preprocess.split_data(preprocess.get_train_data())


@pytest.mark.parametrize("name", MODELS)
def test_train_and_inference_end_in_the_courses_files(school, monkeypatch, closed_log, name):
    monkeypatch.syspath_prepend(str(COURSE))
    for script in ("train.py", "inference.py"):
        monkeypatch.setattr(sys, "argv", [script, "--data_dir", str(school), *SMALL, "--model", name])
        monkeypatch.delitem(sys.modules, "args", raising=False)
        runpy.run_path(str(COURSE / script), run_name="__main__")
    sys.modules.pop("args", None)
    kept = torch.load("models/best_model.pt", weights_only=True)
    assert set(kept) == {"epoch", "state_dict"}
    assert 1 <= kept["epoch"] <= 2
    lines = Path("outputs/submission.csv").read_bytes().decode().split("\n")
    assert lines[0] == "id,prediction"
    assert [line.split(",")[0] for line in lines[1:-1]] == [str(i) for i in range(8)]
    assert lines[-1] == ""
    assert all(0 < float(line.split(",")[1]) < 1 for line in lines[1:-1])
    assert {path.name for path in Path("asset").iterdir()} == {
        f"{column}_classes.npy" for column in ("assessmentItemID", "testId", "KnowledgeTag")
    }
    assert "saved submission" in Path("run.log").read_text()


def test_the_model_that_run_leaves_is_the_one_in_the_file(school):
    args = settings(school)
    train, valid = prepared(args)
    model = trainer.get_model(args)
    trainer.run(args, train, valid, model)
    again = trainer.load_model(args)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_all_positions_are_learned_from_where_the_model_is_causal_and_only_there(school):
    args = settings(school)
    prepared(args)
    assert trainer.learns_from_all(LSTM(), "auto")
    assert not trainer.learns_from_all(LSTM(), "last")
    assert not trainer.learns_from_all(BERT(), "auto")
    assert trainer.learns_from_all(BERT(causal=True), "auto")
    with pytest.raises(ValueError, match="--loss all needs a causal model: BERT"):
        trainer.learns_from_all(BERT(), "all")


def test_what_fills_a_history_up_weighs_nothing():
    preds, targets = torch.zeros(2, 3), torch.tensor([[0, 0, 1], [1, 1, 1]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    loss = trainer.compute_loss(preds.requires_grad_(), targets, mask)
    loss.backward()
    assert preds.grad[0, :2].abs().sum() == 0
    assert loss.item() == pytest.approx(torch.tensor(2.0).log().item())


def test_the_loss_of_the_course_is_of_the_last_position():
    preds = torch.zeros(2, 3, requires_grad=True)
    trainer.compute_loss(preds, torch.ones(2, 3)).backward()
    assert preds.grad[:, :-1].abs().sum() == 0
    assert preds.grad[:, -1].ne(0).all()


def test_windows_give_more_histories_to_learn_from_and_leave_validation_alone(school):
    args = settings(school, "--windows", "8:4")
    train, valid = prepared(args)
    windows, as_it_is = get_loaders(args, train, valid)
    assert len(as_it_is.dataset) == len(valid)
    assert len(windows.dataset) > 2 * len(train)
    assert windows.dataset.columns["mask"].sum(1).max() <= 8


def test_linear_warmup_rises_and_falls(school):
    args = settings(school, "--scheduler", "linear_warmup", "--optimizer", "adamW")
    train, valid = prepared(args)
    run = trainer.run(args, train, valid, trainer.get_model(args))
    assert isinstance(run.optimizers[0], torch.optim.AdamW)
    assert run.optimizers[0].param_groups[0]["lr"] < 0.01


def test_settings_of_another_training_are_named(school):
    args = settings(school)
    train, valid = prepared(args)
    trainer.run(args, train, valid, trainer.get_model(args))
    args.hidden_dim = 24
    with pytest.raises(ValueError, match="was not written by --model lstm with --hidden_dim 24"):
        trainer.load_model(args)


def test_a_misspelt_model_is_named(school):
    args = settings(school)
    args.model = "lsmt"
    with pytest.raises(ValueError, match="--model lsmt is unknown; choose one of lstm, lstmattn, bert"):
        trainer.get_model(args)


def test_a_model_before_the_data_says_what_to_do(school):
    with pytest.raises(ValueError, match="load_train_data"):
        trainer.get_model(settings(school))
