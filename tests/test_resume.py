"""A run saved anywhere and continued in a fresh Trainer is the uninterrupted run, bit for bit: weights, rows, files."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader, Dataset, IterableDataset

import fulgurite as pl
from fulgurite.demos.boring_classes import BoringModel
from fulgurite.loggers.logger import Logger
from fulgurite.utilities import CombinedLoader
from fulgurite.utilities.rank_zero import _warned

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
BATCHES, EPOCHS = 10, 3


class Net(pl.LightningModule):
    """Dropout, and a running mean of the training loss."""

    def __init__(self, optim: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optim = optim

    def loss(self, batch: Any) -> torch.Tensor:
        if not isinstance(batch, torch.Tensor):  # of several loaders
            parts = batch.values() if isinstance(batch, dict) else batch
            batch = torch.cat([part for part in parts if part is not None])
        return (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("vl", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return self.optim(self)


class Manual(Net):
    """Two optimizers and gradients that wait for the next batch."""

    def __init__(self, optim: Callable[[Any], Any]) -> None:
        super().__init__(optim)
        self.automatic_optimization = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        first, second = self.optimizers()
        self.manual_backward(self.loss(batch))
        if batch_idx % 3 == 2:
            for optimizer in (first, second):
                optimizer.step()
                optimizer.zero_grad()
        self.lr_schedulers().step()
        self.log("loss", self.loss(batch), on_step=True, on_epoch=True)


class LogsAtEnds(Net):
    """Means of one value, at an epoch's ends: weighed by a batch that a resumed run may not have seen."""

    def on_train_epoch_start(self) -> None:
        self.log("at_start", self.net[0].bias[0])

    def on_validation_epoch_end(self) -> None:
        self.log("after_validation", self.net[0].bias[1])

    def on_train_epoch_end(self) -> None:
        self.log("at_end", self.net[0].bias[2])


class Skipping(Net):
    """Some losses are None, and one epoch is left in the middle."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
        return -1 if self.current_epoch == 1 and batch_idx == 6 else None

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        return None if batch_idx % 4 == 1 else super().training_step(batch, batch_idx)


class WithMetrics(Net):
    """A metric object (no torchmetrics needed): its state is part of the run."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reset()

        def update(self, value: torch.Tensor) -> None:
            self.total, self.n = self.total + value.detach(), self.n + 1

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            self.update(value)
            return value

        def compute(self) -> torch.Tensor:
            return self.total / self.n

        def reset(self) -> None:
            self.total, self.n = torch.zeros(()), 0

    def __init__(self, optim: Callable[[Any], Any]) -> None:
        super().__init__(optim)
        self.mean = self.Mean()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.mean.update(loss)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        return loss


class Rows(Logger):
    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


class SaveEverywhere(pl.callbacks.Checkpoint):
    """A file at every batch, validation's end and epoch's end; of a resumed run the first only, for files take time."""

    def __init__(self, folder: Path, first_only: bool) -> None:
        self.folder, self.first_only = folder, first_only
        self.files: list[Path] = []

    def save(self, trainer: pl.Trainer, hook: str) -> None:
        if not trainer.sanity_checking:
            self.files.append(self.folder / f"{len(self.files):03}-{hook}.ckpt")
            if len(self.files) == 1 or not self.first_only:
                trainer.save_checkpoint(self.files[-1])

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.save(trainer, "batch")

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.save(trainer, "epoch")


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(DATA)


class Augmented(Dataset[torch.Tensor]):
    """Items that draw."""

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, i: int) -> torch.Tensor:
        return DATA[i] + torch.rand(4)


class DrawsByItself(Augmented):
    """Items that draw from a generator of the data set's own."""

    def __init__(self) -> None:
        self.seeds = np.random.SeedSequence(5)  # nothing to draw from, and its state cannot be set
        self.rng = np.random.default_rng(self.seeds)

    def __getitem__(self, i: int) -> torch.Tensor:
        return DATA[i] + float(self.rng.random())


