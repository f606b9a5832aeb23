"""Checkpoints travel: Lightning's are read and continued by us, ours by Lightning."""

from __future__ import annotations

import functools
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as theirs
import pytest
import torch
from torch.utils.data import DataLoader

from parity.compare import ours
from parity.harness import FLAGS, digest, plain, row_logger
from parity.models import rows

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
BOTH_WAYS = pytest.mark.parametrize(
    ("writer", "reader"),
    [(theirs, ours), (ours, theirs)],
    ids=["Lightning's file, our reader", "our file, Lightning's reader"],
)


@functools.cache
def kinds(pl: Any) -> dict[str, type]:
    class Net(pl.LightningModule):  # type: ignore[misc]
        """Draws nothing, so that a file without random state can be continued exactly."""

        def __init__(self, width: int = 4, lr: float = 0.1, options: dict[str, Any] | None = None) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = (self.net(batch) ** 2).mean()
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("vl", self.net(batch).abs().mean())

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("tl", self.net(batch).abs().mean())

        def configure_optimizers(self) -> Any:
            # No plateau: Lightning loses its step when it resumes from a file written before that step.
            optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]

    class Manual(Net):
        def __init__(self, **how: Any) -> None:
            super().__init__(**how)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward((self.net(batch) ** 2).mean())
            optimizer.step()

    class Data(pl.LightningDataModule):  # type: ignore[misc]
        def __init__(self, batch_size: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.seen = 0

        def train_dataloader(self) -> Any:
            return DataLoader(rows(18), self.hparams.batch_size)

        def val_dataloader(self) -> Any:
            return DataLoader(rows(9, 4), 3)

        def state_dict(self) -> dict[str, Any]:
            return {"seen": 7}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.seen = state["seen"]

    return {"Net": Net, "Manual": Manual, "Data": Data}


def loaders() -> tuple[Any, Any]:
    return DataLoader(rows(18), 3), DataLoader(rows(9, 4), 3)


def fit(
    pl: Any, root: Path, kind: str = "Net", ckpt_path: Any = None, callbacks: Any = (), **flags: Any
) -> dict[str, Any]:
    torch.manual_seed(0)
    logger, module = row_logger(pl)(), kinds(pl)[kind]()
    trainer = pl.Trainer(**{**FLAGS, "logger": logger, "default_root_dir": root, "callbacks": list(callbacks), **flags})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, *loaders(), ckpt_path=ckpt_path, weights_only=False)
    state = [plain(o.state_dict()) for o in trainer.optimizers]
    return {
        "rows": [r for r in logger.rows if isinstance(r[0], int)],
        "weights": digest(module.parameters()),
        "counters": (trainer.global_step, trainer.current_epoch, trainer.fit_loop.total_batch_idx),
        "optimizer": state,
        "schedulers": [plain(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs],
    }


def saved(pl: Any, root: Path, kind: str = "Net", *, every: dict[str, Any], **flags: Any) -> list[Path]:
    checkpoint = pl.callbacks.ModelCheckpoint(dirpath=root / "saved", filename="{step}", save_top_k=-1, **every)
    fit(pl, root, kind, callbacks=[checkpoint], **flags)
    return sorted((root / "saved").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))


def since(file: Path, seen: dict[str, Any]) -> dict[str, Any]:
    """Without the rows up to the file: only we still write the mean of the epoch that the file closes."""
    steps = torch.load(file, weights_only=False)["global_step"]
    return seen | {"rows": [r for r in seen["rows"] if r[0] >= steps]}


FLAG_SETS = [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2}]


@BOTH_WAYS
@pytest.mark.parametrize(
    ("kind", "flags"),
    [case for case in product(["Net", "Manual"], FLAG_SETS) if case != ("Manual", {"accumulate_grad_batches": 2})],
    ids=str,
)
def test_a_file_of_an_epochs_end_continues_as_the_writers_own_run_would(
    writer: Any, reader: Any, kind: str, flags: dict[str, Any], tmp_path: Path
) -> None:
    files = saved(writer, tmp_path / "w", kind, every={"save_on_train_epoch_end": True}, **flags)
    whole = fit(theirs, tmp_path / "whole", kind, **flags)
    for file in files[:-1]:
        continued = fit(reader, tmp_path / file.stem, kind, ckpt_path=file, **flags)
        assert since(file, continued) == since(file, whole)


