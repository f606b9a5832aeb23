"""What people leave a framework for, tried on each installed one: `python benchmarks/reasons_to_leave.py [--table]`.

Each probe is a few lines of user code and says in a few words what came of it. Prints one line of JSON, or with
`--table` the table of the README.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
NO_FILES = {"logger": False, "enable_checkpointing": False}


def module(pl: ModuleType, **methods: Callable) -> nn.Module:
    """A linear model with dropout; `methods` replace its steps."""

    class Linear(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch[0]).square().mean()
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.layer(batch[0]).square().mean())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    for name, method in methods.items():
        setattr(Linear, name, method)
    return Linear()


def loader(n: int, shuffle: bool = False) -> DataLoader:
    """`n` batches of two."""
    data = torch.randn(2 * n, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(data), batch_size=2, shuffle=shuffle)


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def frames_of_an_error(pl: ModuleType) -> str:
    def training_step(self, batch, batch_idx):
        raise ValueError("mine")

    try:
        pl.Trainer(max_epochs=1, **QUIET, **NO_FILES).fit(module(pl, training_step=training_step), loader(4))
    except ValueError as error:
        frames = traceback.extract_tb(error.__traceback__)
        return f"{sum(frame.filename != __file__ for frame in frames)} frames"
    return "no error"


def stop_iteration(pl: ModuleType) -> str:
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            next(iter([]))
        return self.layer(batch[0]).square().mean()

    trainer = pl.Trainer(max_epochs=2, **QUIET, **NO_FILES)
    try:
        trainer.fit(module(pl, training_step=training_step), loader(8))
    except Exception as error:
        named = Path(__file__).name in str(error)
        return f"{type(error).__name__} that names your line" if named else first_line(error)
    return f"{trainer.global_step} of 16 steps, no error"


def wrong_optimizer(pl: ModuleType) -> str:
    def configure_optimizers(self):
        return torch.optim.SGD(nn.Linear(4, 1).parameters(), lr=0.1)

    trainer = pl.Trainer(max_epochs=1, **QUIET, **NO_FILES)
    try:
        trainer.fit(module(pl, configure_optimizers=configure_optimizers), loader(8))
    except Exception as error:
        return f"{type(error).__name__} at step {trainer.global_step}"
    return f"{trainer.global_step} steps, nothing learned, no message"


def nan_loss(pl: ModuleType) -> str:
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean() * (float("nan") if batch_idx == 5 else 1)
        self.log("train_loss", loss)
        return loss

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        logger = pl.loggers.CSVLogger(folder)
        trainer = pl.Trainer(max_epochs=1, logger=logger, enable_checkpointing=False, log_every_n_steps=4, **QUIET)
        try:
            trainer.fit(module(pl, training_step=training_step), loader(8))
        except Exception as error:
            return first_line(error)
        named = [str(w.message).splitlines()[0] for w in said if "nan" in str(w.message) or "finite" in str(w.message)]
        return f"warning: {named[0].split('. ')[0]}" if named else "all weights NaN, no message"


def best_checkpoint_by_steps(pl: ModuleType) -> str:
    with tempfile.TemporaryDirectory() as folder:
        best = pl.callbacks.ModelCheckpoint(folder, monitor="val_loss", every_n_train_steps=2)
        trainer = pl.Trainer(max_epochs=1, callbacks=best, logger=False, **QUIET)
        trainer.fit(module(pl), loader(8), loader(2))
        return f"{len(list(Path(folder).glob('*.ckpt')))} file(s)"


def stale_metric(pl: ModuleType) -> str:
    """val_loss is the number of training steps taken: the name of a file should never promise less than its step."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", float(self.global_step))

    with tempfile.TemporaryDirectory() as folder:
        name = "{step}-{val_loss:.0f}"
        best = pl.callbacks.ModelCheckpoint(folder, name, monitor="val_loss", every_n_train_steps=2, save_top_k=-1)
        trainer = pl.Trainer(max_epochs=3, callbacks=best, logger=False, **QUIET)
        trainer.fit(module(pl, validation_step=validation_step), loader(5), loader(2))
        files = [dict(part.split("=") for part in path.stem.split("-")) for path in Path(folder).glob("*.ckpt")]
    stale = sum(int(file["step"]) != int(file["val_loss"]) for file in files)
    return f"{stale} of {len(files)} files carry an older value"


def missing_metric_in_a_file_name(pl: ModuleType) -> str:
    with tempfile.TemporaryDirectory() as folder:
        callback = pl.callbacks.ModelCheckpoint(folder, "{epoch}-{val_accuracy:.2f}")
        try:
            pl.Trainer(max_epochs=1, callbacks=callback, logger=False, **QUIET).fit(module(pl), loader(4), loader(2))
        except Exception as error:
            return f"{type(error).__name__}" + " that lists the known names" * ("val_loss" in str(error))
        return next(Path(folder).glob("*.ckpt")).name


