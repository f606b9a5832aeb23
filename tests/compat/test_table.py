"""What real libraries lean on, row by row, through each of the three spellings: it behaves, and does not just import.

Each spelling has a process of its own, for the alias takes names over. A row is a function; what fails is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
ROWS = """
import importlib, inspect, io, logging, pickle, sys, traceback, warnings
from contextlib import redirect_stdout

warnings.simplefilter("ignore")
spelling = sys.argv[1]
if spelling != "fulgurite":
    import fulgurite.compat
    fulgurite.compat.install_alias()
pl = importlib.import_module(spelling)
fabric = "lightning_fabric" if spelling == "pytorch_lightning" else "lightning.fabric"

import torch
from torch.utils.data import DataLoader


def get(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"{spelling}.{module}" if module else spelling), name)


BoringModel, RandomDataset = get("demos.boring_classes.BoringModel"), get("demos.boring_classes.RandomDataset")
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Net(BoringModel):
    def __init__(self, lr=0.1, width=2):
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({"val_loss": self.step(batch)}, batch_size=1)


def trainer(**more):
    few = {"limit_train_batches": 3, "limit_val_batches": 2, "limit_test_batches": 2, "limit_predict_batches": 2}
    return pl.Trainer(**{**QUIET, "enable_checkpointing": False, "max_epochs": 1, **few, **more})


def loaders(n=2):
    return [DataLoader(RandomDataset(32, 8)) for _ in range(n)]


def fitted(module=None, **more):
    made = trainer(**more)
    made.fit(module or Net(), *loaders())
    return made


# used by nearly all and by many
def row_fit_with_checkpoints_and_stopping():
    keep = get("callbacks.ModelCheckpoint")("keep", monitor="val_loss", save_last=True)
    stop = get("callbacks.EarlyStopping")(monitor="val_loss", patience=3, mode="min", min_delta=0.0)
    made = fitted(callbacks=[keep, stop], enable_checkpointing=True, devices=1, max_epochs=2)
    assert made.checkpoint_callback is keep and keep.best_model_path.endswith(".ckpt")
    assert {"train_loss", "train_loss_step", "train_loss_epoch", "val_loss"} <= set(made.callback_metrics)
    loaded = Net.load_from_checkpoint(keep.best_model_path, map_location="cpu", lr=0.5)
    assert loaded.lr == 0.5 and loaded.hparams.width == 2
    again = trainer(max_epochs=3)
    again.fit(Net(), *loaders(), ckpt_path=keep.last_model_path, weights_only=True)
    assert again.current_epoch == 3 and again.global_step == 9


def row_trainer_attributes():
    made = fitted()
    assert made.is_global_zero and not made.sanity_checking and made.world_size == 1 and made.max_epochs == 1
    assert made.num_training_batches == 3 and not made.should_stop and made.state.fn == "fit"
    assert made.callbacks is not None and made.train_dataloader is not None and made.logged_metrics is not None
    assert type(made.strategy).__name__ == "SingleDeviceStrategy" and made.strategy.root_device.type == "cpu"


def row_predict_test_validate_take_weights_only():
    made, module = trainer(), Net()
    assert len(made.predict(module, loaders(1), weights_only=True)) == 2
    for name in ("test", "validate"):
        assert len(getattr(made, name)(module, loaders(1), verbose=False, weights_only=True)) == 1
    made.fit(module, *loaders(), weights_only=True)
    made.save_checkpoint("w.ckpt", weights_only=True)
    assert "optimizer_states" not in torch.load("w.ckpt")


def row_hooks():
    seen = []

    class Hooked(Net):
        def on_fit_start(self): seen.append("fit_start")
        def on_validation_model_eval(self): seen.append("eval"); super().on_validation_model_eval()
        def on_train_epoch_end(self): seen.append("epoch_end")
        def on_validation_end(self): seen.append("validation_end")
        def on_before_batch_transfer(self, batch, dataloader_idx): seen.append("before"); return batch
        def transfer_batch_to_device(self, batch, device, dataloader_idx): return batch.to(device)
        def on_after_batch_transfer(self, batch, dataloader_idx): return batch
        def on_save_checkpoint(self, checkpoint): checkpoint["mine"] = 1
        def on_load_checkpoint(self, checkpoint): seen.append(f"load{checkpoint['mine']}")

    made = fitted(Hooked())
    made.save_checkpoint("h.ckpt")
    Hooked.load_from_checkpoint("h.ckpt")
    assert {"fit_start", "eval", "epoch_end", "validation_end", "before", "load1"} <= set(seen)


