"""Whatever is given wrongly is an error that names the value, the rule and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import fulgurite as pl
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, TQDMProgressBar
from fulgurite.demos.boring_classes import BoringModel
from fulgurite.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore")
OFF = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
SHORT = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "accelerator": "cpu"}


def trainer(**flags: Any) -> pl.Trainer:
    if any(isinstance(c, ModelCheckpoint) for c in flags.get("callbacks", ())):
        flags.setdefault("enable_checkpointing", True)
    return pl.Trainer(**{**OFF, **SHORT, **flags})


def fit(model: Any = None, *loaders: Any, ckpt_path: Any = None, **flags: Any) -> pl.Trainer:
    t = trainer(**flags)
    t.fit(BoringModel() if model is None else model, *loaders, ckpt_path=ckpt_path)
    return t


def loader(n: int = 8) -> DataLoader[Any]:
    return DataLoader(torch.randn(n, 32), 2)


def without(*names: str) -> Any:
    return type("Incomplete", (BoringModel,), {n: getattr(pl.LightningModule, n) for n in names})()


def with_(**methods: Any) -> Any:
    return type("Model", (BoringModel,), methods)()


def logging_in(hook: str, **how: Any) -> Any:
    return with_(**{hook: lambda self, *args, **kwargs: self.log("x", 1.0, **how)})


def sgd(module: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def plateau(monitor: str | None) -> Any:
    def configure(module: Any) -> Any:
        optimizer = sgd(module)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, **({"monitor": monitor} if monitor else {})},
        }

    return with_(configure_optimizers=configure)


def manual(**flags: Any) -> Any:
    model = BoringModel()
    model.automatic_optimization = False
    return fit(model, **flags)


class SharedMetric(BoringModel):
    """One metric object, whatever loader a batch is from."""

    class Mean(torch.nn.Module):
        def update(self, value: Any) -> None: ...

        def compute(self) -> Any:
            return torch.zeros(())

        def reset(self) -> None: ...

    def __init__(self) -> None:
        super().__init__()
        self.mean = self.Mean()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.log("x", self.mean)


class Foreign:
    """A class of the user's own, which a safe load must not build."""


def foreign_checkpoint() -> str:
    t = fit(with_(on_save_checkpoint=lambda self, checkpoint: checkpoint.update(mine=Foreign())))
    t.save_checkpoint("foreign.ckpt")
    return "foreign.ckpt"


