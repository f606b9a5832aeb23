from __future__ import annotations

import io
import re
import sys

import pytest

from fulgurite import Callback
from fulgurite.callbacks.progress import PlainProgressBar, RichProgressBar, default_progress_bar
from fulgurite.loggers import CSVLogger
from helpers.tiny import Tiny, data, fit


def test_a_short_run_is_the_closing_line_however_many_epochs(capsys, caplog):
    fit(PlainProgressBar(seconds=60), max_epochs=50)
    assert capsys.readouterr() == ("", "")
    assert re.match(r"Trained 50 epochs, 200 steps in 0:\d\d \| train_loss [\d.e-]+", caplog.messages[-1])


def test_lines_say_where_how_fast_and_what(capsys):
    fit(PlainProgressBar(seconds=0), max_epochs=2, logger=CSVLogger(".", version=3))
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Epoch 0/1: 1/4 \| [\d.]+ it/s, 0:00 left \| v_num 3 \| train_loss [\d.]+", lines[0])
    assert lines[4].startswith("Validation: 1/1 | ")
    assert lines[-1].startswith("Validation: 1/1 | ")


def test_the_rate_of_a_run_resumed_in_mid_epoch_is_that_of_its_own_batches(capsys):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint("middle.ckpt")

    fit(Save(), max_epochs=1)
    fit(PlainProgressBar(seconds=0), max_epochs=1, ckpt_path="middle.ckpt")
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert first.startswith("Epoch 0: 3/4 | train_loss ")
    assert re.match(r"Epoch 0: 4/4 \| [\d.]+ it/s, 0:00 left", second)


def test_one_epoch_is_not_zero_of_zero(capsys):
    fit(PlainProgressBar(seconds=0), max_epochs=1)
    assert capsys.readouterr().err.startswith("Epoch 0: 1/4")


def test_prediction_shows_progress_too(capsys):
    trainer = fit(PlainProgressBar(seconds=0), max_epochs=1)
    capsys.readouterr()
    trainer.predict(Tiny(), data(2))
    assert [line.split(" |")[0] for line in capsys.readouterr().err.splitlines()] == [
        "Predicting: 1/2",
        "Predicting: 2/2",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stdout", "term", "modules", "kind"),
    [
        (io.StringIO(), "xterm", (), PlainProgressBar),
        (Terminal(), "xterm", (), RichProgressBar),
        (Terminal(), "dumb", (), PlainProgressBar),
        (io.StringIO(), "xterm", ("ipykernel",), RichProgressBar),
    ],
)
def test_which_bar_a_run_shows(stdout, term, modules, kind):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setenv("TERM", term)
        for name in modules:
            patch.setitem(sys.modules, name, sys)
        assert type(default_progress_bar()) is kind


def test_it_is_what_a_trainer_uses_where_there_is_no_terminal(capsys, caplog):
    trainer = fit(enable_progress_bar=True, max_epochs=1)
    assert isinstance(trainer.progress_bar_callback, PlainProgressBar)
    assert (capsys.readouterr().err, len(caplog.messages)) == ("", 1)
