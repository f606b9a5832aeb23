from __future__ import annotations

import pickle

import pytest

from fulgurite.callbacks import Callback, TQDMProgressBar
from helpers.screen import visible
from helpers.tiny import Tiny, data, fit


def bar(kind: type = TQDMProgressBar, **settings) -> TQDMProgressBar:
    made = kind(**settings)
    made.interval = 0.0
    return made


def test_the_last_state_stays(capsys):
    fit(bar(), max_epochs=2)
    (line,) = visible(capsys.readouterr().out)
    assert line.startswith("Epoch 1: 100%")
    assert "4/4" in line
    assert "train_loss=0." in line


def test_bars_can_be_read_after_their_stage(capsys):
    at_ends = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            shown = trainer.progress_bar_callback.train_progress_bar
            at_ends.append((shown.n, shown.total))

    mine = TQDMProgressBar()  # which draws rarely
    trainer = fit(mine, Watch(), max_epochs=2)
    assert at_ends == [(4, 4)] * 2 and (mine.train_progress_bar.n, mine.train_progress_bar.total) == (4, 4)
    trainer.test(Tiny(), data(3), verbose=False)
    assert mine.test_progress_bar.total == 3 and mine.train_progress_bar.total == 4
    mine._trainer = None
    assert not pickle.loads(pickle.dumps(mine))._bars  # they hold the terminal


def test_leave_keeps_each_epoch(capsys):
    fit(bar(leave=True), max_epochs=2)
    assert [line[:13] for line in visible(capsys.readouterr().out)] == ["Epoch 0: 100%", "Epoch 1: 100%"]


def test_bars_can_be_overridden(capsys):
    class Mine(TQDMProgressBar):
        def init_train_tqdm(self):
            made = super().init_train_tqdm()
            made.bar_format = "{desc}|{n_fmt}|{postfix}"
            return made

        def get_metrics(self, trainer, pl_module):
            return {"auc": 0.5, "n": 3}

    fit(bar(Mine), max_epochs=1)
    assert visible(capsys.readouterr().out) == ["Epoch 0: |4|, auc=0.500, n=3"]


def test_bars_of_the_other_stages(capsys):
    trainer = fit(bar(), max_epochs=1)
    capsys.readouterr()
    trainer.validate(Tiny(), data(3), verbose=False)
    trainer.test(Tiny(), [data(3), data(2)], verbose=False)
    trainer.predict(Tiny(), data(2))
    lines = visible(capsys.readouterr().out)
    assert [line.split(":")[0] for line in lines] == ["Validation", "Testing DataLoader 1", "Predicting"]


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_bar_whose_start_does_not_call_ours_is_opened_when_it_is_drawn(stage, capsys):
    class Mine(TQDMProgressBar):
        def on_validation_start(self, trainer, pl_module): ...

        on_test_start = on_predict_start = on_validation_start

    trainer = fit(bar(Mine), max_epochs=1)
    capsys.readouterr()
    getattr(trainer, stage)(Tiny(), data(3))
    assert " 3/3 " in capsys.readouterr().out


def test_a_bar_that_is_not_there_yet():
    with pytest.raises(TypeError, match="no train bar yet"):
        TQDMProgressBar().train_progress_bar  # noqa: B018


def test_refresh_rate_zero_shows_nothing(capsys):
    shown = TQDMProgressBar(refresh_rate=0)
    fit(shown, max_epochs=1)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="refresh_rate=-1"):
        TQDMProgressBar(refresh_rate=-1)


def test_colab_is_drawn_less_often():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        assert TQDMProgressBar().refresh_rate == 20


def test_the_class_of_the_bars_can_be_imported():
    from fulgurite.callbacks.progress.tqdm_progress import Tqdm

    assert Tqdm.format_num(0.5) == "0.500"
