"""Where we differ from Lightning on purpose: each row says what both do, and both are run."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import fulgurite

pytestmark = pytest.mark.filterwarnings("ignore")
OFF = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def module(pl: Any, **methods: Any) -> Any:
    """One weight, the loss is the weight: each batch adds 1 to the gradient."""

    class One(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))
            self.seen: list[Any] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("loss", self.w.sum())
            return self.w.sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", float(self.trainer.current_epoch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1.0)

    return type("One", (One,), methods)()


def loader(n: int) -> DataLoader[Any]:
    return DataLoader(torch.zeros(n, 1), 1)


def fit(pl: Any, model: Any, train: Any = None, val: Any = None, **flags: Any) -> Any:
    usual = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **OFF}
    if any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in flags.get("callbacks", ())):
        usual["enable_checkpointing"] = True
    ckpt_path = flags.pop("ckpt_path", None)
    trainer = pl.Trainer(**{**usual, **flags})
    trainer.fit(model, loader(4) if train is None else train, val, ckpt_path=ckpt_path)
    return trainer


def outcome(act: Callable[[], Any]) -> Any:
    """What `act` returns, or the error as text."""
    try:
        return act()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


# --- what is observed, with either package -----------------------------------------------------------------------
def gradients_of_each_step(pl: Any) -> Any:
    model = module(pl, on_before_optimizer_step=lambda self, optimizer: self.seen.append(float(self.w.grad)))
    fit(pl, model, loader(10), accumulate_grad_batches=4)
    return model.seen


def stop_iteration_in(step: str) -> Callable[[Any], Any]:
    def observe(pl: Any) -> Any:
        def broken(self: Any, batch: Any, batch_idx: int) -> Any:
            return next(iter([]))

        trainer = outcome(lambda: fit(pl, module(pl, **{step: broken}), loader(4), loader(4), num_sanity_val_steps=0))
        return trainer if isinstance(trainer, str) else f"finished after {trainer.global_step} steps"

    return observe


def checkpoint_files(pl: Any, epochs: int, model: Any = None, **how: Any) -> Any:
    save = pl.callbacks.ModelCheckpoint("saved", save_top_k=-1, **how)
    fit(pl, model or module(pl), loader(4), loader(1), max_epochs=epochs, callbacks=[save], num_sanity_val_steps=0)
    return sorted(p.name for p in Path("saved").glob("*.ckpt"))


def step_saves_ranked_by_a_validation_metric(pl: Any) -> Any:
    """val_loss is the epoch's number: a file that names another epoch's was ranked by a stale value."""
    return checkpoint_files(pl, 2, monitor="val_loss", every_n_train_steps=3, filename="{epoch}-{val_loss:.0f}")


def step_saves_in_one_epoch(pl: Any) -> Any:
    return checkpoint_files(pl, 1, monitor="val_loss", every_n_train_steps=2, filename="{step}-{val_loss:.0f}")


def a_name_with_an_unknown_metric(pl: Any) -> Any:
    return outcome(lambda: checkpoint_files(pl, 1, filename="{epoch}-{accuracy:.1f}"))


def a_monitor_that_is_never_logged(pl: Any) -> Any:
    """Without validation, Lightning waits for it for ever."""
    save = pl.callbacks.ModelCheckpoint("saved", monitor="nope", save_on_train_epoch_end=True)
    trainer = outcome(lambda: fit(pl, module(pl), loader(2), callbacks=[save], max_epochs=2))
    return trainer if isinstance(trainer, str) else sorted(p.name for p in Path("saved").glob("*"))


class Promising(IterableDataset[Any]):
    """Declares 12 and gives 8."""

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[Any]:
        return iter(torch.zeros(8, 1))


def validations_where_the_length_is_wrong(pl: Any) -> Any:
    model = module(pl, on_validation_epoch_end=lambda self: self.seen.append(self.trainer.global_step))
    fit(pl, model, DataLoader(Promising(), 1), loader(2), num_sanity_val_steps=0)
    return model.seen


def batches_of_an_empty_stream(pl: Any) -> Any:
    class Empty(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    trainer = outcome(lambda: fit(pl, module(pl), DataLoader(Empty()), max_epochs=2))
    return trainer if isinstance(trainer, str) else f"finished after {trainer.global_step} steps"


def batches_of_an_empty_loader(pl: Any) -> Any:
    trainer = outcome(lambda: fit(pl, module(pl), loader(0)))
    return trainer if isinstance(trainer, str) else f"finished after {trainer.global_step} steps"


def rows_after_a_resumed_run(pl: Any) -> Any:
    def run(epochs: int, ckpt_path: Any = None) -> None:
        logger = pl.loggers.CSVLogger(".", "", "same")
        trainer = fit(
            pl, module(pl), loader(4), max_epochs=epochs, logger=logger, log_every_n_steps=2, ckpt_path=ckpt_path
        )
        trainer.save_checkpoint("a.ckpt")

    run(1)
    run(2, "a.ckpt")
    return [line.rpartition(",")[2] for line in Path("same/metrics.csv").read_text().split()[1:]]


def a_loss_that_is_not_finite(pl: Any) -> Any:
    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self.w.sum() * (float("nan") if batch_idx == 5 else 1.0)
        self.log("loss", loss)
        return loss

    logger = pl.loggers.CSVLogger(".")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = outcome(
            lambda: fit(pl, module(pl, training_step=step), loader(8), logger=logger, log_every_n_steps=2)
        )
    said = [str(w.message) for w in caught if "finite" in str(w.message) or "nan" in str(w.message)]
    return trainer if isinstance(trainer, str) else said or "nothing said"


def an_optimizer_of_other_parameters(pl: Any) -> Any:
    stranger = nn.Linear(1, 1)
    model = module(pl, configure_optimizers=lambda self: torch.optim.SGD(stranger.parameters(), lr=1.0))
    trainer = outcome(lambda: fit(pl, model))
    return trainer if isinstance(trainer, str) else "finished"


def a_loss_without_gradient(pl: Any) -> Any:
    return outcome(lambda: fit(pl, module(pl, training_step=lambda self, b, i: self.w.detach().sum())))


def a_list_of_batches(pl: Any) -> Any:
    trainer = outcome(lambda: fit(pl, module(pl), [torch.zeros(2, 1), torch.zeros(2, 1)]))
    return trainer if isinstance(trainer, str) else f"finished after {trainer.global_step} steps"


def the_same_name_twice(pl: Any) -> Any:
    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("acc", 1.0)
        self.log("acc", 2.0, on_epoch=True)

    return outcome(lambda: fit(pl, module(pl, training_step=step)))


def ctrl_c(pl: Any) -> Any:
    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        raise KeyboardInterrupt

    return outcome(lambda: fit(pl, module(pl, training_step=step))).partition(":")[0]


def epoch_ends_of_a_run_resumed_in_its_last_epoch(pl: Any) -> Any:
    """The file is written after the last batch, before the epoch is closed."""

    class Save(pl.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            trainer.save_checkpoint("last_batch.ckpt")

    fit(pl, module(pl), loader(2), callbacks=[Save()])
    model = module(pl, on_train_epoch_end=lambda self: self.seen.append("closed"))
    fit(pl, model, loader(2), ckpt_path="last_batch.ckpt")
    return model.seen


def dropout_after_resuming(pl: Any) -> Any:
    """Whether the rest of a run draws what it would have drawn without the interruption."""

    def run(epochs: int, ckpt_path: Any = None) -> Any:
        torch.manual_seed(epochs)
        model = module(pl, on_train_batch_end=lambda self, *a: self.seen.append(float(torch.rand(()))))
        fit(pl, model, loader(2), max_epochs=epochs, ckpt_path=ckpt_path).save_checkpoint(f"{epochs}.ckpt")
        return model.seen

    torch.manual_seed(0)
    whole = []
    run(1)
    model = module(pl, on_train_batch_end=lambda self, *a: whole.append(float(torch.rand(()))))
    torch.manual_seed(1)
    fit(pl, model, loader(2), max_epochs=2)
    return "the same" if run(2, "1.ckpt") == whole[2:] else "others"


def steps_with_two_optimizers(pl: Any) -> Any:
    """global_step counts every optimizer step with both; we count batches beside it."""

    def step(self: Any, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.w.sum())
            optimizer.step()

    model = module(
        pl,
        training_step=step,
        configure_optimizers=lambda self: [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)],
    )
    model.automatic_optimization = False
    trainer = fit(pl, model, loader(10), max_steps=8, max_epochs=-1)
    return trainer.global_step, getattr(trainer, "batches_that_stepped", None)


def advertisements(pl: Any) -> Any:
    records: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in ("lightning", "fulgurite")]
    listener = Listen()
    with contextlib.ExitStack() as stack:
        for name in names:
            logger = logging.getLogger(name)
            logger.addHandler(listener)
            stack.callback(logger.removeHandler, listener)
        fit(pl, module(pl))
    return any("http" in r or "install" in r for r in records)


def openings_of_reloaded_loaders(pl: Any) -> Any:
    class Counted(DataLoader[Any]):
        opened = 0

        def __iter__(self) -> Any:
            Counted.opened += 1
            return super().__iter__()

    model = module(pl, train_dataloader=lambda self: Counted(torch.zeros(2, 1)))
    off = {"logger": False, "enable_checkpointing": False, **OFF}
    pl.Trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1, **off).fit(model)
    return Counted.opened


def epochs_of_reloads_after_resuming(pl: Any) -> Any:
    """Loaders are asked for again every three epochs, the run is stopped after two; the resume's own is left out."""
    off = {"logger": False, "enable_checkpointing": False, "reload_dataloaders_every_n_epochs": 3, **OFF}

    def asked(self: Any) -> Any:
        self.seen.append(self.trainer.current_epoch)
        return loader(1)

    trainer = pl.Trainer(max_epochs=2, **off)
    trainer.fit(module(pl, train_dataloader=asked))
    trainer.save_checkpoint("stopped.ckpt")
    model = module(pl, train_dataloader=asked)
    pl.Trainer(max_epochs=9, **off).fit(model, ckpt_path="stopped.ckpt")
    return model.seen[1:]


