"""What `self.log` makes of values: names, reductions, metrics objects, callbacks that log, and the x-axis."""

from __future__ import annotations

from typing import Any

from parity import models as M
from parity.compare import settings
from parity.harness import Case


def log(name: str, value: float = 1.0, **how: Any) -> Any:
    return lambda trainer, module, *args: module.log(name, value, **how)


def log_from_callback(pl: Any) -> list[Any]:
    class Logs(pl.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.log("from_callback", float(batch_idx), on_epoch=True, batch_size=2)

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.log_dict({"cb/a": 1.0, "cb/b": float(trainer.current_epoch)})

        def on_validation_batch_end(self, *args: Any) -> None:
            self.log("val_from_callback", 2.0, batch_size=1)

    return [Logs()]


CASES = {
    "reductions": Case(model="Reductions"),
    "reductions, accumulate 2": Case(model="Reductions", batches=6, flags={"accumulate_grad_batches": 2}),
    "reductions, log each": Case(model="Reductions", flags={"log_every_n_steps": 1}),
    "reductions, val each 2": Case(model="Reductions", flags={"val_check_interval": 2}),
    "metrics objects": Case(model="Metrics"),
    "metrics objects, log each, val each 2": Case(
        model="Metrics", flags={"log_every_n_steps": 1, "val_check_interval": 2}
    ),
    "metrics objects, max_steps in mid-epoch": Case(model="Metrics", flags={"max_steps": 10}),
    "metrics objects, plateau on one": Case(
        model="Metrics", optim=M.scheduled(M.plateau, monitor="val_acc"), flags={"max_epochs": 4}
    ),
    "own x-axis": Case(model="OwnAxis"),
    "values logged now and then": Case(model="ConditionalLog"),
    "values logged now and then, log each": Case(model="ConditionalLog", flags={"log_every_n_steps": 1}),
    "callbacks that log": Case(callbacks=log_from_callback),
    "two validation loaders": Case(model="TwoVal", val=2, flags={"num_sanity_val_steps": 0}),
    "hyper-parameters": Case(model="Hparams"),
    "hyper-parameters not wanted": Case(model="Hparams", flags={"enable_autolog_hparams": False}),
    "manual optimization, log each": Case(model="Manual", optim=M.two_and_a_scheduler, flags={"log_every_n_steps": 1}),
    "one name in training and in validation": Case(model="SameName"),
    "one name in training and in validation, val each 3": Case(model="SameName", flags={"val_check_interval": 3}),
    "one name in training, at its start and its end": Case(model="SameName", val=0),
    "one name, plateau on it": Case(model="SameName", optim=M.scheduled(M.plateau, monitor="x")),
    "no logger": Case(flags={"logger": False}),
}
# Every hook that may log, with its defaults; and those that may not.
EPOCH_HOOKS = (
    "on_train_start on_train_epoch_start on_train_epoch_end"
    " on_validation_start on_validation_epoch_start on_validation_epoch_end"
)
STEP_HOOKS = (
    "on_train_batch_start on_train_batch_end on_before_zero_grad on_before_backward on_after_backward"
    " on_before_optimizer_step"
    " optimizer_zero_grad backward configure_gradient_clipping"
    " on_validation_batch_start on_validation_batch_end"
)
FORBIDDEN_HOOKS = (
    "setup configure_callbacks on_fit_start on_fit_end on_train_end on_validation_end teardown"
    " on_before_batch_transfer transfer_batch_to_device on_after_batch_transfer lr_scheduler_step"
)
# In Lightning a value logged before the first batch of the sanity check can be read before the epoch is over.
EARLY = "on_validation_start", "on_validation_epoch_start"
for hook in f"{EPOCH_HOOKS} {STEP_HOOKS}".split():
    short = {"flags": {"max_epochs": 2}, "batches": 3, "ignore": ("record",) if hook in EARLY else ()}
    CASES[f"log in {hook}"] = Case(do={f"m.{hook}": log("here", batch_size=1)}, **short)
    by_epoch = log("here", on_step=False, on_epoch=True, batch_size=1)
    CASES[f"log in {hook}, epoch"] = Case(do={f"m.{hook}": by_epoch}, **short)
for hook in EPOCH_HOOKS.split():
    CASES[f"log by step in {hook}"] = Case(
        do={f"m.{hook}": log("here", on_step=True)},
        flags={"max_epochs": 2},
        batches=3,
        raises="MisconfigurationException",
    )
for hook in FORBIDDEN_HOOKS.split():
    CASES[f"log in {hook}, forbidden"] = Case(
        do={f"m.{hook}": log("here")},
        flags={"max_epochs": 1},
        batches=3,
        optim=M.scheduled(M.halving),
        raises="MisconfigurationException",
    )
CASES |= {
    "both False": Case(
        do={"m.on_train_batch_end": log("x", on_step=False, on_epoch=False)}, raises="MisconfigurationException"
    ),
    "a nested dict": Case(do={"m.on_train_batch_end": log("x", {"a": {"b": 1.0}})}, raises="ValueError"),  # type: ignore[arg-type]
    "a string": Case(do={"m.on_train_batch_end": log("x", "y")}, raises="ValueError"),  # type: ignore[arg-type]
    "several elements": Case(do={"m.on_train_batch_end": log("x", M.torch.ones(2))}, raises="ValueError"),  # type: ignore[arg-type]
    "an unknown reduction": Case(
        do={"m.on_train_batch_end": log("x", reduce_fx="median")}, raises="MisconfigurationException"
    ),
}

test_log = settings(CASES)