@pytest.mark.parametrize("flags", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_lightnings_file_from_mid_epoch_continues_to_the_uninterrupted_weights(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    files = saved(theirs, tmp_path / "w", every={"every_n_train_steps": 1}, **flags)
    whole = fit(theirs, tmp_path / "whole", **flags)
    for file in files[:-1]:
        continued = fit(ours, tmp_path / file.stem, ckpt_path=file, **flags)
        assert (continued["weights"], continued["counters"]) == (whole["weights"], whole["counters"]), file.stem


def test_lightning_reads_our_file_from_mid_epoch_and_stops_at_the_same_counters(tmp_path: Path) -> None:
    files = saved(ours, tmp_path / "w", every={"every_n_train_steps": 4})
    whole = fit(theirs, tmp_path / "whole")
    for file in files[:-1]:
        assert fit(theirs, tmp_path / file.stem, ckpt_path=file)["counters"][:2] == whole["counters"][:2]


@BOTH_WAYS
def test_load_from_checkpoint_restores_weights_and_hyper_parameters(writer: Any, reader: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = kinds(writer)["Net"](width=6, options={"a": [1, 2], "b": None})
    trainer = writer.Trainer(**{**FLAGS, "logger": False, "max_epochs": 1, "default_root_dir": tmp_path})
    trainer.fit(module, *loaders())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = kinds(reader)["Net"].load_from_checkpoint(tmp_path / "a.ckpt", lr=0.5)
    assert digest(loaded.parameters()) == digest(module.parameters())
    assert dict(loaded.hparams) == {"width": 6, "lr": 0.5, "options": {"a": [1, 2], "b": None}}


@BOTH_WAYS
def test_a_data_modules_state_and_hyper_parameters_travel(writer: Any, reader: Any, tmp_path: Path) -> None:
    flags = {**FLAGS, "logger": False, "max_epochs": 1, "default_root_dir": tmp_path}
    trainer = writer.Trainer(**flags)
    trainer.fit(kinds(writer)["Net"](), datamodule=kinds(writer)["Data"](batch_size=6))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = kinds(reader)["Data"].load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.hparams.batch_size == 6
    data = kinds(reader)["Data"](batch_size=6)
    reader.Trainer(**{**flags, "max_epochs": 2}).fit(
        kinds(reader)["Net"](), datamodule=data, ckpt_path=tmp_path / "a.ckpt"
    )
    assert data.seen == 7


@BOTH_WAYS
def test_evaluation_of_the_others_file(writer: Any, reader: Any, tmp_path: Path) -> None:
    (file,) = saved(writer, tmp_path / "w", every={"every_n_epochs": 3})
    results = [
        pl.Trainer(**{**FLAGS, "logger": False}).test(kinds(pl)["Net"](), loaders()[1], ckpt_path=file, verbose=False)
        for pl in (writer, reader)
    ]
    assert results[0] == results[1]


@BOTH_WAYS
def test_callback_states_travel(writer: Any, reader: Any, tmp_path: Path) -> None:
    def callbacks(pl: Any) -> list[Any]:
        stop = pl.callbacks.EarlyStopping("vl", patience=4, min_delta=10.0)
        return [stop, pl.callbacks.ModelCheckpoint(tmp_path / "best", "{step}", monitor="vl", save_top_k=-1)]

    fit(writer, tmp_path, callbacks=callbacks(writer), max_epochs=2)
    file = max((tmp_path / "best").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    again = callbacks(reader)
    fit(reader, tmp_path, callbacks=again, max_epochs=3, ckpt_path=file)
    assert again[0].wait_count == 2
    assert len(again[1].best_k_models) == 3


def structure(value: Any) -> Any:
    return {k: structure(v) for k, v in value.items()} if isinstance(value, dict) else type(value).__name__


@pytest.mark.parametrize("kind", ["Net", "Manual"])
@pytest.mark.parametrize("flags", FLAG_SETS[:1] + FLAG_SETS[2:], ids=str)
def test_the_loops_block_has_lightnings_shape_and_what_it_resumes_from(
    kind: str, flags: dict[str, Any], tmp_path: Path
) -> None:
    files = [saved(pl, tmp_path / str(i), kind, every={}, **flags) for i, pl in enumerate((theirs, ours))]
    for pair in zip(*files):
        a, b = (torch.load(f, weights_only=False)["loops"]["fit_loop"] for f in pair)
        assert structure(a) == structure(b)
        for key in ("epoch_progress", "epoch_loop.batch_progress"):
            assert a[key] == b[key], key
        steps = "epoch_loop.automatic_optimization.optim_progress"
        assert a[steps]["optimizer"]["step"]["total"] == b[steps]["optimizer"]["step"]["total"]