def one_name_of_two_loaders(pl: Any) -> Any:
    def validation_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.log("val_loss", float(dataloader_idx), add_dataloader_idx=False)

    model = module(pl, validation_step=validation_step)
    trainer = pl.Trainer(logger=False, **OFF)
    return outcome(lambda: trainer.validate(model, [loader(3), loader(1)], verbose=False)[0])


def validated_before_an_average_begins(pl: Any) -> Any:
    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(float(self.w))

    late = pl.callbacks.EMAWeightAveraging(update_starting_at_step=1000)
    model = module(pl, validation_step=validation_step)
    fit(pl, model, loader(4), loader(1), callbacks=[late], num_sanity_val_steps=0)
    return model.seen


def epochs_where_the_metric_recovers(pl: Any) -> Any:
    """Patience ends in the third epoch, min_epochs keeps the run going, and from the fourth on the metric falls."""

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", [3.0, 4.0, 4.0, 2.0, 1.0, 0.0][self.trainer.current_epoch])

    stop = pl.callbacks.EarlyStopping("val_loss", patience=2)
    model = module(pl, validation_step=validation_step)
    flags = {"max_epochs": 6, "min_epochs": 4, "callbacks": [stop], "num_sanity_val_steps": 0}
    return fit(pl, model, loader(1), loader(1), **flags).current_epoch