class DrawsFromAll(Augmented):
    """Items that draw from each source."""

    def __getitem__(self, i: int) -> torch.Tensor:
        return DATA[i] + torch.rand(4) + random.random() + float(np.random.rand())


class DrawingStream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        for row in DATA:
            yield row + torch.rand(4)


class Stateful:
    """Knows where it is, and goes back to the start, for another pass, after its last `yield`."""

    def __init__(self) -> None:
        self.next = self.passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.next < BATCHES:
            self.next += 1
            yield DATA[3 * self.next - 3 : 3 * self.next] + self.passes
        self.next, self.passes = 0, self.passes + 1

    def state_dict(self) -> dict[str, int]:
        return vars(self)

    def load_state_dict(self, state: dict[str, int]) -> None:
        vars(self).update(state)


class SizedStateful(Stateful):
    def __len__(self) -> int:
        return BATCHES


class EndlessStateful(IterableDataset[torch.Tensor]):
    def __init__(self) -> None:
        self.n = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            self.n += 1
            yield DATA[self.n % len(DATA)] + self.n

    def state_dict(self) -> dict[str, int]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n = state["n"]


def seeds_numpy(worker: int) -> None:
    np.random.seed((torch.initial_seed() + 5) % 2**32)


def persistent(**how: Any) -> Any:
    return DataLoader(DrawsFromAll(), 3, shuffle=True, num_workers=1, persistent_workers=True, **how)


def own_generator(rows: int = 30) -> Any:
    return DataLoader(DATA[:rows], 3, shuffle=True, generator=torch.Generator().manual_seed(7))


def combined(mode: Any) -> Any:
    return lambda: CombinedLoader({"a": DataLoader(DATA[:9], 3, shuffle=True), "b": shuffled()}, mode)


DATA = torch.randn(BATCHES * 3, 4, generator=torch.Generator().manual_seed(1))


def shuffled() -> Any:
    return DataLoader(DATA, 3, shuffle=True)


def adam(module: nn.Module) -> Any:
    return torch.optim.AdamW(module.parameters(), lr=0.01)


def plateau(monitor: str, interval: str = "epoch") -> Callable[[Any], Any]:
    def configure(module: Any) -> Any:
        optimizer = adam(module)
        reduce = schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0, threshold_mode="abs")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": reduce, "monitor": monitor, "interval": interval}}

    return configure


def by_step(module: Any) -> Any:
    optimizer = adam(module)
    return [optimizer], [{"scheduler": schedulers.CosineAnnealingLR(optimizer, 7), "interval": "step"}]


def two_optimizers(module: Any) -> Any:
    first, second = adam(module), torch.optim.SGD(module.net[0].parameters(), lr=0.01, momentum=0.9)
    return [first, second], [schedulers.StepLR(first, 4, 0.5)]


def stops_on_the_training_mean() -> list[Any]:
    return [pl.callbacks.EarlyStopping("loss_epoch", patience=1, min_delta=10.0, check_on_train_epoch_end=True)]


@dataclass
class Setting:
    flags: dict[str, Any] = field(default_factory=dict)
    module: type[Net] = Net
    optim: Callable[[Any], Any] = adam
    loader: Callable[[], Any] = shuffled
    callbacks: Callable[[], list[Any]] = list
    val: Callable[[], Any] = lambda: DataLoader(DATA[:7], 4)