def last_window(pl: ModuleType) -> str:
    """Gradients of three windows of 4, 4 and 2 identical batches."""
    seen: list[float] = []

    class One(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def training_step(self, batch, batch_idx):
            return self.weight.sum()

        def on_before_optimizer_step(self, optimizer):
            seen.append(round(self.weight.grad.item(), 3))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    pl.Trainer(max_epochs=1, accumulate_grad_batches=4, **QUIET, **NO_FILES).fit(One(), loader(10))
    return ", ".join(map(str, seen))


def wrong_length(pl: ModuleType) -> str:
    """An iterable that says 12 and gives 8."""

    class Optimist(IterableDataset):
        def __len__(self) -> int:
            return 12

        def __iter__(self) -> Iterator[Tensor]:
            return iter(torch.randn(8, 4))

    validated: list[int] = []

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            validated.append(batch_idx)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    model = module(pl, training_step=training_step, validation_step=validation_step)
    pl.Trainer(max_epochs=1, **QUIET, **NO_FILES).fit(model, DataLoader(Optimist()), loader(4))
    return f"{len(validated)} of 4 validation batches ran"


def log_after_resume(pl: ModuleType) -> str:
    with tempfile.TemporaryDirectory() as folder:

        def fit(epochs: int, ckpt_path: str | None = None) -> None:
            logger = pl.loggers.CSVLogger(folder, name="run", version=0)
            trainer = pl.Trainer(
                max_epochs=epochs, logger=logger, enable_checkpointing=False, log_every_n_steps=1, **QUIET
            )
            trainer.fit(module(pl), loader(4), ckpt_path=ckpt_path)
            trainer.save_checkpoint(f"{folder}/half.ckpt")

        fit(1)
        fit(2, f"{folder}/half.ckpt")
        with Path(folder, "run", "version_0", "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["train_loss"]]
    return f"{len(rows)} of 8 rows"


class Shuffled(Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> list[Tensor]:
        return [torch.full((4,), float(i))]


def exact_resume(pl: ModuleType) -> str:
    """Shuffling and dropout on; saved in mid-epoch, continued in a fresh Trainer."""

    class SaveAt(pl.Callback):
        def __init__(self, path: str) -> None:
            self.path = path

        def on_train_batch_end(self, trainer, *args) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(self.path)

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/five.ckpt"

        def fit(ckpt_path: str | None = None) -> Tensor:
            pl.seed_everything(1 if ckpt_path is None else 2, verbose=False)
            model = module(pl)
            trainer = pl.Trainer(max_epochs=2, callbacks=[] if ckpt_path else [SaveAt(path)], **QUIET, **NO_FILES)
            trainer.fit(model, DataLoader(Shuffled(), 2, shuffle=True), ckpt_path=ckpt_path)
            return torch.cat([p.detach().flatten() for p in model.parameters()])

        same = torch.equal(fit(), fit(path))
    return "the same weights, bit for bit" if same else "other weights"


PROBES: dict[str, tuple[Callable[[ModuleType], str], str]] = {
    "frames": (frames_of_an_error, "an error in `training_step`: frames that are not yours in its traceback"),
    "stop_iteration": (stop_iteration, "`StopIteration` out of your `training_step`"),
    "wrong_optimizer": (wrong_optimizer, "an optimizer that holds none of the model's parameters"),
    "nan_loss": (nan_loss, "a loss that becomes NaN"),
    "best_by_steps": (
        best_checkpoint_by_steps,
        '`ModelCheckpoint(monitor="val_loss", every_n_train_steps=2)`, one epoch',
    ),
    "stale_metric": (
        stale_metric,
        "the same over three epochs: the metric in the file name",
    ),
    "file_name": (missing_metric_in_a_file_name, "a metric in the file name that nobody logged"),
    "last_window": (last_window, "gradients of windows of 4, 4 and 2 equal batches"),
    "wrong_length": (wrong_length, "an iterable data set that says 12 and gives 8"),
    "log_after_resume": (log_after_resume, "`metrics.csv` after stop and resume"),
    "exact_resume": (exact_resume, "stopped in mid-epoch and resumed, against not stopped"),
}


def packages() -> dict[str, ModuleType]:
    """Ours, and the genuine one where it is installed."""
    import fulgurite

    found = {"fulgurite": fulgurite}
    if importlib.util.find_spec("lightning"):
        import lightning.pytorch

        found["lightning"] = lightning.pytorch
    return found


def measure() -> dict[str, dict[str, str]]:
    results: dict[str, dict[str, str]] = {}
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        found = packages()
        for name in list(logging.root.manager.loggerDict):
            if name.startswith(("lightning", "fulgurite")):
                logging.getLogger(name).setLevel(logging.ERROR)
        os.chdir(folder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for name, (probe, _) in PROBES.items():
                    results[name] = {package: probe(pl) for package, pl in found.items()}
        finally:
            os.chdir(here)
    return results


def table(results: dict[str, dict[str, str]]) -> str:
    lines = ["| tried | Lightning 2.6.6 | here |", "|---|---|---|"]
    for name, (_, words) in PROBES.items():
        lines.append(f"| {words} | {results[name].get('lightning', 'not installed')} | {results[name]['fulgurite']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    results = measure()
    print(table(results) if "--table" in sys.argv else json.dumps(results))