def patience_after_resuming(pl: Any) -> Any:
    def run(patience: int, epochs: int, ckpt_path: Any = None) -> Any:
        stop = pl.callbacks.EarlyStopping("loss", patience=patience)
        fit(pl, module(pl), max_epochs=epochs, callbacks=[stop], ckpt_path=ckpt_path).save_checkpoint("saved.ckpt")
        return stop.patience

    run(3, 1)
    return run(20, 2, "saved.ckpt")


def weights_of_a_compiled_layer(pl: Any) -> Any:
    """Saved with the layer compiled, loaded with it as it is."""

    def layered(compiled: bool) -> Any:
        model = module(pl)
        model.w.requires_grad_(False)
        model.layer = nn.Linear(1, 1)
        if compiled:
            model.layer = torch.compile(model.layer, backend="eager")
        return model

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    trained = layered(True)
    type(trained).training_step = step
    fit(pl, trained, loader(1)).save_checkpoint("compiled.ckpt")
    plain = layered(False)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, **OFF)
    seen = outcome(lambda: trainer.validate(plain, loader(1), ckpt_path="compiled.ckpt", verbose=False))
    return seen if isinstance(seen, str) else torch.equal(plain.layer.weight, trained.layer.weight)


def steps_of_the_last_file(pl: Any) -> Any:
    """The first of three epochs is the best; each time a save is due."""

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", float(self.trainer.current_epoch))

    keep = pl.callbacks.ModelCheckpoint("files", monitor="val_loss", save_last=True)
    fit(pl, module(pl, validation_step=validation_step), loader(2), loader(1), max_epochs=3, callbacks=[keep])
    return torch.load("files/last.ckpt", weights_only=True)["global_step"]


