"""Where batches come from: collections of loaders, the module's own, data modules, streams."""

from __future__ import annotations

from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from parity import models as M
from parity.compare import settings
from parity.harness import DATA_HOOKS, Case, Stream, recorded


class SizedStream(Stream):
    """An iterable dataset that knows its length."""

    def __len__(self) -> int:
        return len(self.rows)


class Once:
    """Any object with `__iter__`, no DataLoader."""

    def __init__(self, batches: list[Any], sized: bool = False) -> None:
        self.batches = batches
        if sized:
            self.__class__ = type("SizedOnce", (Once,), {"__len__": lambda self: len(self.batches)})

    def __iter__(self) -> Any:
        return iter(self.batches)


class Rows(Dataset[Any]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return M.rows(self.n)[i]


class Drawing(Dataset[Any]):
    """Items that draw random numbers, as augmentation does."""

    def __len__(self) -> int:
        return 14

    def __getitem__(self, i: int) -> Any:
        return M.rows(14)[i] + M.torch.rand(8)


def train_on(*make: Any, val: Any = None) -> Any:
    return lambda case, pl: (make[0](pl), val or DataLoader(M.rows(11, 2), 5))


def eval_on(make: Any) -> Any:
    return lambda case, pl: (DataLoader(M.rows(14), 3, shuffle=True), make(pl))


def short(n: int, seed: int = 3) -> DataLoader[Any]:
    return DataLoader(M.rows(n, seed), 3, shuffle=True)


def combined(mode: str) -> Any:
    def make(pl: Any) -> Any:
        return pl.utilities.combined_loader.CombinedLoader({"a": short(8), "b": short(14, 4)}, mode)

    return make


def data_module(pl: Any, hooks: tuple[str, ...] = ()) -> type:
    class Data(pl.LightningDataModule):  # type: ignore[misc]
        def setup(self, stage: str) -> None:
            self.data = M.rows(20)

        def train_dataloader(self) -> Any:
            return DataLoader(self.data, 3, shuffle=True)

        def val_dataloader(self) -> Any:
            return DataLoader(self.data[:7], 2)

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch * 2

    return Data


def fit_data_module(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    base = data_module(pl)
    hooks = (
        {n: recorded("dm", base, n, lambda d, *a: (d.trainer, module), 1) for n in DATA_HOOKS}
        if module.tape.watch
        else {}
    )
    data = type("Data", (base,), hooks)()
    data.tape = module.tape
    trainer.fit(module, datamodule=data)


def fit_as_first_argument(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    trainer.fit(module, data_module(pl)())


def fit_from_datasets(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    trainer.fit(module, datamodule=pl.LightningDataModule.from_datasets(Rows(14), Rows(7), batch_size=4))


def own_loaders(trainer: Any, module: Any, case: Case, pl: Any) -> None:
    trainer.fit(module)


TWO_VAL = {"model": "TwoVal"}

CASES = {
    "train dict": Case(model="DictBatches", loaders=train_on(lambda pl: {"a": short(8), "b": short(14, 4)})),
    "train list": Case(model="DictBatches", loaders=train_on(lambda pl: [short(8), short(14, 4)])),
    "train nested": Case(
        model="DictBatches",
        loaders=train_on(lambda pl: {"a": short(8), "b": short(5)}),
        flags={"limit_train_batches": 2},
    ),
    "train min_size": Case(model="DictBatches", loaders=train_on(combined("min_size"))),
    "train max_size": Case(model="DictBatches", loaders=train_on(combined("max_size"))),
    "train max_size_cycle": Case(
        model="DictBatches", loaders=train_on(combined("max_size_cycle")), flags={"val_check_interval": 0.5}
    ),
    "train list, val each 2, accumulate 2": Case(
        model="DictBatches",
        loaders=train_on(lambda pl: [short(8), short(18, 4)]),
        flags={"val_check_interval": 2, "accumulate_grad_batches": 2},
    ),
    "two validation loaders": Case(
        **TWO_VAL, val=2, flags={"num_sanity_val_steps": 0, "val_check_interval": 3, "limit_val_batches": 2}
    ),
    "two validation loaders of different length": Case(
        **TWO_VAL, flags={"num_sanity_val_steps": 0}, loaders=eval_on(lambda pl: [short(8), short(14, 4)])
    ),
    "validation loaders in a dict": Case(
        **TWO_VAL, flags={"num_sanity_val_steps": 0}, loaders=eval_on(lambda pl: {"a": short(8), "b": short(14, 4)})
    ),
    "one validation loader in a list": Case(loaders=eval_on(lambda pl: [short(8)])),
    "validation on a stream": Case(loaders=eval_on(lambda pl: DataLoader(Stream(M.rows(8)), 3))),
    "validation on a stream, limit 2": Case(
        loaders=eval_on(lambda pl: DataLoader(Stream(M.rows(8)), 3)), flags={"limit_val_batches": 2}
    ),
    "eval loader that shuffles": Case(loaders=eval_on(lambda pl: short(14))),
    "a stream with a length": Case(loaders=train_on(lambda pl: DataLoader(SizedStream(M.rows(14)), 3))),
    "a stream with a length, val each half": Case(
        loaders=train_on(lambda pl: DataLoader(SizedStream(M.rows(12)), 3)), flags={"val_check_interval": 0.5}
    ),
    "an object with __iter__": Case(loaders=train_on(lambda pl: Once([M.rows(3), M.rows(2, 4), M.rows(3, 5)]))),
    "an object with __iter__ and __len__": Case(
        loaders=train_on(lambda pl: Once([M.rows(3), M.rows(2, 4), M.rows(3, 5)], sized=True))
    ),
    "items that draw": Case(
        loaders=train_on(lambda pl: DataLoader(Drawing(), 3, shuffle=True)), flags={"val_check_interval": 2}
    ),
    "own batch sampler": Case(
        loaders=train_on(
            lambda pl: DataLoader(M.rows(14), batch_sampler=BatchSampler(SequentialSampler(range(14)), 4, True))
        )
    ),
    "no automatic batching": Case(loaders=train_on(lambda pl: DataLoader(M.rows(12).view(4, 3, 8), batch_size=None))),
    "own generator": Case(
        loaders=train_on(
            lambda pl: DataLoader(M.rows(14), 3, shuffle=True, generator=M.torch.Generator().manual_seed(9))
        )
    ),
    "drop_last": Case(loaders=train_on(lambda pl: DataLoader(M.rows(14), 4, shuffle=True, drop_last=True))),
    "two workers": Case(
        loaders=train_on(lambda pl: DataLoader(M.rows(14), 4, shuffle=True, num_workers=2)), flags={"max_epochs": 2}
    ),
    "the module's own loaders": Case(model="OwnLoaders", act=own_loaders),
    # Lightning opens a reloaded loader twice, and so draws one number more.
    "the module's own loaders, reloaded each epoch": Case(
        model="OwnLoadersInOrder", act=own_loaders, flags={"reload_dataloaders_every_n_epochs": 1}, ignore=("rng",)
    ),
    "the module's own loaders, reloaded every 2 epochs": Case(
        model="OwnLoadersInOrder",
        act=own_loaders,
        flags={"reload_dataloaders_every_n_epochs": 2, "max_epochs": 5},
        ignore=("rng",),
    ),
    # It also asks for the validation loader again after the sanity check, where none of the two epochs is over.
    "the module's own loaders, reloaded, val every 2 epochs": Case(
        model="OwnLoadersInOrder",
        act=own_loaders,
        flags={"reload_dataloaders_every_n_epochs": 2, "check_val_every_n_epoch": 2, "max_epochs": 5},
        ignore=("rng", "record"),
    ),
    "data module": Case(act=fit_data_module),
    "data module as first argument": Case(act=fit_as_first_argument),
    "data module from datasets": Case(act=fit_from_datasets),
    "transfer hooks that change the batch": Case(
        do={
            "m.on_before_batch_transfer": lambda t, m, batch, i: batch + 1,
            "m.on_after_batch_transfer": lambda t, m, batch, i: batch * 2,
        }
    ),
    "overfit, shuffled, own val": Case(flags={"overfit_batches": 3}, loaders=eval_on(lambda pl: short(14))),
    "overfit, a stream": Case(iterable=True, flags={"overfit_batches": 3}),
    "limit_train_batches on a stream": Case(
        iterable=True, flags={"limit_train_batches": 3, "accumulate_grad_batches": 3}
    ),
}

test_data = settings(CASES)
