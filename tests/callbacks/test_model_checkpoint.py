from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml

from fulgurite import Callback
from fulgurite.callbacks import ModelCheckpoint
from fulgurite.loggers import CSVLogger
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, fit, names


def saved(path: str | Path) -> tuple[int, int]:
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint["epoch"], checkpoint["global_step"]


class Spy(Callback):
    """Notes which files there are at the start of each batch."""

    def __init__(self, folder: str) -> None:
        self.folder, self.seen = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(names(self.folder) if os.path.isdir(self.folder) else [])


# names and folders
def test_without_monitor_the_newest_epoch_is_kept():
    checkpoint = ModelCheckpoint("out")
    fit(checkpoint)
    assert names("out") == ["epoch=2-step=12.ckpt"]
    assert checkpoint.best_model_path == str(Path("out/epoch=2-step=12.ckpt").resolve())


def test_save_top_k_minus_one_keeps_all_and_zero_none():
    fit(ModelCheckpoint("all", save_top_k=-1))
    assert names("all") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"]
    fit(ModelCheckpoint("none", save_top_k=0))
    assert not os.path.exists("none")


def test_files_go_beside_the_first_loggers_files():
    checkpoint = ModelCheckpoint()
    fit(checkpoint, logger=CSVLogger("logs", version="abc"))
    assert checkpoint.dirpath == os.path.abspath("logs/lightning_logs/abc/checkpoints")
    assert names(checkpoint.dirpath) == ["epoch=2-step=12.ckpt"]


def test_without_logger_files_go_below_the_root():
    fit(ModelCheckpoint(), default_root_dir="root")
    assert names("root/checkpoints") == ["epoch=2-step=12.ckpt"]


@pytest.mark.parametrize(
    ("template", "insert", "expected"),
    [
        (None, True, "epoch=1-step=8.ckpt"),
        ("{epoch:02d}-{val_loss:.3f}", True, "epoch=01-val_loss=0.026.ckpt"),
        ("{epoch:02d}-{val_loss:.3f}", False, "01-0.026.ckpt"),
        ("v{val/acc:.1f}", False, "v0.5.ckpt"),
        ("plain", True, "plain.ckpt"),
    ],
)
def test_templates(template, insert, expected):
    metrics = {"epoch": torch.tensor(1), "step": torch.tensor(8), "val_loss": torch.tensor(0.026), "val/acc": 0.5}
    checkpoint = ModelCheckpoint(filename=template, auto_insert_metric_name=insert)
    assert checkpoint.format_checkpoint_name(metrics) == expected


def test_version_and_prefix_in_names():
    metrics = {"epoch": 1, "step": 8}
    assert ModelCheckpoint().format_checkpoint_name(metrics, ver=2, prefix="p") == "p-epoch=1-step=8-v2.ckpt"


def test_a_taken_name_gets_a_version():
    Path("out").mkdir()
    Path("out/model.ckpt").touch()
    Path("out/last.ckpt").touch()
    with pytest.warns(UserWarning, match="exists and is not empty"):
        fit(ModelCheckpoint("out", filename="model", save_last=True), max_epochs=1)
    assert names("out") == ["last-v1.ckpt", "last.ckpt", "model-v1.ckpt", "model.ckpt"]


def test_without_version_counter_a_taken_name_is_overwritten():
    fit(ModelCheckpoint("out", filename="model", enable_version_counter=False, save_top_k=-1))
    assert names("out") == ["model.ckpt"]
    assert saved("out/model.ckpt") == (2, 12)


# ranking
def test_the_k_best_are_kept():
    checkpoint = ModelCheckpoint("out", monitor="val_loss", save_top_k=2, filename="{epoch}-{val_loss:.0f}")
    fit(checkpoint, model=Tiny([5, 3, 4, 2, 6]), max_epochs=5)
    assert names("out") == ["epoch=1-val_loss=3.ckpt", "epoch=3-val_loss=2.ckpt"]
    assert checkpoint.best_model_score == 2
    assert checkpoint.kth_value == 3
    assert checkpoint.best_model_path.endswith("epoch=3-val_loss=2.ckpt")
    assert checkpoint.kth_best_model_path.endswith("epoch=1-val_loss=3.ckpt")


def test_mode_max_ranks_the_other_way():
    checkpoint = ModelCheckpoint("out", monitor="val_loss", mode="max")
    fit(checkpoint, model=Tiny([5, 7, 6]))
    assert names("out") == ["epoch=1-step=8.ckpt"]
    assert checkpoint.best_model_score == 7


def test_nan_is_the_worst():
    checkpoint = ModelCheckpoint("out", monitor="val_loss")
    fit(checkpoint, model=Tiny([float("nan"), 9, float("nan")]))
    assert names("out") == ["epoch=1-step=8.ckpt"]