SETTINGS = {
    "epoch means, shuffling, dropout": Setting(),
    "plateau on the training mean": Setting(optim=plateau("loss_epoch")),
    "plateau by step, val each 3": Setting({"val_check_interval": 3}, optim=plateau("vl", "epoch")),
    "early stopping on the training mean": Setting({"max_epochs": 5}, callbacks=stops_on_the_training_mean),
    "accumulate 4, val each 5, clip": Setting(
        {"accumulate_grad_batches": 4, "val_check_interval": 5, "gradient_clip_val": 0.5}, optim=by_step
    ),
    "val each 4 batches across epochs": Setting({"val_check_interval": 4, "check_val_every_n_epoch": None}),
    "manual, two optimizers": Setting({"val_check_interval": 0.5}, Manual, two_optimizers),
    "iterable": Setting({"val_check_interval": 5}, loader=lambda: DataLoader(Stream(), 3)),
    "items that draw": Setting(loader=lambda: DataLoader(Augmented(), 3, shuffle=True)),
    "items that draw from numpy": Setting(loader=lambda: DataLoader(DrawsByItself(), 3, shuffle=True)),
    "None losses, -1 in mid-epoch": Setting(module=Skipping, optim=by_step),
    "values logged at an epoch's ends": Setting(module=LogsAtEnds, optim=by_step),
    "a metric object": Setting({"val_check_interval": 4}, module=WithMetrics),
    "max_steps in mid-epoch": Setting({"max_steps": 26, "max_epochs": -1}),
    "LBFGS": Setting(optim=lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=3)),
    "accumulation by epoch": Setting(callbacks=lambda: [pl.callbacks.GradientAccumulationScheduler({0: 2, 1: 3})]),
    "stochastic weight averaging": Setting(
        {"val_check_interval": 5},
        optim=by_step,
        callbacks=lambda: [pl.callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=2)],
    ),
    "bf16-true, moving average of the weights": Setting(
        {"precision": "bf16-true"}, callbacks=lambda: [pl.callbacks.EMAWeightAveraging(decay=0.9)]
    ),
    "two workers": Setting(
        {"max_epochs": 2, "limit_train_batches": 4}, loader=lambda: DataLoader(DATA, 3, num_workers=2)
    ),
}
SHORT = {"max_epochs": 2, "limit_train_batches": 4}
LOADERS = {
    "persistent workers that draw": Setting(SHORT, loader=persistent),
    "persistent workers, seeded by the user": Setting(SHORT, loader=lambda: persistent(worker_init_fn=seeds_numpy)),
    "persistent workers of one of two loaders": Setting(SHORT, loader=lambda: [persistent(), shuffled()]),
    "persistent workers in validation": Setting(SHORT, val=lambda: persistent()),
    "loaders that begin again in mid-epoch": Setting(loader=combined("max_size_cycle")),
    "loaders of which one ends": Setting(loader=combined("max_size")),
    "one loader after the other": Setting(loader=combined("sequential")),
    "own generators": Setting(loader=lambda: [own_generator(9), own_generator()], val=lambda: own_generator(9)),
    "a stream that draws": Setting(loader=lambda: DataLoader(DrawingStream(), 3)),
    "stateful": Setting(loader=Stateful),
    "stateful with a length": Setting(loader=SizedStateful, val=SizedStateful),
    "stateful in a DataLoader": Setting({"limit_train_batches": 4}, loader=lambda: DataLoader(EndlessStateful(), 3)),
    "stateful beside one that is not": Setting(
        loader=lambda: {"a": Stateful(), "b": DataLoader(DATA[:12], 3, shuffle=True)}
    ),
}
SETTINGS.update(LOADERS)
# Where a run of 30 batches costs too much for every save point to be tried.
SPARSE = {
    "two workers": 3,
    **dict.fromkeys(LOADERS, 4),
    "accumulation by epoch": 4,
    "stochastic weight averaging": 4,
    "bf16-true, moving average of the weights": 4,
}


