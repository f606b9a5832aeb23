"""validate, test and predict: what they return, which hooks they call, and several calls on one trainer."""

from __future__ import annotations

import contextlib
from typing import Any

from torch.utils.data import DataLoader

from parity import models as M
from parity.compare import settings
from parity.harness import Case


def loader(n: int = 11, seed: int = 2) -> Any:
    return DataLoader(M.rows(n, seed), 5)


def pair() -> list[Any]:
    return [loader(), loader(6, 4)]


def call(name: str, *loaders: Any, **how: Any) -> Any:
    def act(trainer: Any, module: Any, case: Case, pl: Any) -> Any:
        return getattr(trainer, name)(module, *(make() for make in loaders), **how)

    return act


def fit_then(*calls: tuple[str, dict[str, Any]]) -> Any:
    """fit, then the calls without a model: what they return, one after the other."""

    def act(trainer: Any, module: Any, case: Case, pl: Any) -> Any:
        trainer.fit(module, *case.loaders(case, pl))
        return [getattr(trainer, name)(**{k: v() if callable(v) else v for k, v in how.items()}) for name, how in calls]

    return act


def fit_twice(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    trainer.fit(module)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module)


def fit_fit(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    trainer.fit(module, *case.loaders(case, pl))
    trainer.fit(module, *case.loaders(case, pl))


def fit_break_fit(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    """An exception in the second epoch; then the same call again."""
    module.breaks = True
    with contextlib.suppress(ArithmeticError):
        trainer.fit(module)
    module.breaks = False
    trainer.fit(module)


def break_once(trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
    if module.breaks and trainer.current_epoch == 1 and batch_idx == 2:
        raise ArithmeticError


def validate_fit_validate(trainer: Any, module: Any, case: Case, pl: Any) -> Any:
    first = trainer.validate(module, loader())
    trainer.fit(module, *case.loaders(case, pl))
    return first, trainer.validate(module, loader())


def two_trainers(trainer: Any, module: Any, case: Case, pl: Any) -> Any:
    trainer.fit(module, *case.loaders(case, pl))
    other = pl.Trainer(
        logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu", max_epochs=1
    )
    other.fit(module, *case.loaders(case, pl))
    return other.global_step, other.current_epoch


def best(pl: Any) -> list[Any]:
    return [pl.callbacks.ModelCheckpoint(monitor="vl", save_last=True, save_top_k=-1)]


CASES: dict[str, Case] = {}
for flags in (
    {},
    {"limit_val_batches": 1, "limit_test_batches": 2, "limit_predict_batches": 0.7},
    {"inference_mode": False},
    {"fast_dev_run": True},
):
    label = ", ".join(f"{k}={v}" for k, v in flags.items())
    for name in ("validate", "test", "predict"):
        CASES[f"{name} {label}"] = Case(act=call(name, loader), flags=flags)
        CASES[f"{name} two loaders {label}"] = Case(model="TwoVal", act=call(name, pair), flags=flags)
for model in ("Metrics", "Reductions", "BatchNorm", "NoBatchIndex"):
    CASES[f"validate {model}"] = Case(model=model, act=call("validate", loader))
CASES |= {
    "test Metrics": Case(model="Metrics", act=call("test", loader)),
    "test, quiet": Case(act=call("test", loader, verbose=False)),
    "test the module's own loaders": Case(model="OwnLoaders", act=call("test")),
    "validate the module's own loaders": Case(model="OwnLoaders", act=call("validate")),
    "predict the module's own loaders": Case(model="OwnLoaders", act=call("predict")),
    "predict, own step": Case(model="Predicting", act=call("predict", loader)),
    "predict without return": Case(model="Predicting", act=call("predict", loader, return_predictions=False)),
    "predict, bf16": Case(act=call("predict", loader), flags={"precision": "bf16-mixed"}),
    "validate, 64": Case(act=call("validate", loader), flags={"precision": 64}),
    "test what does not exist": Case(
        model="NoValidation", act=call("validate", loader), raises="MisconfigurationException"
    ),
    "fit, test, predict, validate without a model": Case(
        callbacks=best,
        monitor=False,
        act=fit_then(
            ("test", {"dataloaders": loader}),
            ("predict", {"dataloaders": loader}),
            ("validate", {"dataloaders": loader}),
        ),
    ),
    "fit, test best, test last": Case(
        callbacks=best,
        monitor=False,
        act=fit_then(
            ("test", {"dataloaders": loader, "ckpt_path": "best"}),
            ("test", {"dataloaders": loader, "ckpt_path": "last"}),
        ),
    ),
    "validate, fit, validate": Case(act=validate_fit_validate),
    "fit twice, nothing left": Case(act=fit_fit),
    # Lightning opens the loaders of the second fit twice, and so draws one number more.
    "fit twice, max_epochs raised": Case(model="OwnLoadersInOrder", act=fit_twice, ignore=("rng",)),
    # Lightning's x-axis lags a step behind from the broken batch on, and the gradients of that batch stay longer
    "fit again after an exception": Case(
        model="OwnLoadersInOrder",
        act=fit_break_fit,
        do={"m.on_train_batch_end": break_once},
        ignore=("rng", "record", "rows", "files"),
    ),
    "fit in two trainers": Case(act=two_trainers),
}

test_evaluation = settings(CASES)
