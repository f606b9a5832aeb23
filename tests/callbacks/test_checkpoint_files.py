"""Whose a checkpoint file is, its name and its place: no weights are lost, and nothing of others is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import torch

from fulgurite.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from fulgurite.callbacks.own_files import saved_by
from fulgurite.core.saving import read_checkpoint, write_checkpoint
from fulgurite.machine.async_checkpoint import AsyncCheckpointIO
from fulgurite.machine.strategy import TorchCheckpointIO
from fulgurite.utilities.cloud_io import path_of, remove
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, data, fit

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{said}:UserWarning")
    for said in ("Checkpoint directory", "The checkpoint directory was", "the checkpoint holds the state of callbacks")
]


class Ranked(Tiny):
    """Logs the value of its epoch, also in a run that goes on."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor(float(self.val_losses[self.current_epoch])))


@pytest.fixture(params=["out", "memory://out"])
def folder(request):
    yield request.param
    remove(request.param)


def steps(folder):
    """The step of each file in a folder, by its path below it."""
    root = path_of(folder)
    files = [root, *root.iterdir()] if root.is_dir() else []
    inner = [path for entry in files if entry.is_dir() for path in entry.iterdir() if not path.is_dir()]
    return {
        str(path)[len(str(root)) + 1 :]: read_checkpoint(str(path), weights_only=True)["global_step"] for path in inner
    }


# two names of one plan
@pytest.mark.parametrize("plugins", [[], [AsyncCheckpointIO()]], ids=["at once", "in a thread"])
@pytest.mark.parametrize("counter", [True, False])
@pytest.mark.parametrize("last", [True, "link"])
def test_a_best_file_named_last_and_the_last_file_are_two(last, counter, plugins):
    keep = ModelCheckpoint("out", "last", "val_loss", save_last=last, save_top_k=2, enable_version_counter=counter)
    fit(keep, model=Ranked([3, 5, 4]), plugins=plugins)
    assert read_checkpoint(keep.best_model_path)["global_step"] == 4
    assert len({os.path.realpath(path) for path in keep.best_k_models}) == 2
    assert keep.last_model_path not in keep.best_k_models and read_checkpoint(keep.last_model_path)["global_step"] == 12


def test_a_template_of_the_last_file_that_gives_the_name_of_a_best_one_is_told_apart():
    class Both(ModelCheckpoint):
        CHECKPOINT_NAME_LAST = "{epoch}"

    keep = Both("out", "{epoch}", "val_loss", save_last=True)
    fit(keep, model=Ranked([5, 3, 4]))
    assert steps("out") == {"epoch=1.ckpt": 8, "epoch=2.ckpt": 12}
    assert keep.best_model_path.endswith("epoch=1.ckpt") and keep.last_model_path.endswith("epoch=2.ckpt")


@pytest.mark.parametrize("plugins", [[], [AsyncCheckpointIO()]], ids=["at once", "in a thread"])
@pytest.mark.parametrize("counter", [True, False])
def test_two_callbacks_with_one_name_have_two_files(counter, plugins):
    low = ModelCheckpoint("out", "best", "val_loss", enable_version_counter=counter)
    high = ModelCheckpoint("out", "best", "val_loss", mode="max", enable_version_counter=counter)
    fit(low, high, model=Ranked([5, 3, 4]), plugins=plugins)
    assert [read_checkpoint(keep.best_model_path)["global_step"] for keep in (low, high)] == [8, 4]
    assert steps("out") == {"best.ckpt": 8, "best-v1.ckpt": 4}


def test_k_files_of_one_name_are_k_files_also_without_the_counter():
    keep = ModelCheckpoint("out", "best", "val_loss", save_top_k=2, enable_version_counter=False)
    fit(keep, model=Ranked([3, 5, 4]))
    assert sorted(steps("out").values()) == [4, 12] and len(keep.best_k_models) == 2