def run(
    setting: Setting, folder: Path, ckpt_path: Path | None = None, after: Any = None, **ends: Any
) -> tuple[dict[str, Any], list[Any], list[Path]]:
    """The last checkpoint, all rows, the files on the way."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0 if ckpt_path is None else 99)  # a resumed run brings its own random state
    module = setting.module(setting.optim)
    folder.mkdir()
    save, rows = SaveEverywhere(folder, ckpt_path is not None), Rows()
    flags = {"max_epochs": EPOCHS, "log_every_n_steps": 2, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", logger=rows, callbacks=[*setting.callbacks(), save], **{**flags, **setting.flags, **ends}
    )
    trainer.fit(module, setting.loader(), setting.val(), ckpt_path=ckpt_path)
    if after is not None:
        after(trainer, module)
    trainer.save_checkpoint(folder / "last.ckpt")
    return torch.load(folder / "last.ckpt", weights_only=True), rows.rows, save.files


def timeless(value: Any) -> Any:
    """A checkpoint without its clocks, tensors as bytes: equal exactly where the bits are."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("clocks", "time_elapsed")}
    if isinstance(value, (list, tuple)):
        return [timeless(v) for v in value]
    return repr(value)


def differing(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in dict.fromkeys([*a, *b]) for d in differing(a.get(k), b.get(k), f"{path}/{k}")]
    return [] if a == b else [f"{path}: {str(a)[:80]} != {str(b)[:80]}"]


QUICK = ("epoch means, shuffling, dropout",)
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]


@pytest.mark.parametrize("name", EACH)
def test_every_save_point_continues_bit_for_bit(name: str, tmp_path: Path) -> None:
    setting = SETTINGS[name]
    end, rows, files = run(setting, tmp_path / "whole")
    kinds = {f.stem.partition("-")[2] for f in files}
    assert kinds == {"batch", "validation", "epoch"}
    for file in files[:: SPARSE.get(name, 1)]:
        resumed, tail, later = run(setting, tmp_path / file.stem, file)
        assert not differing(timeless(end), timeless(resumed)), file.stem
        assert tail == rows[len(rows) - len(tail) :], f"{file.stem}: the rows differ"
        # The next file, too, is what it was; when the last one was saved, everything had been written.
        if later:
            first = torch.load(later[0], weights_only=True)
            twin = torch.load(files[len(files) - len(later)], weights_only=True)
            assert not differing(timeless(twin), timeless(first)), f"{file.stem}: the file after it differs"


def uses_the_trainer(trainer: pl.Trainer, module: Net) -> None:
    torch.rand(3), np.random.rand(), random.random()
    trainer.validate(module, DataLoader(DATA[:7], 4), verbose=False)


@pytest.mark.parametrize("ends", [{"max_epochs": 1}, {"max_steps": 2}, {"max_steps": 7}], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "epoch means, shuffling, dropout",
        "accumulate 4, val each 5, clip",
        "manual, two optimizers",
        "a metric object",
        "values logged at an epoch's ends",
        *LOADERS,
    ],
)
@pytest.mark.slow
def test_a_file_saved_after_fit_continues_bit_for_bit(name: str, ends: dict[str, int], tmp_path: Path) -> None:
    """Whatever was done with the trainer between the fit's end and the save."""
    setting = SETTINGS[name]
    end, rows, _ = run(setting, tmp_path / "whole")
    run(setting, tmp_path / "part", None, uses_the_trainer, **ends)
    resumed, tail, _ = run(setting, tmp_path / "resumed", tmp_path / "part" / "last.ckpt")
    assert not differing(timeless(end), timeless(resumed))
    assert tail and tail == rows[len(rows) - len(tail) :]


