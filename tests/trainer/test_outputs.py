"""logger, callbacks, enable_*, default_root_dir, log_every_n_steps, reloading, and what is returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import fulgurite as pl
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint, ModelSummary, ProgressBar
from helpers.counting import QUIET, Counting, fit, loader


class Logs(Counting):
    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("vl", float(batch_idx))

    test_step = validation_step


def rows(path: str) -> list[list[str]]:
    return [line.split(",") for line in Path(path).read_text().split()]


@pytest.mark.parametrize(
    ("every", "steps"), [(1, ["0", "1", "2", "3"]), (2, ["1", "3"]), (3, ["2"]), (4, ["3"]), (50, []), (0, [])]
)
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_log_every_n_steps(every: int, steps: list[str]) -> None:
    fit(Logs(), logger=pl.loggers.CSVLogger(".", "", "v"), log_every_n_steps=every, limit_val_batches=0)
    written = rows("v/metrics.csv") if Path("v/metrics.csv").exists() else [["step"]]
    column = written[0].index("step")
    assert [row[column] for row in written[1:]] == steps


@pytest.mark.filterwarnings("ignore")
def test_the_defaults_write_where_lightning_does(tmp_path: Path) -> None:
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.fit(Logs(), loader(4), loader(2))
    assert trainer.log_dir == str(tmp_path / "lightning_logs" / "version_0")
    checkpoint = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "epoch=0-step=4.ckpt"
    assert checkpoint.exists()
    assert trainer.checkpoint_callback.best_model_path == str(checkpoint)


def test_logs_and_checkpoints_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("HOME", str(tmp_path / "home"))
        logger = pl.loggers.CSVLogger("~/logs")
        trainer, _ = fit(Logs(), default_root_dir="~/root", logger=logger, enable_checkpointing=True)
    assert trainer.default_root_dir == str(tmp_path / "home" / "root")
    assert trainer.log_dir == str(tmp_path / "home" / "logs" / "lightning_logs" / "version_0")
    assert Path(trainer.log_dir, "checkpoints", "epoch=0-step=4.ckpt").is_file() and not Path("~").exists()


class Weighted(pl.LightningDataModule):
    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(4)

    def val_dataloader(self) -> DataLoader[Any]:
        return loader(2)


@pytest.mark.filterwarnings("ignore:hparams.yaml is written without weights")
def test_module_and_data_module_may_both_have_a_tensor_of_one_name() -> None:
    class Net(Logs):
        def __init__(self, weights: torch.Tensor) -> None:
            super().__init__()
            self.save_hyperparameters()

    trainer = pl.Trainer(**{**QUIET, "max_epochs": 1, "logger": pl.loggers.CSVLogger(".")})
    trainer.fit(Net(torch.ones(3)), datamodule=Weighted(torch.ones(3)))
    with pytest.raises(RuntimeError, match="both have hyper-parameters named weights, with different"):
        trainer.fit(Net(torch.zeros(3)), datamodule=Weighted(torch.ones(3)))


@pytest.mark.filterwarnings("ignore:hparams.yaml is written without")
def test_a_collision_of_hyper_parameters_is_found_whatever_their_names_are() -> None:
    class Net(Logs):
        def __init__(self, values: dict[Any, Any]) -> None:
            super().__init__()
            self.save_hyperparameters(values)

    class Data(Weighted):
        def __init__(self, values: dict[Any, Any]) -> None:
            pl.LightningDataModule.__init__(self)
            self.save_hyperparameters(values)

    trainer = pl.Trainer(**{**QUIET, "max_epochs": 1, "logger": pl.loggers.CSVLogger(".")})
    trainer.fit(Net({7: "x", "lr": 1}), datamodule=Data({7: "x"}))
    with pytest.raises(RuntimeError, match="both have hyper-parameters named 7, with different"):
        trainer.fit(Net({7: "x", "lr": 1}), datamodule=Data({7: "y"}))


def test_a_step_that_never_returns_a_loss_is_told_of() -> None:
    class Forgot(Logs):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="Forgot.training_step returned None") as told:
        pl.Trainer(**{**QUIET, "max_epochs": 2}).fit(Forgot(), loader(4), loader(2))
    assert len(told) == 1


def test_default_callbacks_and_their_order() -> None:
    stop, own = EarlyStopping("vl"), ModelCheckpoint()
    trainer = pl.Trainer(accelerator="cpu", callbacks=[own, stop])
    assert trainer.callbacks[-1] is own  # checkpoints last
    assert trainer.early_stopping_callback is stop and trainer.checkpoint_callback is own
    assert isinstance(trainer.progress_bar_callback, ProgressBar)
    assert sum(isinstance(c, ModelSummary) for c in trainer.callbacks) == 1
    off = pl.Trainer(**QUIET)
    assert not off.callbacks and not off.loggers and off.logger is None


def test_one_callback_needs_no_list() -> None:
    stop = EarlyStopping("vl")
    assert pl.Trainer(**QUIET, callbacks=stop).callbacks == [stop]


@pytest.mark.filterwarnings("ignore")
def test_several_loggers_the_first_has_the_folder() -> None:
    first, second = pl.loggers.CSVLogger("a", "n"), pl.loggers.CSVLogger("b", "n")
    trainer, _ = fit(Logs(), logger=[first, second], log_every_n_steps=1)
    assert trainer.logger is first and trainer.loggers == [first, second]
    assert trainer.log_dir == first.log_dir
    assert rows("a/n/version_0/metrics.csv") == rows("b/n/version_0/metrics.csv")


@pytest.mark.parametrize(("every", "calls"), [(0, 1), (1, 4), (2, 2), (3, 2)])
@pytest.mark.filterwarnings("ignore:.*there is no validation data")
def test_reload_dataloaders_every_n_epochs(every: int, calls: int) -> None:
    class Brings(Counting):
        asked = 0

        def train_dataloader(self) -> Any:
            self.asked += 1
            return loader(2)

    model = Brings()
    pl.Trainer(**QUIET, max_epochs=4, reload_dataloaders_every_n_epochs=every).fit(model)
    assert model.asked == calls


def test_validate_and_test_return_a_dict_for_each_loader() -> None:
    class Two(Logs):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:  # type: ignore[override]
            self.log("vl", float(dataloader_idx))

    trainer = pl.Trainer(**QUIET)
    assert trainer.validate(Logs(), loader(3), verbose=False) == [{"vl": 1.0}]
    assert trainer.test(Logs(), loader(3), verbose=False) == [{"vl": 1.0}]
    results = trainer.validate(Two(), [loader(1), loader(2)], verbose=False)
    assert results == [{"vl/dataloader_idx_0": 0.0}, {"vl/dataloader_idx_1": 1.0}]


def test_the_table_of_results_is_printed_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    pl.Trainer(**QUIET).validate(Logs(), loader(3), verbose=False)
    assert "vl" not in capsys.readouterr().out
    pl.Trainer(**QUIET).validate(Logs(), loader(3))
    assert "vl" in capsys.readouterr().out


def test_predict_returns_a_list_for_each_loader_and_a_flat_one_for_one() -> None:
    class Two(Counting):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:  # type: ignore[override]
            return dataloader_idx, batch_idx

    trainer = pl.Trainer(**QUIET)
    flat = trainer.predict(Counting(), loader(3))
    assert [tuple(p.shape) for p in flat] == [(2, 1)] * 3
    assert trainer.predict(Two(), [loader(2), loader(1)]) == [[(0, 0), (0, 1)], [(1, 0)]]
    assert trainer.predict(Counting(), loader(3), return_predictions=False) is None


def test_predictions_wait_in_the_memory_of_the_host() -> None:
    class Sized:
        def to(self, device: Any, **_: Any) -> str:
            return f"on {device}"

    class Gives(Counting):
        def predict_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return {"n": Sized(), "i": batch_idx}

    assert pl.Trainer(**QUIET).predict(Gives(), loader(2)) == [{"n": "on cpu", "i": 0}, {"n": "on cpu", "i": 1}]


def test_predict_uses_forward_where_no_step_is_written() -> None:
    class Forward(pl.LightningModule):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch * 2

    (out,) = pl.Trainer(**QUIET).predict(Forward(), DataLoader(torch.ones(2, 2), 2))
    assert torch.equal(out, torch.full((2, 2), 2.0))


@pytest.mark.filterwarnings("ignore")
def test_evaluation_after_fit_takes_the_best_file() -> None:
    trainer, model = fit(Logs(), enable_checkpointing=True, max_epochs=2, default_root_dir=".")
    with torch.no_grad():
        model.layer.weight.fill_(99.0)
    trainer.test(dataloaders=loader(1), verbose=False)
    assert float(model.layer.weight[0, 0]) != 99.0
    assert trainer.ckpt_path == trainer.checkpoint_callback.best_model_path


@pytest.mark.filterwarnings("ignore")
def test_hyper_parameters_are_logged_unless_not_wanted() -> None:
    class Tuned(Logs):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()

    for wanted, name in ((True, "a"), (False, "b")):
        logger = pl.loggers.CSVLogger(".", "", name)
        fit(Tuned(), logger=logger, enable_autolog_hparams=wanted)
        text = Path(name, "hparams.yaml").read_text() if Path(name, "hparams.yaml").exists() else ""
        assert ("width: 3" in text) is wanted


def test_states_of_the_trainer() -> None:
    class Looks(Counting):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            t = self.trainer
            self.flags = (
                t.training,
                t.validating,
                t.evaluating,
                t.state.fn.value,
                t.state.stage.value,
                t.state.status.value,
            )
            return super().training_step(batch, batch_idx)

    trainer, model = fit(Looks())
    assert model.flags == (True, False, False, "fit", "train", "running")
    assert trainer.state.finished and not trainer.interrupted and not trainer.training


def test_metrics_can_be_read_after_the_run() -> None:
    trainer, _ = fit(Logs(), logger=pl.loggers.CSVLogger("."), log_every_n_steps=1)
    assert set(trainer.callback_metrics) == {"loss", "vl"}
    assert set(trainer.progress_bar_metrics) == {"loss"}
    assert trainer.callback_metrics["vl"] == 0.5
    assert all(isinstance(v, torch.Tensor) for v in trainer.callback_metrics.values())


def test_an_exception_in_on_exception_hides_neither_the_first_one_nor_the_rest_of_the_ending(caplog: Any) -> None:
    ended: list[str] = []

    class Broken(pl.Callback):
        def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
            raise RuntimeError("the hook is broken")

    class Ear(pl.Callback):
        def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
            ended.append(str(exception))

    class Logger(pl.loggers.CSVLogger):
        def finalize(self, status: str) -> None:
            ended.append(status)

    class Fails(Counting):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fit(Fails(), callbacks=[Broken(), Ear()], logger=Logger("."))
    assert ended == ["mine", "failed"]
    assert "the hook is broken" in caplog.text


def test_an_exception_reaches_callbacks_and_loggers() -> None:
    heard: list[str] = []

    class Ear(pl.Callback):
        def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
            heard.append(str(exception))

        def teardown(self, trainer: Any, module: Any, stage: str) -> None:
            heard.append(f"teardown {stage}")

    class Fails(Counting):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fit(Fails(), callbacks=[Ear()])
    assert heard[0] == "mine"
