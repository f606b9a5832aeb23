"""Checkpoints of the shapes that Lightning 1.5 to 2.6 wrote, resumed and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fulgurite as pl
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint
from fulgurite.utilities.parsing import AttributeDict
from helpers.counting import QUIET, Counting, loader

ALL = ("ready", "started", "processed", "completed")


def counter(total: int, current: int, names: Any = ALL, **differing: int) -> dict[str, Any]:
    return {
        "total": {**dict.fromkeys(names, total), **differing},
        "current": {**dict.fromkeys(names, current), **differing},
    }


def saved(version: str, epoch: int, loops: Any, **more: Any) -> str:
    """A file as that version wrote it after the first of two epochs of four batches."""
    module = Counting()
    torch.nn.init.constant_(module.layer.weight, 0.25)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.5)
    checkpoint = {
        "epoch": epoch,
        "global_step": 4,
        "pytorch-lightning_version": version,
        "state_dict": module.state_dict(),
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        **({} if loops is None else {"loops": loops}),
        **more,
    }
    torch.save(checkpoint, "old.ckpt")
    return "old.ckpt"


def fit_loop(epochs: Any, batches: Any, optimizer_loop: bool) -> dict[str, Any]:
    inner = "epoch_loop.batch_loop.optimizer_loop" if optimizer_loop else "epoch_loop.automatic_optimization"
    steps = counter(4, 0, ("ready", "completed"))
    return {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {"_batches_that_stepped": 4},
            "epoch_loop.batch_progress": batches,
            f"{inner}.optim_progress": {"optimizer": {"step": steps, "zero_grad": steps}},
            "epoch_progress": epochs,
        },
        "validate_loop": {"state_dict": {}},
    }


FILES = {
    "1.4.9, without loops": ("1.4.9", 1, None),
    "1.5.10": ("1.5.10", 1, fit_loop(counter(1, 1, completed=0), counter(4, 4), True)),
    "1.5.10, with fewer counters": (
        "1.5.10",
        1,
        fit_loop(counter(1, 1, ("ready", "completed"), completed=0), counter(4, 4, ("ready", "completed")), True),
    ),
    "1.6.5": (
        "1.6.5",
        0,
        fit_loop(counter(1, 1, completed=0), {**counter(4, 4), "is_last_batch": True}, True),
    ),
    "1.9.5": (
        "1.9.5",
        0,
        fit_loop(counter(1, 1, completed=0), {**counter(4, 4), "is_last_batch": True}, True),
    ),
    "2.0.9": (
        "2.0.9",
        0,
        fit_loop(counter(1, 1, completed=0), {**counter(4, 4), "is_last_batch": True}, False),
    ),
    "2.6.6": (
        "2.6.6",
        0,
        fit_loop(counter(1, 1, completed=0), {**counter(4, 4), "is_last_batch": True}, False),
    ),
}


class Adam(Counting):
    def on_train_start(self) -> None:
        self.at_start = self.layer.weight.detach().clone(), self.optimizers().param_groups[0]["lr"]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:.*there is no validation data")
def test_a_file_saved_after_an_epoch_goes_on_with_the_next(name: str) -> None:
    module = Adam()
    trainer = pl.Trainer(**QUIET, max_epochs=2)
    trainer.fit(module, loader(4), ckpt_path=saved(*FILES[name]))
    assert module.seen("t") == "t0 t1 t2 t3"
    assert (trainer.current_epoch, trainer.global_step) == (2, 8)
    weight, rate = module.at_start
    assert torch.equal(weight, torch.full((1, 2), 0.25)) and rate == 0.5


def test_states_of_callbacks_are_found_under_todays_keys(tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    key = (
        "ModelCheckpoint{'monitor': 'val', 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
        "'train_time_interval': None, 'save_on_train_epoch_end': True}"
    )
    states = {
        key: {"best_model_path": "best.ckpt", "best_model_score": torch.tensor(0.5), "dirpath": kept},
        "EarlyStopping{'monitor': 'val', 'mode': 'min'}": {
            "wait_count": 2,
            "stopped_epoch": 0,
            "best_score": torch.tensor(0.5),
            "patience": 3,
        },
    }

    class Module(Adam):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val", self.layer(batch).mean())

        def on_train_start(self) -> None:
            self.found = keep.best_model_path, stop.wait_count

    module, keep, stop = Module(), ModelCheckpoint(dirpath=kept, monitor="val"), EarlyStopping("val")
    path = saved(*FILES["1.6.5"], callbacks=states)
    flags = {**QUIET, "enable_checkpointing": True, "num_sanity_val_steps": 0}
    pl.Trainer(**flags, max_epochs=2, callbacks=[keep, stop]).fit(module, loader(4), loader(1), ckpt_path=path)
    assert module.found[0].endswith("best.ckpt") and module.found[1] == 2


def test_hyper_parameters_of_then_build_the_module() -> None:
    class Module(Counting):
        def __init__(self, hparams: Any) -> None:
            super().__init__()
            self.save_hyperparameters(hparams)

    path = saved("1.5.10", 1, None, hparams_name="hparams", hyper_parameters=AttributeDict(lr=0.25))
    module = Module.load_from_checkpoint(path)
    assert module.hparams.lr == 0.25 and torch.equal(module.layer.weight, torch.full((1, 2), 0.25))


# Files that these versions wrote themselves, by checkpoints/save.py: step 6 of 12, in the middle of the second epoch.
FILES_OF_THEIRS = sorted((Path(__file__).parent / "checkpoints").glob("*.ckpt"))
WEIGHTS = [
    [0.022094620391726494, 0.10053254663944244, -0.23306672275066376, 0.12163528800010681],
    [-0.0394536629319191],
]

WEIGHTS_1_5 = [[0.024200603365898132, 0.11156754195690155, -0.1967555284500122, 0.11084683984518051], [-0.03845722228]]


class Theirs(pl.LightningModule):
    """The module of save.py."""

    def __init__(self, width: int = 1, lr: float = 0.2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def rows(n: int) -> Any:
    items = torch.randn(n * 2, 4, generator=torch.Generator().manual_seed(n))
    return torch.utils.data.DataLoader(items, batch_size=2)


@pytest.mark.parametrize("path", FILES_OF_THEIRS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:The checkpoint directory was", "ignore:this checkpoint was saved in mid-epoch")
def test_a_run_of_an_old_version_is_finished_as_it_would_have_finished_it(path: Path) -> None:
    module = Theirs.load_from_checkpoint(path)
    assert module.hparams == {"width": 1, "lr": 0.1}
    keep = ModelCheckpoint("out", monitor="val_loss", save_top_k=-1)
    flags = {**QUIET, "enable_checkpointing": True, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(**flags, max_epochs=3, callbacks=[keep])
    trainer.fit(module, rows(4), rows(1), ckpt_path=str(path))
    if path.stem == "1.5.10":  # it called the epoch done in which it saved, and went on with the next
        expected, steps = WEIGHTS_1_5, 11
    else:
        expected, steps = WEIGHTS, 12
    assert trainer.global_step == steps and trainer.current_epoch == 3
    torch.testing.assert_close([p.flatten() for p in module.parameters()], [torch.tensor(w) for w in expected])
