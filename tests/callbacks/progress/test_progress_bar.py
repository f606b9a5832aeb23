from __future__ import annotations

import sys
import time

import pytest

from fulgurite import Callback
from fulgurite.callbacks import ProgressBar
from fulgurite.callbacks.progress.progress_bar import TimedProgressBar, as_text
from fulgurite.loggers import CSVLogger
from helpers.tiny import Tiny, data, fit


class Recorded(TimedProgressBar):
    """Draws into a list."""

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate)
        self.interval, self.drawn = 0.0, []

    def _open(self, bar):
        self.drawn.append(("open", bar, self.total(bar), self.description(bar)))

    def _draw(self, bar, done):
        self.drawn.append((bar, done))

    def _close(self, bar):
        self.drawn.append(("close", bar))


def test_a_fit_from_start_to_end():
    bar = Recorded()
    fit(bar, max_epochs=1, num_sanity_val_steps=1)
    assert bar.drawn == [
        ("open", "sanity", 1, "Sanity Checking"),
        ("sanity", 1),
        ("close", "sanity"),
        ("open", "train", 4, "Epoch 0"),
        *(("train", i) for i in range(1, 5)),
        ("open", "validation", 1, "Validation"),
        ("validation", 1),
        ("close", "validation"),
        ("close", "train"),
    ]


def test_an_epoch_resumed_in_its_middle_has_a_bar():
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint("middle.ckpt")

    bar = Recorded()
    fit(Save(), max_epochs=1)
    fit(bar, max_epochs=1, ckpt_path="middle.ckpt")
    assert bar.drawn[:3] == [("open", "train", 4, "Epoch 0"), ("train", 3), ("train", 4)]


def test_a_bar_enabled_in_mid_run_is_opened_when_it_is_drawn():
    class Enable(Callback):
        def on_train_start(self, trainer, pl_module):
            bar.disable()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 2:
                bar.enable()

    bar = Recorded()
    fit(Enable(), bar, max_epochs=1)
    assert bar.drawn[:3] == [("open", "train", 4, "Epoch 0"), ("train", 3), ("train", 4)]


def test_bars_whose_starts_and_ends_are_the_users_own_are_opened_when_they_are_drawn():
    class Own(Recorded):
        def on_train_epoch_start(self, trainer, pl_module): ...

        on_validation_start = on_validation_end = on_train_epoch_start

    bar = Own()
    fit(bar, max_epochs=1, num_sanity_val_steps=1)
    opened = [event[1] for event in bar.drawn if event[0] == "open"]
    assert opened == ["sanity", "train", "validation"]


def test_several_loaders_are_named():
    bar = Recorded()
    trainer = fit(bar, max_epochs=1)
    bar.drawn.clear()
    trainer.predict(Tiny(), [data(2), data(1)])
    assert bar.drawn == [
        ("open", "predict", 2, "Predicting DataLoader 0"),
        ("predict", 1),
        ("predict", 2),
        ("open", "predict", 1, "Predicting DataLoader 1"),
        ("predict", 1),
        ("close", "predict"),
    ]


def test_refresh_rate_counts_batches():
    bar = Recorded(refresh_rate=3)
    bar.setup(fit(max_epochs=1), Tiny(), "fit")
    bar.on_train_epoch_start(bar.trainer, bar.trainer.lightning_module)
    for i in range(7):
        bar._next = 0.0
        bar.on_train_batch_end(bar.trainer, None, None, None, i)
    assert bar.drawn[1:] == [("train", 1), ("train", 4), ("train", 7)]


def test_slow_batches_are_drawn_whatever_the_refresh_rate():
    bar = Recorded(refresh_rate=1000)
    bar.patience = 0.0
    fit(bar, max_epochs=1)
    assert ("train", 1) in bar.drawn


def test_refresh_rate_zero_draws_nothing():
    bar = Recorded(refresh_rate=0)
    fit(bar, max_epochs=1)
    assert bar.drawn == []
    assert bar.is_disabled


def test_it_draws_by_time():
    bar = Recorded()
    bar.interval = 60.0
    fit(bar, max_epochs=5)
    assert [event for event in bar.drawn if event[0] == "train"] == [("train", 1)]


def test_a_step_without_drawing_costs_one_call():
    bar = Recorded()
    bar._next = time.monotonic() + 60
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(frame.f_code.co_name) if event == "call" else None)
    bar.on_train_batch_end(None, None, None, None, 0)
    sys.setprofile(None)
    assert calls == ["on_train_batch_end"]


def test_what_it_knows_of_the_trainer():
    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append((bar.total_train_batches, bar.total_val_batches))

    class Plain(ProgressBar):
        def disable(self): ...

    seen, bar = [], Plain()
    fit(bar, Look(), max_epochs=2, check_val_every_n_epoch=2)
    assert seen == [(4, 0), (4, 1)]


def test_without_trainer_it_says_so():
    with pytest.raises(TypeError, match="belongs to no trainer yet"):
        ProgressBar().total_train_batches  # noqa: B018


def test_loader_changes_are_seen_once():
    bar = ProgressBar()
    assert [bar.has_dataloader_changed(i) for i in (0, 0, 1, 1)] == [True, False, True, False]
    bar.reset_dataloader_idx_tracker()
    assert bar.has_dataloader_changed(1)


@pytest.mark.parametrize(("version", "shown"), [(3, 3), ("a-long-name", "name")])
def test_metrics_shown_are_the_version_and_what_was_logged_for_the_bar(version, shown):
    trainer = fit(logger=CSVLogger(".", version=version), max_epochs=1)
    metrics = ProgressBar().get_metrics(trainer, trainer.lightning_module)
    assert list(metrics) == ["v_num", "train_loss"]
    assert metrics["v_num"] == shown


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (0.5, "0.500"), (1e-5, "1.00e-05"), (0.0, "0.000"), ("ab", "ab")]
)
def test_numbers_as_text(value, text):
    assert as_text(value) == text
