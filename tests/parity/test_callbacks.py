"""The callbacks that ship with the package: what they write, under which names, when they stop, what they remember."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from parity import models as M
from parity.compare import settings
from parity.harness import Case


def only(name: str, **how: Any) -> Any:
    return lambda pl: [getattr(pl.callbacks, name)(**how)]


def several(*wanted: tuple[str, dict[str, Any]]) -> Any:
    return lambda pl: [getattr(pl.callbacks, name)(**how) for name, how in wanted]


CHECKPOINTS: dict[str, Any] = {
    "default": {},
    "monitor": {"monitor": "vl"},
    "top 2": {"monitor": "vl", "save_top_k": 2},
    "top 2, max": {"monitor": "vl", "save_top_k": 2, "mode": "max"},
    "all": {"save_top_k": -1},
    "all, monitored": {"monitor": "vl", "save_top_k": -1},
    "none": {"save_top_k": 0},
    "template": {"filename": "{epoch:02d}-{step}-{vl:.3f}", "monitor": "vl", "save_top_k": -1},
    "template without names": {"filename": "e{epoch}_{vl:.2f}", "auto_insert_metric_name": False, "save_top_k": -1},
    "fixed name": {"filename": "same", "save_top_k": -1},
    "fixed name, no versions": {"filename": "same", "save_top_k": -1, "enable_version_counter": False},
    "last": {"save_last": True},
    "last, monitored": {"save_last": True, "monitor": "vl", "save_top_k": -1},  # of weights not ranked ours is newer
    "last, link": {"save_last": "link", "monitor": "vl"},
    "weights only": {"save_weights_only": True},
    "every 2 steps": {"every_n_train_steps": 2},
    "every 3 steps, all": {"every_n_train_steps": 3, "save_top_k": -1},
    "every 2 steps on a training metric": {"every_n_train_steps": 2, "monitor": "loss_step", "save_top_k": 2},
    "every 2 epochs": {"every_n_epochs": 2, "save_top_k": -1},
    "at the training epoch's end": {"save_on_train_epoch_end": True, "monitor": "loss_epoch"},
    "at the validation's end": {"save_on_train_epoch_end": False, "monitor": "vl", "save_top_k": -1},
    "by time": {"train_time_interval": timedelta(0), "save_top_k": -1},
    "by a long time": {"train_time_interval": timedelta(days=1)},
    "on training loss": {"monitor": "loss", "save_top_k": 2},
}


CASES: dict[str, Case] = {}
for name, how in CHECKPOINTS.items():
    CASES[f"checkpoint {name}"] = Case(callbacks=only("ModelCheckpoint", **how), monitor=False)
    CASES[f"checkpoint {name}, val each 3"] = Case(
        callbacks=only("ModelCheckpoint", **how), monitor=False, flags={"val_check_interval": 3}, batches=6
    )
for flags in (
    {"check_val_every_n_epoch": 2, "max_epochs": 4},
    {"val_check_interval": 5, "check_val_every_n_epoch": None},
    {"accumulate_grad_batches": 3},
    {"max_steps": 8},
    {"limit_val_batches": 0},
):
    label = ", ".join(f"{k}={v}" for k, v in flags.items())
    CASES[f"checkpoint, {label}"] = Case(
        callbacks=only("ModelCheckpoint", save_top_k=-1, save_last=True), batches=6, monitor=False, flags=flags
    )

STOPPING: dict[str, Any] = {
    "on vl": {"monitor": "vl", "patience": 1},
    "on vl, no patience, wide": {"monitor": "vl", "patience": 0, "min_delta": 10.0},
    "max": {"monitor": "vl", "patience": 1, "mode": "max"},
    "at the training epoch's end": {
        "monitor": "loss_epoch",
        "patience": 0,
        "min_delta": 10.0,
        "check_on_train_epoch_end": True,
    },
    "at the validation's end": {"monitor": "vl", "patience": 1, "min_delta": 10.0, "check_on_train_epoch_end": False},
    "threshold": {"monitor": "vl", "stopping_threshold": 10.0},
    "divergence": {"monitor": "vl", "divergence_threshold": -10.0},
    "unknown, not strict": {"monitor": "nope", "strict": False},
}
for name, how in STOPPING.items():
    for interval in (1.0, 0.5):
        CASES[f"early stopping {name}, val each {interval}"] = Case(
            callbacks=only("EarlyStopping", **how), batches=6, flags={"max_epochs": 5, "val_check_interval": interval}
        )

on_training_loss = only("EarlyStopping", monitor="loss_epoch", patience=1, min_delta=10.0)
CASES |= {
    "early stopping on the training loss": Case(callbacks=on_training_loss),
    "early stopping on the training loss, val each 2": Case(
        callbacks=on_training_loss, flags={"val_check_interval": 2}, raises="RuntimeError"
    ),
    "early stopping, unknown monitor": Case(callbacks=only("EarlyStopping", monitor="nope"), raises="RuntimeError"),
    "early stopping on a nan": Case(
        do={"m.on_validation_epoch_end": lambda t, m: m.log("bad", float("nan") if t.current_epoch else 1.0)},
        callbacks=only("EarlyStopping", monitor="bad", patience=5),
    ),
    "early stopping, min_epochs 3": Case(
        callbacks=only("EarlyStopping", monitor="vl", patience=0, min_delta=10.0),
        flags={"min_epochs": 3, "max_epochs": 6},
    ),
    "early stopping and two checkpoints": Case(
        callbacks=several(
            ("EarlyStopping", {"monitor": "vl", "patience": 1, "min_delta": 10.0}),
            ("ModelCheckpoint", {"monitor": "vl", "filename": "best-{vl:.4f}", "save_last": True, "save_top_k": -1}),
            ("ModelCheckpoint", {"every_n_train_steps": 4, "save_top_k": -1, "filename": "s{step}"}),
        ),
        flags={"max_epochs": 6},
        monitor=False,
    ),
    "the default checkpoint": Case(monitor=False, flags={"enable_checkpointing": True}),
    "no checkpoint": Case(monitor=False, flags={"enable_checkpointing": False}),
    "no logger, default checkpoint": Case(monitor=False, flags={"enable_checkpointing": True, "logger": False}),
    "the module's own callbacks": Case(model="OwnCallbacks", flags={"max_epochs": 5}),
    "the module's callbacks replace the trainer's": Case(
        model="OwnCallbacks", callbacks=only("EarlyStopping", monitor="nope"), flags={"max_epochs": 5}
    ),
    "checkpoint with hyper-parameters": Case(model="Hparams", callbacks=only("ModelCheckpoint"), monitor=False),
    "checkpoint with the module's own entries": Case(
        model="Checkpointed", callbacks=only("ModelCheckpoint"), monitor=False
    ),
    "checkpoint of two optimizers and a scheduler": Case(
        model="Manual",
        optim=M.two_and_a_scheduler,
        callbacks=only("ModelCheckpoint", every_n_train_steps=3, save_top_k=-1),
        monitor=False,
    ),
    "checkpoint of metrics objects": Case(
        model="Metrics", callbacks=only("ModelCheckpoint", monitor="val_auroc"), monitor=False
    ),
    "timer": Case(callbacks=only("Timer", duration="01:00:00:00")),
    "timer that is over, by step": Case(callbacks=only("Timer", duration=timedelta(0))),
    "timer that is over, by epoch": Case(callbacks=only("Timer", duration=timedelta(0), interval="epoch")),
    "summary": Case(callbacks=only("ModelSummary", max_depth=2)),
}
for interval in (None, "step", "epoch"):
    CASES[f"learning rate monitor by {interval}"] = Case(
        callbacks=only("LearningRateMonitor", logging_interval=interval, log_momentum=True, log_weight_decay=True),
        optim=M.several_schedulers(
            (M.halving, {"interval": "step", "name": "fast"}), (M.halving, {"interval": "epoch"})
        ),
    )
CASES["learning rate monitor, two optimizers"] = Case(
    model="Manual", optim=M.two_and_a_scheduler, callbacks=only("LearningRateMonitor", logging_interval="step")
)
CASES["learning rate monitor, parameter groups"] = Case(
    callbacks=only("LearningRateMonitor"),
    optim=lambda m: M.torch.optim.SGD(
        [{"params": m.net[0].parameters()}, {"params": m.net[3].parameters(), "lr": 0.5}], lr=0.1
    ),
)
CASES["learning rate monitor, no scheduler"] = Case(callbacks=only("LearningRateMonitor", logging_interval="step"))


def lambda_callback(pl: Any) -> list[Any]:
    def log(trainer: Any, module: Any, *args: Any) -> None:
        module.log("from_lambda", 3.0)

    return [pl.callbacks.LambdaCallback(on_train_batch_end=log, on_train_epoch_end=log)]


CASES["lambda callback"] = Case(callbacks=lambda_callback)

test_callbacks = settings(CASES)
