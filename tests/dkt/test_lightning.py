"""The task under fulgurite's own command line: sizes follow from the data, its checkpoints are those of dkt train."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("jsonargparse", reason="needs the extra cli")

from dkt.cli import main
from dkt.lightning import AnswersData
from dkt.lightning import main as run_lightning

QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def lightning(monkeypatch):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lightning.py", *words])
        return run_lightning()

    return run


@pytest.fixture
def train(tmp_path):
    assert main(["simulate", str(tmp_path), "--students", "60", "--questions", "24", "--answers", "20"]) == 0
    return str(tmp_path / "train_data.csv")


def test_fit_leaves_a_checkpoint_that_dkt_evaluate_reads(lightning, train, tmp_path):
    small = ["--model.net=sakt", "--model.dict_kwargs.dim=8", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    cli = lightning("fit", f"--data.train={train}", *small, *QUIET)
    assert cli.model.hparams.n_skills == len(cli.datamodule.vocabulary.skills) > 8
    assert cli.model.hparams.dim == 8
    (checkpoint,) = Path("checkpoints").glob("*.ckpt")
    report = tmp_path / "report.json"
    assert main(["evaluate", str(checkpoint), train, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["test"]["auc"] > 0.5


def test_without_the_questions_a_net_has_none(train):
    data = AnswersData(train, rasch=False)
    assert data.n_questions == 0
    assert data.n_skills == len(data.train.skill_names)
    assert data.train.n_students + data.valid.n_students == 54


def test_a_printed_configuration_holds_what_was_given(lightning, train, capsys):
    given = ["--model.dict_kwargs.dim=8", "--trainer.max_epochs=3"]
    with pytest.raises(SystemExit, match="0"):
        lightning("fit", f"--data.train={train}", *given, "--print_config")
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["model"]["dict_kwargs"] == {"dim": 8}
    assert found["data"]["train"] == train
    assert found["trainer"]["max_epochs"] == 3


def test_data_for_another_module_is_refused(train):
    import fulgurite as pl
    from fulgurite.demos.boring_classes import BoringModel

    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(TypeError, match="batches for a DktTask, not for BoringModel"):
        trainer.fit(BoringModel(), AnswersData(train))