def damaged_checkpoint() -> str:
    fit().save_checkpoint("whole.ckpt")
    whole = Path("whole.ckpt").read_bytes()
    Path("half.ckpt").write_bytes(whole[: len(whole) // 2])
    return "half.ckpt"


def three_epochs() -> str:
    fit(max_epochs=3).save_checkpoint("three.ckpt")
    return "three.ckpt"


def other_file(content: Any) -> str:
    torch.save(content, "other.ckpt")
    return "other.ckpt"


Row = tuple[Callable[[], Any], type[BaseException], str]
# What is done, the error's type, and what its text must hold, in any order: the value, the rule, the way out.
TABLE: dict[str, Row] = {
    # --- the module -------------------------------------------------------------------------------------------
    "no training_step": (
        lambda: fit(without("training_step")),
        MisconfigurationException,
        "Incomplete|training_step|defin",
    ),
    "no configure_optimizers": (
        lambda: fit(without("configure_optimizers")),
        MisconfigurationException,
        "Incomplete|configure_optimizers|defin",
    ),
    "no validation_step": (
        lambda: trainer().validate(without("validation_step")),
        MisconfigurationException,
        "validation_step",
    ),
    "no test_step": (lambda: trainer().test(without("test_step"), loader()), MisconfigurationException, "test_step"),
    "a class instead of a module": (lambda: fit(BoringModel), TypeError, "BoringModel|class|instance"),
    "a plain nn.Module": (lambda: fit(torch.nn.Linear(1, 1)), TypeError, "Linear|LightningModule"),
    "two optimizers": (
        lambda: fit(with_(configure_optimizers=lambda self: [sgd(self), sgd(self)])),
        RuntimeError,
        "automatic_optimization|2|self.optimizers()",
    ),
    "configure_optimizers returns nonsense": (
        lambda: fit(with_(configure_optimizers=lambda self: 3)),
        MisconfigurationException,
        "configure_optimizers|3",
    ),
    "plateau without monitor": (lambda: fit(plateau(None)), MisconfigurationException, "monitor|ReduceLROnPlateau"),
    "plateau on an unknown name": (lambda: fit(plateau("nope")), MisconfigurationException, "nope|monitor|strict"),
    "training_step takes an iterator": (
        lambda: fit(with_(training_step=lambda self, dataloader_iter: None)),
        NotImplementedError,
        "dataloader_iter|training_step(self, batch, batch_idx)",
    ),
    "training_step returns nonsense": (
        lambda: fit(with_(training_step=lambda self, b, i: "loss")),
        MisconfigurationException,
        "training_step|str|loss",
    ),
    "training_step returns a dict without loss": (
        lambda: fit(with_(training_step=lambda self, b, i: {"output": 1})),
        MisconfigurationException,
        "training_step|loss|output",
    ),
    "two loaders, no dataloader_idx": (
        lambda: trainer().validate(BoringModel(), [loader(), loader()]),
        RuntimeError,
        "validation_step|dataloader_idx|2",
    ),
    "two loaders, dataloader_idx by keyword only": (
        lambda: trainer().validate(
            with_(validation_step=lambda self, batch, batch_idx, *, dataloader_idx=0: None), [loader(), loader()]
        ),
        RuntimeError,
        "validation_step|dataloader_idx|2",
    ),
    "manual optimization with clipping": (
        lambda: manual(gradient_clip_val=1.0),
        MisconfigurationException,
        "gradient_clip_val|manual|clip_gradients",
    ),
    "manual optimization with accumulation": (
        lambda: manual(accumulate_grad_batches=2),
        MisconfigurationException,
        "accumulate_grad_batches|manual|2",
    ),
    # --- flags ------------------------------------------------------------------------------------------------
    "unknown argument": (lambda: pl.Trainer(max_epoch=3), TypeError, "max_epoch|max_epochs"),
    "accelerator": (lambda: trainer(accelerator="banana"), ValueError, "banana|cpu|auto"),
    "precision": (lambda: trainer(precision="17"), ValueError, "17|32-true|bf16-mixed"),
    "strategy": (lambda: trainer(strategy="quantum"), ValueError, "quantum|auto"),
    "devices": (lambda: trainer(devices=0), MisconfigurationException, "devices|0"),
    "profiler": (lambda: trainer(profiler="sample"), MisconfigurationException, "sample|simple"),
    "gradient_clip_algorithm": (
        lambda: trainer(gradient_clip_algorithm="max"),
        MisconfigurationException,
        "gradient_clip_algorithm|max|norm|value",
    ),
    "gradient_clip_val": (lambda: trainer(gradient_clip_val="much"), TypeError, "gradient_clip_val|much"),
    "fast_dev_run": (lambda: trainer(fast_dev_run=-1), MisconfigurationException, "fast_dev_run|-1"),
    "max_epochs": (lambda: trainer(max_epochs=-2), MisconfigurationException, "max_epochs|-2|-1"),
    "max_steps": (lambda: trainer(max_steps=-2), MisconfigurationException, "max_steps|-2|-1"),
    "max_time": (lambda: trainer(max_time="an hour"), MisconfigurationException, "an hour|DD:HH:MM:SS"),
    "limit above 1": (
        lambda: trainer(limit_train_batches=1.5),
        MisconfigurationException,
        "limit_train_batches|1.5|1.0",
    ),
    "negative limit": (lambda: trainer(limit_val_batches=-1), MisconfigurationException, "limit_val_batches|-1"),
    "overfit_batches": (lambda: trainer(overfit_batches=-1), MisconfigurationException, "overfit_batches|-1"),
    "log_every_n_steps": (lambda: trainer(log_every_n_steps=-1), MisconfigurationException, "log_every_n_steps|-1"),
    "accumulate_grad_batches": (
        lambda: trainer(accumulate_grad_batches=0),
        MisconfigurationException,
        "accumulate_grad_batches|0|1",
    ),
    "reload_dataloaders": (
        lambda: trainer(reload_dataloaders_every_n_epochs=-1),
        MisconfigurationException,
        "reload_dataloaders_every_n_epochs|-1",
    ),
    "num_sanity_val_steps": (
        lambda: trainer(num_sanity_val_steps=-2),
        MisconfigurationException,
        "num_sanity_val_steps|-2|-1",
    ),
    "check_val_every_n_epoch": (
        lambda: trainer(check_val_every_n_epoch=0.5),
        MisconfigurationException,
        "check_val_every_n_epoch|0.5",
    ),
    "val_check_interval of no batch": (
        lambda: trainer(val_check_interval=0),
        MisconfigurationException,
        "val_check_interval|0|1 or more|limit_val_batches=0",
    ),
    "val_check_interval too long": (
        lambda: fit(val_check_interval=3),
        ValueError,
        "val_check_interval|3|2|check_val_every_n_epoch=None",
    ),
    "val_check_interval, float across epochs": (
        lambda: trainer(val_check_interval=0.5, check_val_every_n_epoch=None),
        MisconfigurationException,
        "val_check_interval|0.5|check_val_every_n_epoch",
    ),
    "no checkpointing with a ModelCheckpoint": (
        lambda: trainer(enable_checkpointing=False, callbacks=[ModelCheckpoint()]),
        MisconfigurationException,
        "enable_checkpointing=False|checkpoint callback|leave one",
    ),
    "no progress bar with a progress bar": (
        lambda: trainer(enable_progress_bar=False, callbacks=[TQDMProgressBar()]),
        MisconfigurationException,
        "enable_progress_bar|TQDMProgressBar",
    ),
    "two progress bars": (
        lambda: trainer(enable_progress_bar=True, callbacks=[TQDMProgressBar(), RichProgressBar()]),
        MisconfigurationException,
        "TQDMProgressBar|RichProgressBar|one",
    ),
    "two callbacks with one state key": (
        lambda: trainer(callbacks=[EarlyStopping("a"), EarlyStopping("a", patience=9)]),
        RuntimeError,
        "EarlyStopping|state_key",
    ),
    "barebones with a logger": (
        lambda: pl.Trainer(barebones=True, accelerator="cpu", logger=True),
        ValueError,
        "barebones|logger",
    ),
    "gpus on a machine without": (
        lambda: torch.cuda.is_available() and pytest.skip("has a GPU") or trainer(accelerator="gpu"),
        MisconfigurationException,
        "accelerator|auto|CUDA",
    ),
    "a strategy nobody knows": (lambda: trainer(strategy="dpd"), ValueError, "dpd|'ddp'"),
    "one device by several": (lambda: trainer(strategy="single_device", devices=2), MisconfigurationException, "ddp"),
    "deepspeed": (
        lambda: trainer(strategy="deepspeed"),
        (NotImplementedError, ValueError),
        "deepspeed|strategy='fsdp'",
    ),  # type: ignore[dict-item]
    # --- data -------------------------------------------------------------------------------------------------
    "no loader": (lambda: fit(without("train_dataloader")), MisconfigurationException, "train_dataloader"),
    "an iterable with no batches": (lambda: fit(None, iter_of([])), ValueError, "no batch|training"),
    "a limit that rounds to 0": (
        lambda: fit(None, loader(8), limit_train_batches=0.1),
        MisconfigurationException,
        "limit_train_batches|0.1|0.25",
    ),
    "a validation limit that rounds to 0": (
        lambda: fit(None, loader(8), loader(8), limit_val_batches=0.1),
        MisconfigurationException,
        "limit_val_batches|0.1|0.25",
    ),
    "a fraction of an unknown length": (
        lambda: fit(None, iter_of([torch.randn(2, 32)]), limit_train_batches=0.5),
        MisconfigurationException,
        "limit_train_batches|0.5|whole number",
    ),
    "a fraction of an unknown length to validate": (
        lambda: fit(None, iter_of([torch.randn(2, 32)]), loader(), limit_train_batches=1.0, val_check_interval=0.5),
        MisconfigurationException,
        "val_check_interval|0.5|int",
    ),
    "a list of batches": (
        lambda: fit(None, [torch.randn(2, 32), torch.randn(2, 32)]),
        (TypeError, ValueError),  # type: ignore[dict-item]
        "list|loader",
    ),
    "loaders and a data module": (
        lambda: trainer().fit(BoringModel(), loader(), datamodule=pl.LightningDataModule()),
        MisconfigurationException,
        "loaders|data module|Pass one",
    ),
    # --- checkpoints ------------------------------------------------------------------------------------------
    "a missing file": (lambda: fit(ckpt_path="nowhere/a.ckpt"), FileNotFoundError, "nowhere/a.ckpt"),
    "best without a ModelCheckpoint": (lambda: fit(ckpt_path="best"), ValueError, "best|ModelCheckpoint"),
    "hpc without a file": (lambda: fit(ckpt_path="hpc"), ValueError, "hpc|hpc_ckpt"),
    "a truncated file": (lambda: fit(ckpt_path=damaged_checkpoint(), max_epochs=2), Exception, "half.ckpt|damaged"),
    "a file that is no checkpoint": (
        lambda: fit(ckpt_path=other_file([1, 2]), max_epochs=2),
        Exception,
        "other.ckpt|list",
    ),
    "a dict that is no checkpoint": (
        lambda: fit(ckpt_path=other_file({"a": 1}), max_epochs=2),
        Exception,
        "state_dict|keys: a|load_state_dict",
    ),
    "a checkpoint of more epochs than wanted": (
        lambda: fit(ckpt_path=three_epochs(), max_epochs=2),
        MisconfigurationException,
        "three.ckpt|3 epochs|max_epochs=2|load_from_checkpoint",
    ),
    "a class of the user's own": (
        lambda: fit(ckpt_path=foreign_checkpoint(), max_epochs=2),
        Exception,
        "Foreign|weights_only=False|foreign.ckpt",
    ),
    "load_from_checkpoint of an instance": (
        lambda: BoringModel().load_from_checkpoint("a"),
        TypeError,
        "BoringModel|instance|model = BoringModel.load_from_checkpoint",
    ),
    # --- callbacks --------------------------------------------------------------------------------------------
    "early stopping on what is never logged": (
        lambda: fit(callbacks=[EarlyStopping("nope")]),
        RuntimeError,
        "nope|EarlyStopping",
    ),
    "checkpoint on what is never logged": (
        lambda: fit(callbacks=[ModelCheckpoint(monitor="nope")], max_epochs=3),
        MisconfigurationException,
        "nope|ModelCheckpoint",
    ),
    "checkpoint name with what is never logged": (
        lambda: fit(callbacks=[ModelCheckpoint(filename="{nope}")]),
        (KeyError, ValueError),  # type: ignore[dict-item]
        "nope|filename",
    ),
    "save_top_k without monitor": (
        lambda: ModelCheckpoint(save_top_k=3),
        MisconfigurationException,
        "save_top_k|3|monitor",
    ),
    "mode": (lambda: EarlyStopping("x", mode="least"), MisconfigurationException, "least|min|max"),
    # --- logging ----------------------------------------------------------------------------------------------
    "log in setup": (lambda: fit(logging_in("setup")), MisconfigurationException, "setup|log"),
    "log in on_fit_start": (lambda: fit(logging_in("on_fit_start")), MisconfigurationException, "on_fit_start|log"),
    "log in on_train_end": (
        lambda: fit(logging_in("on_train_end")),
        MisconfigurationException,
        "on_train_end|epoch hook",
    ),
    "log in predict_step": (
        lambda: trainer().predict(logging_in("predict_step"), loader()),
        MisconfigurationException,
        "predict|log",
    ),
    "log by step at an epoch's end": (
        lambda: fit(logging_in("on_train_epoch_end", on_step=True)),
        MisconfigurationException,
        "on_step|on_train_epoch_end",
    ),
    "log neither by step nor by epoch": (
        lambda: fit(logging_in("on_train_batch_end", on_step=False, on_epoch=False)),
        MisconfigurationException,
        "on_step|on_epoch",
    ),
    "log a list": (
        lambda: fit(with_(on_train_batch_end=lambda self, *a: self.log("x", [1.0]))),
        ValueError,
        "x|list",
    ),
    "log two elements": (
        lambda: fit(with_(on_train_batch_end=lambda self, *a: self.log("x", torch.ones(2)))),
        ValueError,
        "x|2|mean()",
    ),
    "log one metric object for two loaders": (
        lambda: trainer().validate(SharedMetric(), [loader(), loader()]),
        MisconfigurationException,
        "self.mean|x/dataloader_idx_0|x/dataloader_idx_1|nn.ModuleList|add_dataloader_idx=False",
    ),
    "log one name in two ways": (
        lambda: fit(with_(on_train_batch_end=lambda self, *a: [self.log("x", 1.0), self.log("x", 1.0, on_epoch=True)])),
        MisconfigurationException,
        "x|test_bad_input.py",
    ),
    "log without a trainer": (lambda: BoringModel().trainer, RuntimeError, "Trainer|BoringModel"),
}


class iter_of:
    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


@pytest.mark.parametrize("name", TABLE)
def test_error(name: str) -> None:
    act, kind, holds = TABLE[name]
    with pytest.raises(kind) as error:
        act()
    text = str(error.value)
    missing = [part for part in holds.split("|") if not re.search(re.escape(part), text, re.IGNORECASE)]
    assert not missing, f"{missing} missing in: {type(error.value).__name__}: {text}"
    assert len(text) < 800, "an error is read by a person"


def test_last_without_a_file_warns_and_starts_fresh() -> None:
    with pytest.warns(UserWarning, match="last"):
        t = fit(ckpt_path="last")
    assert t.global_step == 2


def test_a_module_without_optimizer_trains_nothing_and_says_so() -> None:
    model = with_(configure_optimizers=lambda self: None)
    before = [p.clone() for p in model.parameters()]
    with pytest.warns(UserWarning, match="configure_optimizers"):
        fit(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_an_error_in_the_users_code_arrives_unchanged_and_soon() -> None:
    def broken(self: Any, batch: Any, batch_idx: int) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as error:
        fit(with_(training_step=broken))
    ours = Path(pl.__file__).parent
    assert len([entry for entry in error.traceback if ours in Path(entry.path).parents]) <= 5
