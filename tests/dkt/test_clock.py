"""The clock counts training and leaves validation out."""

from __future__ import annotations

import time

import pytest

import fulgurite as pl
from dkt.clock import TrainingClock
from dkt.data.batches import sequence_loader
from dkt.data.simulate import simulate
from dkt.task import DktTask


class SlowToValidate(DktTask):
    def on_validation_epoch_end(self):
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        self._seen.clear()


@pytest.mark.parametrize("sanity", [0, 2])
def test_the_clock_counts_answers_and_epochs_and_not_the_time_of_validation(sanity):
    answers, _ = simulate(students=20, questions=80, skills=12, concepts=4, answers_per_student=10)
    task, clock = SlowToValidate.for_training(answers, dim=4, hidden=4), TrainingClock()
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[clock],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=sanity,
    )
    loader = sequence_loader(task.sequences(answers), 2000)
    trainer.fit(task, loader, loader)
    assert clock.epochs == 2
    assert clock.interactions == 2 * len(answers)
    assert 0 < clock.cpu_seconds < 0.5
