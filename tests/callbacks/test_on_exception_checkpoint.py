from __future__ import annotations

import os

import pytest
import torch

from fulgurite import Callback, Trainer
from fulgurite.callbacks import OnExceptionCheckpoint
from helpers.tiny import Tiny, data, fit


class Fails(Tiny):
    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            raise ValueError("broken")
        return super().training_step(batch, batch_idx)


def test_it_saves_when_a_run_fails():
    checkpoint = OnExceptionCheckpoint("out")
    with pytest.raises(ValueError, match="broken"):
        fit(checkpoint, model=Fails())
    assert checkpoint.ckpt_path == os.path.abspath("out/on_exception.ckpt")
    assert torch.load(checkpoint.ckpt_path, weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("ckpt_path", [None, "last"])
def test_the_next_fit_goes_on_from_it_and_a_good_end_removes_it(ckpt_path):
    class Seen(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch_idx)

    seen = []
    with pytest.raises(ValueError, match="broken"):
        fit(OnExceptionCheckpoint("out"), model=Fails())
    trainer = fit(OnExceptionCheckpoint("out"), Seen(), ckpt_path=ckpt_path, max_epochs=1)
    assert seen == [2, 3]
    assert trainer.global_step == 4
    assert not os.path.exists("out/on_exception.ckpt")


def test_an_interrupt_is_an_exception_too():
    class Interrupts(Tiny):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(OnExceptionCheckpoint("out", "mine"), model=Interrupts())
    assert os.path.exists("out/mine.ckpt")


def test_nothing_to_save_before_the_first_batch_and_outside_fit():
    class Broken(Tiny):
        def on_train_start(self):
            raise ValueError("broken")

        def test_step(self, batch, batch_idx):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fit(OnExceptionCheckpoint("out"), model=Broken())
    trainer = Trainer(callbacks=[OnExceptionCheckpoint("out")], logger=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match="broken"):
        trainer.test(Broken(), data())
    assert not os.path.exists("out")


def test_a_name_is_needed():
    with pytest.raises(ValueError, match="needs a name"):
        OnExceptionCheckpoint(".", "")
