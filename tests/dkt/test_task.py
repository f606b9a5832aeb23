"""The task: what fills short sequences weighs nothing, and a checkpoint holds what prediction needs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import fulgurite as pl
from dkt.data.batches import sequence_loader
from dkt.data.simulate import simulate
from dkt.task import DktTask, masked_loss

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def answers():
    return simulate(students=40, questions=80, skills=12, concepts=4, answers_per_student=20)[0]


def test_the_loss_is_the_mean_over_real_rows(answers):
    task = DktTask.for_training(answers)
    batch = next(iter(sequence_loader(task.sequences(answers), 2000, shuffle=True)))
    logits = torch.randn(batch["mask"].shape)
    real = batch["mask"]
    expected = binary_cross_entropy_with_logits(logits[real], batch["answer"][real].float())
    torch.testing.assert_close(masked_loss(logits, batch), expected)
    logits[~real] = 1e4
    torch.testing.assert_close(masked_loss(logits, batch), expected)


def test_an_epoch_lowers_the_loss_and_logs_both_aucs(answers):
    task = DktTask.for_training(answers, dim=8, hidden=8)
    trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, num_sanity_val_steps=0, **QUIET)
    loader = sequence_loader(task.sequences(answers), 400, shuffle=True)
    trainer.fit(task, loader, sequence_loader(task.sequences(answers), 2000))
    logged = trainer.callback_metrics
    assert {"train_loss", "valid_auc", "valid_auc_leakfree", "valid_accuracy", "valid_log_loss"} <= set(logged)
    assert logged["train_loss"] < 0.69
    assert logged["valid_auc"] > 0.5


def test_a_checkpoint_is_plain_data_and_knows_its_skills_and_questions(answers, tmp_path):
    task = DktTask.for_training(answers, dim=8, hidden=8)
    trainer = pl.Trainer(max_steps=1, enable_checkpointing=False, **QUIET)
    loader = sequence_loader(task.sequences(answers), 400, shuffle=True)
    trainer.fit(task, loader, loader)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["vocabulary"]["skills"] == answers.skill_names
    loaded = DktTask.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.vocabulary == task.vocabulary
    assert loaded.hparams == task.hparams
    batch = next(iter(sequence_loader(task.sequences(answers), 2000)))
    assert torch.equal(loaded.eval()(batch), task.eval()(batch))


def test_without_rasch_there_is_no_scalar_of_a_question(answers):
    task = DktTask.for_training(answers, rasch=False)
    assert task.model.scalar is None
    assert task.vocabulary.questions == []


def test_a_resumed_run_ends_with_the_same_weights(answers, tmp_path):
    def save(trainer, module, outputs, batch, batch_idx):
        trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def run(ckpt_path=None, **hooks):
        pl.seed_everything(3, verbose=False)
        task = DktTask.for_training(answers, dim=8, hidden=8)
        callbacks = [pl.callbacks.LambdaCallback(**hooks)]
        trainer = pl.Trainer(max_epochs=2, callbacks=callbacks, enable_checkpointing=False, **QUIET)
        valid = sequence_loader(task.sequences(answers), 2000)
        trainer.fit(task, sequence_loader(task.sequences(answers), 400, shuffle=True), valid, ckpt_path=ckpt_path)
        return task.state_dict(), trainer.global_step

    whole, steps = run(on_train_batch_end=save)
    for saved in (2, steps // 2, steps - 1):
        resumed, _ = run(ckpt_path=tmp_path / f"{saved}.ckpt")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