def place_of_a_file_that_leaves_its_folder(pl: Any) -> Any:
    def keep() -> Any:
        fit(pl, module(pl), loader(1), callbacks=[pl.callbacks.ModelCheckpoint("files", "../away")])
        return [path.name for path in Path().glob("*.ckpt")]

    return outcome(keep)


def files_where_two_callbacks_have_one_name(pl: Any) -> Any:
    def of(mode: str) -> Any:
        return pl.callbacks.ModelCheckpoint("files", "best", "loss", mode=mode, enable_version_counter=False)

    fit(pl, module(pl), loader(2), max_epochs=2, callbacks=[of("min"), of("max")])
    return len(list(Path("files").iterdir()))


@dataclass
class Difference:
    observe: Callable[[Any], Any]
    lightning: Any
    ours: Any


def a_complex_buffer_in_half_precision(pl: Any) -> Any:
    """A phase; without its imaginary part the numbers are others."""
    model = module(pl)
    model.register_buffer("phase", torch.tensor([0.5 + 0.5j]))
    fit(pl, model, loader(1), precision="16-true")
    return str(model.phase.dtype)


def steps_of_a_closure_called_by_hand(pl: Any) -> Any:
    """Under a GradScaler: `optimizer_closure()`, then `optimizer.step()`; four steps of 1 each."""

    def by_hand(self: Any, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        optimizer_closure()
        optimizer.step()

    model = module(pl, optimizer_step=by_hand)
    fit(pl, model, loader(4), plugins=pl.plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", 2.0)))
    return float(model.w)


def text(*parts: str) -> re.Pattern[str]:
    """A text that holds these, in this order."""
    return re.compile(".*".join(parts), re.DOTALL)


HERE = "test_deliberate_differences.py"
DIFFERENCES = {
    "the last accumulation window is averaged over its own size": Difference(
        gradients_of_each_step, [1.0, 1.0, 0.5], [1.0, 1.0, 1.0]
    ),
    "StopIteration in training_step is an error that shows the line": Difference(
        stop_iteration_in("training_step"), "finished after 0 steps", text("RuntimeError", "StopIteration", HERE)
    ),
    "StopIteration in validation_step is an error that shows the line": Difference(
        stop_iteration_in("validation_step"), "finished after 4 steps", text("RuntimeError", "StopIteration", HERE)
    ),
    "a step save on a validation metric waits for the validation": Difference(
        step_saves_in_one_epoch, [], ["step=4-val_loss=0.ckpt"]
    ),
    "a checkpoint is never ranked by a stale metric": Difference(
        step_saves_ranked_by_a_validation_metric,
        ["epoch=1-val_loss=0.ckpt"],
        ["epoch=0-val_loss=0.ckpt", "epoch=1-val_loss=1.ckpt"],
    ),
    "an unknown metric in a file name is an error": Difference(
        a_name_with_an_unknown_metric, ["epoch=0-accuracy=0.0.ckpt"], text("accuracy", "Logged so far", "loss")
    ),
    "a monitor that is never logged is an error that lists what is": Difference(
        a_monitor_that_is_never_logged, [], text("MisconfigurationException", "nope", "loss")
    ),
    "the last batch is known by looking ahead": Difference(validations_where_the_length_is_wrong, [], [8]),
    "a stream that yields nothing is an error": Difference(
        batches_of_an_empty_stream, "finished after 0 steps", text("ValueError", "batch")
    ),
    "a loader of no batches is an error": Difference(
        batches_of_an_empty_loader, "finished after 0 steps", text("ValueError", "no batch", "limit_train_batches=0")
    ),
    "a resumed run continues its metrics.csv": Difference(rows_after_a_resumed_run, ["5", "7"], ["1", "3", "5", "7"]),
    "a loss that is not finite is named with its step": Difference(
        a_loss_that_is_not_finite, "nothing said", text("(?i)nan|finite", "5")
    ),
    "an optimizer of strangers is an error": Difference(
        an_optimizer_of_other_parameters, "finished", text("Error|Exception", "parameters")
    ),
    "a loss without gradient is an error that says so": Difference(
        a_loss_without_gradient, text("RuntimeError: element 0 of tensors"), text("training_step", "grad")
    ),
    "a list of batches is told from a list of loaders": Difference(
        a_list_of_batches, text("finished|Error"), text("Error", "list")
    ),
    "a name logged in two ways shows both lines": Difference(
        the_same_name_twice,
        text("MisconfigurationException", "different arguments"),
        text("acc", rf"{HERE}:\d+", rf"{HERE}:\d+"),
    ),
    "one name of several loaders is the value over all of them": Difference(
        one_name_of_two_loaders, text("MisconfigurationException", "different arguments"), {"val_loss": 0.25}
    ),
    "Ctrl-C stays a KeyboardInterrupt": Difference(ctrl_c, "SystemExit", "KeyboardInterrupt"),
    "a run resumed inside its last epoch closes it": Difference(
        epoch_ends_of_a_run_resumed_in_its_last_epoch, [], ["closed"]
    ),
    "a resumed run draws what it would have drawn": Difference(dropout_after_resuming, "others", "the same"),
    "a reloaded loader is opened once": Difference(openings_of_reloaded_loaders, 5, 3),
    "loaders are reloaded in the same epochs after a resume": Difference(
        epochs_of_reloads_after_resuming, [5, 8], [3, 6]
    ),
    "batches are counted beside optimizer steps": Difference(steps_with_two_optimizers, (8, None), (8, 4)),
    "until an average begins, the weights that are trained validate": Difference(
        validated_before_an_average_begins, [0.0], [-4.0]
    ),
    "a metric that recovers before min_epochs takes the stop back": Difference(epochs_where_the_metric_recovers, 4, 6),
    "a resumed EarlyStopping has the patience it is given now": Difference(patience_after_resuming, 3, 20),
    "weights of a compiled layer load into the layer as it is": Difference(
        weights_of_a_compiled_layer, text("RuntimeError", "_orig_mod"), True
    ),
    "half precision keeps complex buffers complex": Difference(
        a_complex_buffer_in_half_precision, "torch.float16", "torch.complex64"
    ),
    "a closure called by hand trains under a GradScaler too": Difference(steps_of_a_closure_called_by_hand, 0.0, -4.0),
    "last.ckpt is written whenever a save is due": Difference(steps_of_the_last_file, 2, 6),
    "checkpoints stay in their folder": Difference(
        place_of_a_file_that_leaves_its_folder, ["away.ckpt"], text("MisconfigurationException", "checkpoint folder")
    ),
    "two callbacks never share a file": Difference(files_where_two_callbacks_have_one_name, 1, 2),
    "nothing is advertised": Difference(advertisements, True, False),
}


def agrees(seen: Any, expected: Any) -> bool:
    if isinstance(expected, re.Pattern):
        return bool(expected.search("\n".join(seen) if isinstance(seen, list) else str(seen)))
    return bool(seen == expected)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_ours(name: str) -> None:
    row = DIFFERENCES[name]
    seen = row.observe(fulgurite)
    assert agrees(seen, row.ours), seen


@pytest.mark.parity
@pytest.mark.parametrize("name", DIFFERENCES)
def test_lightnings(name: str) -> None:
    """Were Lightning to change its mind, the row would say something untrue."""
    import signal

    handler = signal.getsignal(signal.SIGTERM)
    row = DIFFERENCES[name]
    seen = row.observe(importlib.import_module("lightning.pytorch"))
    signal.signal(signal.SIGTERM, handler)
    assert agrees(seen, row.lightning), seen