def row_seed_and_rank():
    assert pl.seed_everything(7, workers=True, verbose=False) == 7
    assert get("utilities.rank_zero_only")(lambda: 3)() == 3
    assert get("utilities.rank_zero.rank_prefixed_message")("x", 1) == "[rank: 1] x"
    assert issubclass(get("utilities.warnings.PossibleUserWarning"), Warning)


# several
def row_stages():
    stage, seen = get("trainer.states.RunningStage"), []

    class Watch(pl.Callback):
        def on_validation_start(self, trainer, module): seen.append(trainer.state.stage)

    fitted(callbacks=[Watch()])
    assert seen[0] is stage.SANITY_CHECKING and seen[-1] is stage.VALIDATING


def row_manual_optimization():
    class Manual(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.1)

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            assert type(optimizer).__name__ == "LightningAdam" and isinstance(optimizer, torch.optim.Adam)
            optimizer.zero_grad(); self.manual_backward(self.step(batch)); optimizer.step()

    assert fitted(Manual()).global_step == 3


def row_progress_bars():
    shown = []

    class Bar(get("callbacks.progress.tqdm_progress.TQDMProgressBar")):
        def get_metrics(self, trainer, module):
            shown.append(super().get_metrics(trainer, module))
            return {"own": 1}

    class Plain(get("callbacks.ProgressBar")):
        def __init__(self): super().__init__(); self.enabled = True
        def enable(self): self.enabled = True
        def disable(self): self.enabled = False
        def on_train_batch_end(self, trainer, module, *args): shown.append(self.get_metrics(trainer, module))

    assert issubclass(get("callbacks.progress.tqdm_progress.Tqdm"), importlib.import_module("tqdm").tqdm)
    for bar in (Bar(), Plain()):
        shown.clear()
        sys.stderr, before = io.StringIO(), sys.stderr
        try:
            with redirect_stdout(io.StringIO()):
                fitted(callbacks=[bar], enable_progress_bar=True)
        finally:
            sys.stderr = before
        assert any("train_loss" in metrics or "train_loss_step" in metrics for metrics in shown), type(bar)


def row_rates_and_loggers():
    logger, rates = get("loggers.CSVLogger")("csv"), get("callbacks.LearningRateMonitor")()
    made = fitted(logger=logger, callbacks=[rates], log_every_n_steps=1)
    assert "lr-SGD" in open(f"{made.logger.log_dir}/metrics.csv").readline()
    assert issubclass(get("strategies.ddp.DDPStrategy"), get("strategies.Strategy"))


# deep or private
def row_accelerator_connector():
    assert trainer()._accelerator_connector.is_distributed is False
    connector = get("trainer.connectors.accelerator_connector._AcceleratorConnector")(accelerator="cpu", devices=2)
    assert connector._accelerator_flag == "cpu" and connector._devices_flag == 2
    assert get("accelerators.cuda.CUDAAccelerator").is_available() == torch.cuda.is_available()


def row_model_set_before_fit():
    made, module = trainer(), Net()
    made._model = module
    made.strategy.connect(module)
    made.fit(module, *loaders())
    assert made.lightning_module is module and made.strategy.broadcast(3) == 3 and made.strategy.barrier() is None


def row_checkpoint_callback():
    keep = get("callbacks.ModelCheckpoint")("keep", filename="{epoch}-{val_loss:.2f}", monitor="val_loss")
    made = fitted(callbacks=[keep], enable_checkpointing=True)
    candidates = keep._monitor_candidates(made)
    assert {"epoch", "step", "val_loss"} <= set(candidates)
    assert keep.format_checkpoint_name({"epoch": 1, "val_loss": 0.5}).endswith("epoch=1-val_loss=0.50.ckpt")
    made.save_checkpoint("own.ckpt")
    keep.best_model_path = "own.ckpt"
    made.test(dataloaders=loaders(1), ckpt_path="best", verbose=False)
    assert made.ckpt_path == "own.ckpt"


def row_data_source():
    made = fitted()
    assert made.fit_loop.epoch_loop.val_loop._data_source.is_defined()


def row_rate_finder():
    made, module = trainer(limit_train_batches=1.0), Net()
    load = made.strategy.load_checkpoint
    made.strategy.load_checkpoint = own = lambda path, *args, **kwargs: load(path, weights_only=False)

    class Mine(get("tuner.tuning.Tuner")):
        pass

    before = [p.clone() for p in module.parameters()]
    finder = Mine(made).lr_find(
        module, train_dataloaders=DataLoader(RandomDataset(32, 64)), min_lr=1e-5, max_lr=1.0, num_training=20,
        early_stop_threshold=None,
    )
    assert isinstance(finder, get("tuner.lr_finder._LRFinder")) and len(finder.results["lr"]) == 20
    assert finder.suggestion() == module.lr and made.strategy.load_checkpoint is own
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))
    finder.plot(suggest=True)


