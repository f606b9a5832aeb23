"""The LightGCN program: one way nothing travels, both ways something does and predicts better; the course's files."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import warnings
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).parents[2] / "examples" / "course" / "lightgcn.py"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    monkeypatch.delitem(__import__("sys").modules, "lightgcn", raising=False)
    return importlib.import_module("lightgcn")


def test_both_aucs_and_a_submission(program, school, capsys):
    program.main(["--data_dir", str(school), "--hidden_dim", "8", "--n_epochs", "12"])
    out = capsys.readouterr().out
    assert "one way: the layers add at most 0.0 to any embedding" in out
    one = re.search(r"one way \(the course\) +(\S+) +(\S+)", out)
    both = re.search(r"both ways, signed +(\S+) +(\S+)", out)
    assert float(both[1]) > float(one[1]) + 0.005
    assert 0 <= float(both[2]) <= 1
    lines = Path("outputs/submission.csv").read_text().splitlines()
    assert lines[0] == "id,prediction"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(20)]
    assert all(0 < float(line.split(",")[1]) < 1 for line in lines[1:])
    assert Path("models/lightgcn_both_ways/best.ckpt").exists()


def test_the_normalisation_of_edges_one_way_is_all_zeros(program):
    student, question = torch.tensor([0, 0, 1]), torch.tensor([2, 3, 3])
    assert not program.adjacency(student, question, torch.ones(3), 4).to_dense().any()


def test_edges_both_ways_are_a_symmetric_matrix_with_the_signs_of_the_answers(program):
    student, question, sign = torch.tensor([0, 0, 1]), torch.tensor([2, 3, 3]), torch.tensor([1.0, -1.0, 1.0])
    both = torch.cat([student, question]), torch.cat([question, student])
    dense = program.adjacency(*both, torch.cat([sign, sign]), 4).to_dense()
    assert torch.equal(dense, dense.T)
    expected = torch.tensor([[2**-0.5, -0.5], [0, 2**-0.5]])
    torch.testing.assert_close(dense[:2, 2:], expected)


def test_what_is_predicted_is_not_in_the_graph_that_predicts_it(program, school):
    answers = program.Answers(school, both_ways=True, seed=0)
    whole = {(s, q) for s, q in zip(answers.student.tolist(), answers.question.tolist(), strict=True)}
    assert len(whole) == len(answers.student)
    for loader, left_out in ((answers.train_loader(), answers.valid), (answers.valid_loader(), answers.valid)):
        for batch in loader:
            edges = batch["graph"].to_dense()
            assert not edges[batch["student"], batch["question"]].any()
            assert not edges[answers.student[left_out], answers.question[left_out]].any()
            assert edges.any()


def test_asked_answers_are_predicted_by_the_graph_of_all_known_ones(program, school):
    answers = program.Answers(school, both_ways=True, seed=0)
    (batch,) = answers.asked_loader()
    edges = batch["graph"].to_dense()
    assert edges[answers.student[answers.known], answers.question[answers.known]].ne(0).all()
    assert not edges[batch["student"], batch["question"]].any()
    assert batch["student"].tolist() == sorted(batch["student"].tolist())


@pytest.mark.parity
def test_same_weights_as_with_lightning(school, tmp_path, monkeypatch):
    found = []
    for line in ("import fulgurite as pl", "import lightning.pytorch as pl"):
        names, text = {"__name__": "lightgcn_program"}, PROGRAM.read_text().replace("import fulgurite as pl", line)
        folder = tmp_path / line.split()[1]
        folder.mkdir()
        monkeypatch.chdir(folder)
        small = {"hidden_dim": 8, "n_layers": 2, "n_epochs": 3, "patience": 3, "lr": 0.03, "seed": 1}
        args = argparse.Namespace(data_dir=str(school), output_dir="o", model_dir="m", **small)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs are not the subject
            exec(compile(text, str(PROGRAM), "exec"), names)
            found.append(names["run"](args, True))
    monkeypatch.chdir(tmp_path)
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # importing lightning sets it
    (ours, our_auc, our_predictions), (theirs, their_auc, their_predictions) = found
    assert our_auc == their_auc
    assert torch.equal(our_predictions, their_predictions)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