# templates
@pytest.mark.parametrize(
    "name", ["../{epoch}", "/elsewhere/{epoch}", "a/../../b", "..", "{epoch}/../../x", "a\0b", "{../x}"]
)
def test_a_file_name_that_leaves_the_folder_is_refused_at_once(name):
    with pytest.raises(MisconfigurationException, match="would not be in the checkpoint folder"):
        ModelCheckpoint("out", name)
    with pytest.raises(MisconfigurationException, match="would not be in the checkpoint folder"):
        OnExceptionCheckpoint("out", name.strip("{}") if "x}" in name else name)


def test_the_name_of_the_last_file_and_a_format_do_not_leave_the_folder_either():
    class Away(ModelCheckpoint):
        CHECKPOINT_NAME_LAST = "../last"

    with pytest.raises(MisconfigurationException, match=r"CHECKPOINT_NAME_LAST='../last'"):
        Away("out", save_last=True)
    keep = ModelCheckpoint("out", "{epoch:/>5}", auto_insert_metric_name=False)
    with pytest.raises(MisconfigurationException, match="would not be in the checkpoint folder"):
        fit(keep, max_epochs=1)
    assert os.listdir() == []


def test_metrics_with_a_slash_make_folders_below():
    class Slash(Ranked):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", torch.tensor(float(self.val_losses[self.current_epoch])))

    keep = ModelCheckpoint("out", "{val/loss}", "val/loss", save_last=True)
    fit(keep, model=Slash([5, 3, 4]))
    assert steps("out")["last.ckpt"] == 12
    assert os.listdir("out/val") == ["loss=3.0.ckpt"]


def test_a_folder_called_tilde_is_below_the_working_folder():
    fit(ModelCheckpoint("./~/runs", "a"), max_epochs=1)
    fit(ModelCheckpoint(), default_root_dir="./~/root", max_epochs=1)
    assert os.path.exists("./~/runs/a.ckpt") and os.listdir("./~/root/checkpoints")


# files of others
def test_a_run_resumed_from_a_copy_one_folder_up_leaves_the_first_runs_file():
    fit(ModelCheckpoint("runs/one", "model"), max_epochs=1)
    shutil.copy("runs/one/model.ckpt", "copy.ckpt")
    fit(ModelCheckpoint(".", "model"), max_epochs=2, ckpt_path="copy.ckpt")
    assert steps("runs/one") == {"model.ckpt": 4} and sorted(os.listdir()) == ["copy.ckpt", "model.ckpt", "runs"]


def test_two_runs_in_one_folder_keep_their_files(folder):
    fit(ModelCheckpoint(folder, "best", "val_loss", save_last=True), model=Ranked([3, 5, 4]))
    fit(ModelCheckpoint(folder, "best", "val_loss", save_last=True), model=Ranked([5, 3, 4]))
    assert steps(folder) == {"best.ckpt": 4, "last.ckpt": 12, "best-v1.ckpt": 8, "last-v1.ckpt": 12}


def test_what_the_user_put_in_the_place_of_a_file_stays():
    """A file of another run, of another program, and no checkpoint at all."""
    for content in ("checkpoint", "weights", "text"):
        fit(ModelCheckpoint(f"of_{content}", "{epoch}", "val_loss", save_last=True), model=Ranked([5, 3]), max_epochs=1)
        held = f"of_{content}/epoch=0.ckpt"
        os.remove(held)
        if content == "checkpoint":
            fit(ModelCheckpoint("other", "x"), max_epochs=1)
            shutil.copy("other/x.ckpt", held)
        elif content == "weights":
            torch.save({"mine": torch.ones(2)}, held)
        else:
            Path(held).write_text("mine")
        before = Path(held).read_bytes()
        resumed = ModelCheckpoint(f"of_{content}", "{epoch}", "val_loss", save_last=True)
        fit(resumed, model=Ranked([5, 3]), max_epochs=2, ckpt_path=f"of_{content}/last.ckpt")
        assert Path(held).read_bytes() == before and resumed.best_model_path.endswith("epoch=1.ckpt")


