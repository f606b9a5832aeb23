from __future__ import annotations

import logging

from rich import reconfigure

from fulgurite.callbacks import ModelSummary, RichModelSummary
from helpers.tiny import fit


def test_the_table_is_logged_before_training(caplog):
    with caplog.at_level(logging.INFO, "fulgurite"):
        fit(ModelSummary(), max_epochs=1)
    assert "layer | Linear" in caplog.text
    assert "Total params" in caplog.text


def test_depth_zero_is_no_summary(caplog):
    with caplog.at_level(logging.INFO, "fulgurite"):
        fit(ModelSummary(max_depth=0), max_epochs=1)
    assert "Total params" not in caplog.text


def test_summarize_can_be_overridden_and_gets_the_keywords():
    seen = {}

    class Mine(ModelSummary):
        @staticmethod
        def summarize(summary_data, total_parameters, trainable_parameters, model_size, modes, **rest):
            seen.update(rest, columns=[heading for heading, _ in summary_data], total=total_parameters)

    fit(Mine(colour="blue"), max_epochs=1)
    assert seen["total"] == 5
    assert seen["colour"] == "blue"
    assert seen["columns"] == [" ", "Name", "Type", "Params", "Mode", "FLOPs"]


def test_rich_draws_the_same_cells(capsys):
    reconfigure(width=100)
    fit(RichModelSummary(), max_epochs=1)
    out = capsys.readouterr().out
    assert "Linear" in out
    assert "Total params" in out


def test_the_users_summary_replaces_the_default_one(caplog):
    with caplog.at_level(logging.INFO, "fulgurite"):
        fit(ModelSummary(max_depth=0), enable_model_summary=True, max_epochs=1)
    assert "Total params" not in caplog.text