def test_a_file_of_an_epoch_that_max_steps_cut_short_goes_on_with_it(tmp_path: Path) -> None:
    """Also one saved in the hooks that end that epoch."""
    setting = SETTINGS["epoch means, shuffling, dropout"]
    end, _, _ = run(setting, tmp_path / "whole")
    _, _, files = run(setting, tmp_path / "part", max_steps=7)
    assert files[-1].stem.endswith("epoch")
    resumed, _, _ = run(setting, tmp_path / "resumed", files[-1])
    assert not differing(timeless(end)["state_dict"], timeless(resumed)["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["epoch means, shuffling, dropout", "accumulate 4, val each 5, clip"])
def test_no_row_is_lost_or_written_twice(name: str, tmp_path: Path) -> None:
    setting = SETTINGS[name]
    _, rows, files = run(setting, tmp_path / "whole")
    lengths = [len(run(setting, tmp_path / f.stem, f)[1]) for f in files]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] <= 1 < len(rows)


@pytest.mark.slow
def test_a_run_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    """Each resumed run hands over after one more batch; the last is what one run would have been."""
    setting = SETTINGS["accumulate 4, val each 5, clip"]
    end, _, files = run(setting, tmp_path / "whole")
    file, hops = files[0], 0
    while len(later := run(setting, tmp_path / f"hop{hops}", file)[2]) > 1:
        file, hops = later[0], hops + 1
    assert hops == len(files) - 2
    last = run(setting, tmp_path / "end", file)[0]
    assert not differing(timeless(end), timeless(last))


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    setting = SETTINGS["epoch means, shuffling, dropout"]
    end, _, _ = run(setting, tmp_path / "whole")
    again, rows, files = run(setting, tmp_path / "again", tmp_path / "whole" / "last.ckpt")
    assert not files and not rows
    assert not differing(timeless(end)["state_dict"], timeless(again)["state_dict"])


def test_the_random_state_before_fit_does_not_matter(tmp_path: Path) -> None:
    setting = SETTINGS["epoch means, shuffling, dropout"]
    _, _, files = run(setting, tmp_path / "whole")
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.rand(seed)
        ends.append(timeless(run(setting, tmp_path / str(seed), files[7])[0]))
    assert not differing(*ends)


def test_a_run_killed_between_its_checkpoint_and_its_row_has_the_row_written_after_all() -> None:
    class Net(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("batch", float(batch_idx))
            return super().training_step(batch, batch_idx)

    class Killed(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                trainer.save_checkpoint("killed.ckpt")
                raise RuntimeError("killed")

    def fit(*callbacks: pl.Callback, ckpt_path: str | None = None) -> list[str]:
        flags = {"max_steps": 4, "limit_val_batches": 0, "log_every_n_steps": 1, "enable_checkpointing": False}
        trainer = pl.Trainer(
            accelerator="cpu", logger=pl.loggers.CSVLogger(".", "", ""), callbacks=list(callbacks),
            enable_progress_bar=False, enable_model_summary=False, **flags,
        )  # fmt: skip
        trainer.fit(Net(), ckpt_path=ckpt_path)
        return Path("metrics.csv").read_text().splitlines()

    with pytest.raises(RuntimeError, match="killed"):
        fit(Killed())
    assert len(Path("metrics.csv").read_text().splitlines()) == 1 + 2
    assert [row.split(",")[0] for row in fit(ckpt_path="killed.ckpt")] == ["batch", "0.0", "1.0", "2.0", "3.0"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: (DATA[i : i + 3] for i in range(0, 30, 3)), "are an iterator, which can be walked over once"),
        (lambda: DataLoader(DrawingStream(), 3), r"draw random numbers \(torch\) while they are walked over"),
        (lambda: DataLoader(DrawsByItself(), 3, num_workers=1, persistent_workers=True), "DrawsByItself keeps a state"),
        (shuffled, None),
        (Stateful, None),
        (lambda: DataLoader(Augmented(), 3, shuffle=True), None),
    ],
)
def test_what_cannot_be_exact_is_said_once_when_the_file_is_saved(data: Any, says: str | None, tmp_path: Path) -> None:
    setting = Setting({"max_epochs": 1, "limit_val_batches": 0}, loader=data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warned.clear()
        run(setting, tmp_path / "run")
    lines = [str(w.message) for w in caught if "resumed run" in str(w.message) or "a run resumed" in str(w.message)]
    assert len(lines) == (says is not None) and (says is None or re.search(says, lines[0]))