def test_the_working_folder_and_links_to_a_folder_change_nothing():
    """A relative folder stays what it was, and a folder is the same by whatever link it is named."""

    class Moves(Ranked):
        def on_train_epoch_end(self):
            os.makedirs("deeper", exist_ok=True)
            os.chdir("deeper")

    here = os.getcwd()
    keep = ModelCheckpoint(filename="{epoch}", monitor="val_loss", save_last=True)
    fit(keep, model=Moves([5, 3]), max_epochs=1, default_root_dir="root")
    os.chdir(here)
    assert steps("root/checkpoints") == {"epoch=0.ckpt": 4, "last.ckpt": 4}
    os.symlink("root", "by_link")
    resumed = ModelCheckpoint(filename="{epoch}", monitor="val_loss", save_last=True)
    fit(
        resumed,
        model=Ranked([5, 3]),
        max_epochs=2,
        default_root_dir="by_link",
        ckpt_path="by_link/checkpoints/last.ckpt",
    )
    assert steps("root/checkpoints") == {"epoch=1.ckpt": 8, "last.ckpt": 8}


def test_a_branch_from_the_same_file_leaves_what_another_branch_wrote():
    settings = {"filename": "best", "monitor": "val_loss", "save_last": True}
    fit(ModelCheckpoint("out", **settings), model=Ranked([5]), max_epochs=1)
    shutil.copy("out/last.ckpt", "start.ckpt")
    os.remove("out/best.ckpt")
    for losses in ([5, 3], [5, 2]):
        fit(ModelCheckpoint("out", **settings), model=Ranked(losses), max_epochs=2, ckpt_path="start.ckpt")
    assert steps("out") == {"best.ckpt": 8, "best-v1.ckpt": 8, "last.ckpt": 8, "last-v1.ckpt": 8}


def test_only_the_run_that_went_on_from_it_removes_the_file_of_an_exception():
    fit(ModelCheckpoint("out", "start"), max_epochs=1)
    write_checkpoint(read_checkpoint("out/start.ckpt"), "out/on_exception.ckpt")
    fit(OnExceptionCheckpoint("out"), max_epochs=2, ckpt_path="out/start.ckpt")
    assert os.path.exists("out/on_exception.ckpt")
    fit(OnExceptionCheckpoint("out"), max_epochs=2)
    assert not os.path.exists("out/on_exception.ckpt")


def test_a_writer_of_ones_own_has_its_old_files_removed():
    class Pickles(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(str(checkpoint["global_step"]))

    fit(ModelCheckpoint("out", "{epoch}"), plugins=[Pickles()])
    assert os.listdir("out") == ["epoch=2.ckpt"]


def test_the_note_of_a_file_is_read_without_making_anything_of_it():
    class Boom:
        def __reduce__(self):
            return os.mkdir, ("ran",)

    torch.save({"a": Boom(), "fulgurite": {"saved_by": {"life": "x"}}, "b": torch.ones(2)}, "a.ckpt")
    assert saved_by("a.ckpt") == {"life": "x"} and not os.path.exists("ran")
    assert saved_by("nothing.ckpt") == saved_by(".") == {}


# what can go wrong
def test_a_folder_that_is_a_file_is_one_clear_error():
    Path("out").write_text("mine")
    with pytest.raises(OSError, match="could not be written: there is a file where its folder is to be"):
        fit(ModelCheckpoint("out"), max_epochs=1)
    assert Path("out").read_text() == "mine"


# which file a run begins with
@contextlib.contextmanager
def in_a_job():
    of_slurm = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "JOB_ID": "1", "JOB_NAME": "job", "PROCID": "0", "LOCALID": "0"}
    with pytest.MonkeyPatch.context() as job:
        for name, value in {**of_slurm, "NODEID": "0", "NODELIST": "localhost"}.items():
            job.setenv(f"SLURM_{name}", value)
        yield