def row_checkpoint_io():
    module = "fulgurite.plugins" if spelling == "fulgurite" else f"{fabric}.plugins.io.torch_io"
    base = importlib.import_module(module).TorchCheckpointIO

    class Mine(base):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            super().save_checkpoint({**checkpoint, "mine": 1}, path, storage_options)

    made = fitted(plugins=[Mine()])
    made.save_checkpoint("io.ckpt")
    assert torch.load("io.ckpt")["mine"] == 1


def row_predictions():
    found = {}

    class Writer(get("callbacks.BasePredictionWriter")):
        def write_on_epoch_end(self, trainer, module, predictions, batch_indices):
            found["indices"] = trainer.predict_loop.epoch_batch_indices, batch_indices
            found["loaders"] = trainer.predict_dataloaders

    loader = loaders(1)[0]
    trainer(callbacks=[Writer("epoch")]).predict(Net(), loader)
    assert found["indices"] == ([[[0], [1]]], [[[0], [1]]]) and found["loaders"] is loader


def row_hyper_parameters():
    module = Net(lr=0.3)
    assert module._hparams == module._hparams_initial == {"lr": 0.3, "width": 2}
    assert pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY == "hyper_parameters"
    made = fitted(module)
    made.save_checkpoint("hp.ckpt")
    assert torch.load("hp.ckpt")["hyper_parameters"] == {"lr": 0.3, "width": 2}
    get_init_args = get("utilities.parsing.get_init_args")

    class Plain(get("core.mixins.HyperparametersMixin")):
        def __init__(self, a, b=2):
            super().__init__()
            self.found = get_init_args(inspect.currentframe())
            self.save_hyperparameters()

    assert Plain(1).found == {"a": 1, "b": 2} and Plain(1).hparams.b == 2
    attributes = get("utilities.parsing.AttributeDict")(a=1)
    assert pickle.loads(pickle.dumps(attributes)).a == 1




def row_results_and_helpers():
    made = fitted()
    assert made._results.DATALOADER_SUFFIX.format(2) == "/dataloader_idx_2"
    combined = get("utilities.CombinedLoader")({"a": [1, 2], "b": [3]}, "max_size_cycle")
    assert [batch for batch, _, _ in combined] == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert get("utilities.move_data_to_device")({"x": torch.zeros(1)}, torch.device("cpu"))["x"].device.type == "cpu"
    for path in ("core.saving.get_filesystem", "utilities.cloud_io.get_filesystem"):
        assert get(path)("here").exists(".")
    assert "Total params" in str(get("utilities.model_summary.summarize")(Net()))
    assert get("utilities.types.STEP_OUTPUT")
    assert get("callbacks.gradient_accumulation_scheduler.GradientAccumulationScheduler")


def row_fabric_types():
    if spelling != "fulgurite":
        types = importlib.import_module(f"{fabric}.utilities.types")
        assert types._PATH and types._MAP_LOCATION_TYPE


def row_dummy_logger():
    dummy = get("loggers.logger.DummyLogger")()
    assert dummy.experiment.anything(1, two=2) is None and dummy.experiment[0].add_image("x") is None
    assert callable(get("loggers.logger.rank_zero_experiment")) and get("loggers.logger.Logger")


def row_names_of_python_loggers():
    name = "pytorch_lightning.utilities.rank_zero"
    if spelling != "fulgurite":
        assert logging.getLogger(name) is logging.getLogger("fulgurite")


def row_signature_and_misspelling():
    parameters = inspect.signature(pl.Trainer.__init__).parameters
    assert {"max_epochs", "precision", "plugins", "overfit_batches"} <= set(parameters) and "gpus" not in parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    try:
        pl.Trainer(precisionn=16)
    except TypeError as error:
        assert "precisionn" in str(error)
    else:
        raise AssertionError("no error")


def row_version():
    import importlib.util
    assert importlib.util.find_spec(spelling.partition(".")[0])
    if spelling != "fulgurite":
        assert pl.__version__.startswith("2.6.")


for name, row in list(globals().items()):
    if name.startswith("row_"):
        try:
            row()
        except Exception:
            print(name, traceback.format_exc(limit=-3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["fulgurite", "lightning.pytorch", "pytorch_lightning"])
def test_each_row_behaves(spelling: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "ignore", "-c", ROWS, spelling]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