def test_a_step_trigger_with_a_validation_metric_waits_for_the_validation():
    """Lightning ranks at step 2 by no metric, and at step 6 by the one of epoch 0."""
    checkpoint = ModelCheckpoint("out", monitor="val_loss", every_n_train_steps=2, save_top_k=-1)
    spy = Spy("out")
    fit(spy, checkpoint, model=Tiny([5, 3]), max_epochs=2)
    assert spy.seen[:5] == [[], [], [], [], ["epoch=0-step=4.ckpt"]]
    assert names("out") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]
    assert {Path(path).name: score.item() for path, score in checkpoint.best_k_models.items()} == {
        "epoch=0-step=4.ckpt": 5,
        "epoch=1-step=8.ckpt": 3,
    }


def test_a_waiting_save_takes_the_weights_and_the_step_of_the_validation():
    fit(ModelCheckpoint("out", monitor="val_loss", every_n_train_steps=3), max_epochs=1)
    assert names("out") == ["epoch=0-step=4.ckpt"]
    assert saved("out/epoch=0-step=4.ckpt") == (0, 4)


def test_one_epoch_with_a_step_trigger_saves_a_best_file():
    checkpoint = ModelCheckpoint("out", monitor="val_loss", every_n_train_steps=2)
    fit(checkpoint, max_epochs=1)
    assert checkpoint.best_model_score == 5


def test_a_training_mean_is_waited_for_at_a_step_trigger():
    checkpoint = ModelCheckpoint("out", monitor="train_mean", every_n_train_steps=3, save_top_k=-1)
    trainer = fit(checkpoint, max_epochs=1, val_check_interval=1.0)
    assert names("out") == ["epoch=0-step=4.ckpt"]
    assert checkpoint.best_model_score == trainer.callback_metrics["train_mean"]


def test_a_metric_of_the_step_is_ranked_at_the_step():
    checkpoint = ModelCheckpoint("out", monitor="train_loss", every_n_train_steps=2, save_top_k=-1)
    fit(checkpoint, max_epochs=1)
    assert names("out") == ["epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"]


def test_the_time_trigger_waits_too():
    fit(ModelCheckpoint("out", monitor="val_loss", train_time_interval=timedelta(0)), max_epochs=1)
    assert names("out") == ["epoch=0-step=4.ckpt"]


def test_weights_that_no_validation_has_seen_are_not_ranked():
    """Lightning ranks step 6 by the metric of step 4."""
    checkpoint = ModelCheckpoint("out", monitor="val_loss", save_top_k=-1, save_last=True)
    fit(checkpoint, max_steps=6, max_epochs=-1)
    assert names("out") == ["epoch=0-step=4.ckpt", "last.ckpt"]
    assert saved("out/last.ckpt")[1] == 6


def test_a_run_that_ranked_nothing_says_so():
    with pytest.warns(UserWarning, match=r"training ended at step 3 before the metric was logged"):
        fit(ModelCheckpoint("out", monitor="val_loss", every_n_train_steps=1), max_steps=3, max_epochs=-1)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"val_check_interval": 2},
        {"limit_val_batches": 0},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 3, "check_val_every_n_epoch": None},
    ],
)
@pytest.mark.parametrize("trigger", [{}, {"every_n_train_steps": 1}])
def test_an_unknown_monitor_is_an_error_that_lists_the_known(flags, trigger):
    with pytest.raises(MisconfigurationException, match="monitor='train_los'.*Did you mean 'train_loss'.*train_loss"):
        fit(ModelCheckpoint("out", monitor="train_los", **trigger), **flags)


def test_a_validation_metric_may_come_in_a_later_epoch():
    fit(
        ModelCheckpoint("out", monitor="val_loss", save_on_train_epoch_end=True),
        check_val_every_n_epoch=2,
        max_epochs=2,
    )
    assert names("out") == ["epoch=1-step=8.ckpt"]


def test_a_metric_missing_from_the_template_is_an_error_that_lists_the_known():
    with pytest.raises(MisconfigurationException, match=r"filename='\{epoch\}-\{val_los\}'.*Did you mean 'val_loss'"):
        fit(ModelCheckpoint("out", filename="{epoch}-{val_los}"))
    with pytest.raises(MisconfigurationException, match="Logged so far: epoch, step"):
        ModelCheckpoint(filename="{nope}").format_checkpoint_name({"epoch": 0, "step": 1})


def test_a_metric_in_the_template_that_is_not_known_yet_is_waited_for():
    fit(ModelCheckpoint("out", filename="{step}-{val_loss:.0f}", every_n_train_steps=3, save_top_k=-1), max_epochs=1)
    assert names("out") == ["step=4-val_loss=5.ckpt"]