def test_in_a_job_that_was_requeued_the_file_that_is_asked_for_is_loaded(folder):
    class Began(Tiny):
        def on_train_start(self):
            began.append(self.global_step)

    flags = {"max_epochs": -1, "default_root_dir": folder, "devices": 1}
    for steps_, path in ((1, "mine.ckpt"), (4, f"{folder}/hpc_ckpt_3.ckpt")):
        trainer = fit(max_steps=steps_, default_root_dir="elsewhere", max_epochs=-1, devices=1)
        trainer.save_checkpoint(path)
    began = []
    with in_a_job():
        with pytest.warns(UserWarning, match="ckpt_path='mine.ckpt' is what this run begins with.*not .*hpc_ckpt_3"):
            fit(model=Began(), max_steps=6, ckpt_path="mine.ckpt", **flags)
        for ckpt_path in (None, "hpc", "last"):
            fit(model=Began(), max_steps=6, ckpt_path=ckpt_path, **flags)
    assert began == [1, 4, 4, 4]


def test_a_file_that_is_asked_for_and_is_not_there_is_an_error(folder):
    for ckpt_path in (f"{folder}/nothing.ckpt", "nothing.ckpt"):
        with pytest.raises(FileNotFoundError, match="there is no checkpoint .*nothing.ckpt"):
            fit(max_epochs=1, ckpt_path=ckpt_path)


# elsewhere
def test_a_run_elsewhere_is_resumed_ranked_and_read_as_here(folder):
    settings = {"filename": "{epoch}-{val_loss:.0f}", "monitor": "val_loss", "save_top_k": 2, "save_last": True}
    fit(ModelCheckpoint(folder, **settings), model=Ranked([5, 3]), max_epochs=2)
    assert steps(folder) == {"epoch=0-val_loss=5.ckpt": 4, "epoch=1-val_loss=3.ckpt": 8, "last.ckpt": 8}
    resumed = ModelCheckpoint(folder, **settings)
    trainer = fit(resumed, model=Ranked([5, 3, 4, 2]), max_epochs=4, ckpt_path="last")
    assert steps(folder) == {"epoch=1-val_loss=3.ckpt": 8, "epoch=3-val_loss=2.ckpt": 16, "last.ckpt": 16}
    assert resumed.best_model_path == str(path_of(folder).absolute() / "epoch=3-val_loss=2.ckpt")
    trainer.test(ckpt_path="best", dataloaders=data(1), verbose=False)
    assert trainer.ckpt_path == resumed.best_model_path
    loaded = Ranked.load_from_checkpoint(resumed.best_model_path)
    assert torch.equal(loaded.layer.weight, trainer.lightning_module.layer.weight)
    resumed.to_yaml()
    assert "epoch=3-val_loss=2" in (path_of(folder) / "best_k_models.yaml").read_text()


def test_the_root_may_be_elsewhere(folder):
    trainer = fit(ModelCheckpoint(), default_root_dir=folder, max_epochs=1)
    assert steps(f"{folder}/checkpoints") == {"epoch=0-step=4.ckpt": 4} and trainer.default_root_dir == folder
    trainer.save_checkpoint(f"{folder}/deep/mine.ckpt")
    assert steps(f"{folder}/deep") == {"mine.ckpt": 4}
    assert not os.path.exists("memory:")


def test_last_as_a_link_is_a_file_where_there_are_no_links(folder):
    fit(ModelCheckpoint(folder, "{epoch}", save_last="link"), max_epochs=2)
    assert steps(folder) == {"epoch=1.ckpt": 8, "last.ckpt": 8}


def test_a_failed_run_goes_on_from_elsewhere(folder):
    class Fails(Tiny):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.global_step == 2:
                raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fit(OnExceptionCheckpoint(folder), model=Fails())
    assert steps(folder) == {"on_exception.ckpt": 2}
    assert fit(OnExceptionCheckpoint(folder), max_epochs=1).global_step == 4
    assert steps(folder) == {}


def test_a_missing_file_elsewhere_is_told_with_those_that_are_there(folder):
    fit(ModelCheckpoint(folder, "a"), max_epochs=1)
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint {folder}/b.ckpt; .*: \['a.ckpt'\]"):
        fit(max_epochs=1, ckpt_path=f"{folder}/b.ckpt")