# when
@pytest.mark.parametrize(
    ("settings", "flags", "steps"),
    [
        ({}, {}, [4, 8, 12]),
        ({"every_n_epochs": 2}, {}, [8]),
        ({"every_n_epochs": 0}, {}, []),
        ({"every_n_train_steps": 5}, {}, [5, 10]),
        ({"every_n_train_steps": 1}, {"accumulate_grad_batches": 4}, [1, 2, 3]),
        ({}, {"val_check_interval": 0.5}, [2, 4, 6, 8, 10, 12]),
        ({"save_on_train_epoch_end": True}, {"val_check_interval": 0.5}, [4, 8, 12]),
        ({}, {"check_val_every_n_epoch": 2}, [8]),
        ({}, {"limit_val_batches": 0}, [4, 8, 12]),
        ({"save_on_train_epoch_end": False}, {"limit_val_batches": 0}, []),
        ({}, {"max_steps": 6, "max_epochs": -1}, [4, 6]),
        ({}, {"fast_dev_run": True}, []),
    ],
)
def test_when_it_saves(settings, flags, steps):
    fit(ModelCheckpoint("out", filename="{step}", save_top_k=-1, **settings), **flags)
    files = names("out") if os.path.isdir("out") else []
    assert sorted(int(re.findall(r"\d+", name)[0]) for name in files) == steps


def test_the_sanity_check_saves_nothing():
    fit(ModelCheckpoint("out", monitor="val_loss", save_on_train_epoch_end=False), num_sanity_val_steps=2, max_epochs=1)
    assert names("out") == ["epoch=0-step=4.ckpt"]


def test_save_on_exception_saves_what_is_done():
    class Fails(Tiny):
        def training_step(self, batch, batch_idx):
            if self.global_step == 5:
                raise ValueError("broken")
            return super().training_step(batch, batch_idx)

    for wanted in (False, True):
        with pytest.raises(ValueError, match="broken"):
            fit(ModelCheckpoint(f"out{wanted}", save_on_exception=wanted), model=Fails())
    assert names("outFalse") == ["epoch=0-step=4.ckpt"]
    assert names("outTrue") == ["epoch=0-step=4.ckpt", "epoch=1-step=5.ckpt"]


def test_save_on_exception_does_not_hide_the_exception_behind_a_missing_name():
    class Fails(Tiny):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                raise ValueError("broken")
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match="broken"):
        fit(ModelCheckpoint("out", save_on_exception=True, filename="{val_loss}"), model=Fails())
    assert names("out") == ["epoch=0-step=1.ckpt"]


# last
def test_save_last_is_written_when_a_save_is_due_also_where_the_weights_are_not_among_the_best():
    checkpoint = ModelCheckpoint("out", monitor="val_loss", save_last=True)
    fit(checkpoint, model=Tiny([5, 3, 4]))
    assert names("out") == ["epoch=1-step=8.ckpt", "last.ckpt"]
    assert saved("out/last.ckpt") == (2, 12)
    assert checkpoint.last_model_path.endswith("out/last.ckpt")


def test_save_last_link_is_a_relative_link_to_the_newest():
    fit(ModelCheckpoint("out", save_last="link"))
    assert os.readlink("out/last.ckpt") == "epoch=2-step=12.ckpt"
    assert names("out") == ["epoch=2-step=12.ckpt", "last.ckpt"]


def test_save_last_alone_is_written_at_each_epoch():
    spy = Spy("out")
    fit(spy, ModelCheckpoint("out", save_top_k=0, save_last=True), max_epochs=2)
    assert spy.seen[4] == ["last.ckpt"]
    assert names("out") == ["last.ckpt"]


def test_a_trigger_that_never_came_leaves_the_last_weights():
    fit(ModelCheckpoint("out", every_n_train_steps=100, save_last=True))
    assert names("out") == ["last.ckpt"]
    assert saved("out/last.ckpt")[1] == 12


def test_a_replaced_file_is_removed_only_when_the_new_one_is_on_disk():
    class Watched(ModelCheckpoint):
        def _remove_checkpoint(self, trainer, filepath):
            assert os.path.exists(self.best_model_path)
            assert filepath != self.best_model_path
            super()._remove_checkpoint(trainer, filepath)

    fit(Watched("out", monitor="val_loss"), model=Tiny([5, 3, 2]))
    assert names("out") == ["epoch=2-step=12.ckpt"]


def test_a_failed_save_leaves_the_old_best_file():
    class Full(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            if trainer.current_epoch == 1:
                raise OSError("no space left")
            super()._save_checkpoint(trainer, filepath)

    with pytest.raises(OSError, match="no space"):
        fit(Full("out", monitor="val_loss"), model=Tiny([5, 3]))
    assert names("out") == ["epoch=0-step=4.ckpt"]


# state
def test_state_goes_through_a_checkpoint():
    checkpoint = ModelCheckpoint("out", monitor="val_loss", save_top_k=2, save_last=True)
    fit(checkpoint, model=Tiny([5, 3]), max_epochs=2)
    state = torch.load("out/last.ckpt", weights_only=True)["callbacks"][checkpoint.state_key]
    assert state == checkpoint.state_dict()
    other = ModelCheckpoint("out", monitor="val_loss", save_top_k=2)
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_a_resumed_run_ranks_on():
    fit(ModelCheckpoint("out", monitor="val_loss", save_top_k=2, save_last=True), model=Tiny([5, 3]), max_epochs=2)
    resumed = ModelCheckpoint("out", monitor="val_loss", save_top_k=2, save_last=True)
    fit(resumed, model=Tiny([4, 9]), max_epochs=4, ckpt_path="out/last.ckpt")
    assert names("out") == ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt", "last.ckpt"]
    assert resumed.best_model_score == 3


def test_in_another_folder_the_ranking_starts_anew():
    fit(ModelCheckpoint("out", monitor="val_loss"), model=Tiny([5, 3]), max_epochs=2)
    resumed = ModelCheckpoint("other", monitor="val_loss")
    with pytest.warns(UserWarning, match="checkpoint directory was"):
        fit(resumed, model=Tiny([9]), max_epochs=3, ckpt_path="out/epoch=1-step=8.ckpt")
    assert resumed.best_model_score == 9
    assert names("out") == ["epoch=1-step=8.ckpt"]


def test_the_file_resumed_from_is_not_removed():
    fit(ModelCheckpoint("out", monitor="val_loss"), model=Tiny([5]), max_epochs=1)
    fit(ModelCheckpoint("out", monitor="val_loss"), model=Tiny([4]), max_epochs=2, ckpt_path="out/epoch=0-step=4.ckpt")
    assert names("out") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]


def test_what_waits_is_part_of_the_state():
    """Resumed between a due step and the validation it waits for, a run saves as the uninterrupted one."""
    every = ModelCheckpoint("steps", every_n_train_steps=1, save_top_k=-1)
    fit(ModelCheckpoint("out", monitor="val_loss", every_n_train_steps=3), every, max_epochs=1)
    assert names("out") == ["epoch=0-step=4.ckpt"]
    resumed = ModelCheckpoint("out2", monitor="val_loss", every_n_train_steps=3)
    resumed_state = torch.load("steps/epoch=0-step=3.ckpt", weights_only=True)["callbacks"][resumed.state_key]
    assert resumed_state["waiting"]


def test_state_key_tells_two_apart_and_equal_ones_are_an_error():
    assert ModelCheckpoint().state_key == (
        "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
        "'train_time_interval': None}"
    )
    fit(ModelCheckpoint("a", monitor="val_loss"), ModelCheckpoint("b"), max_epochs=1)
    with pytest.raises(RuntimeError, match="state_key"):
        fit(ModelCheckpoint("a"), ModelCheckpoint("b"))


def test_to_yaml_writes_the_kept_files():
    checkpoint = ModelCheckpoint("out", monitor="val_loss", save_top_k=2)
    fit(checkpoint)
    checkpoint.to_yaml()
    with open("out/best_k_models.yaml") as file:
        assert yaml.safe_load(file) == {path: float(score) for path, score in checkpoint.best_k_models.items()}


def test_save_weights_only_leaves_out_the_optimizer():
    fit(ModelCheckpoint("out", save_weights_only=True), max_epochs=1)
    assert "optimizer_states" not in torch.load("out/epoch=0-step=4.ckpt", weights_only=True)


def test_test_and_validate_save_nothing():
    trainer = fit(ModelCheckpoint("out"), max_epochs=1)
    from helpers.tiny import data

    trainer.validate(Tiny(), data(), verbose=False)
    trainer.test(Tiny(), data(), verbose=False)
    assert names("out") == ["epoch=0-step=4.ckpt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "best"}, "mode='best'"),
        ({"save_top_k": -2}, "save_top_k=-2"),
        ({"save_top_k": 3}, "needs a metric"),
        ({"every_n_train_steps": -1}, "every_n_train_steps=-1"),
        ({"every_n_epochs": 1, "every_n_train_steps": 2}, "one trigger"),
        ({"every_n_epochs": 1, "train_time_interval": timedelta(1)}, "one trigger"),
    ],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(MisconfigurationException, match=message):
        ModelCheckpoint(**arguments)
