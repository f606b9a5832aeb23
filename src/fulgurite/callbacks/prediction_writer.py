"""The base class of callbacks that write predictions to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from torch.utils.data import DataLoader

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.combined_loader import CombinedLoader
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class WriteInterval(str, Enum):
    """When predictions are written."""

    BATCH = "batch"
    EPOCH = "epoch"
    BATCH_AND_EPOCH = "batch_and_epoch"

    @property
    def on_batch(self) -> bool:
        """Whether after each batch."""
        return self != WriteInterval.EPOCH

    @property
    def on_epoch(self) -> bool:
        """Whether at the end, all at once."""
        return self != WriteInterval.BATCH


class BasePredictionWriter(Callback):
    """Override `write_on_batch_end` or `write_on_epoch_end`; `write_interval` says which of them is called.

    Example::

        class Writer(BasePredictionWriter):
            def write_on_batch_end(
                self, trainer, pl_module, prediction, batch_indices, batch, batch_idx, dataloader_idx
            ):
                torch.save(prediction, f"predictions/{dataloader_idx}-{batch_idx}.pt")

        Trainer(callbacks=[Writer("batch")]).predict(model, loader, return_predictions=False)
    """

    def __init__(self, write_interval: Literal["batch", "epoch", "batch_and_epoch"] = "batch") -> None:
        super().__init__()
        known = [interval.value for interval in WriteInterval]
        if write_interval not in known:
            raise MisconfigurationException(f"write_interval={write_interval!r} must be one of {', '.join(known)}.")
        self.interval = WriteInterval(write_interval)
        self._recorded: list[_Recorded | None] = []  # a loader's sampler, where it has one
        self._predictions: list[list[Any]] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch; `batch_indices` are the positions of its items in the data set, empty if unknown."""
        raise NotImplementedError

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write all batches, a list of them for each loader where there are several."""
        raise NotImplementedError

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        given = trainer.predict_dataloaders
        loaders = (given if isinstance(given, CombinedLoader) else CombinedLoader(given, "sequential")).flattened
        self._recorded = [_record(loader) for loader in loaders]
        self._predictions = [[] for _ in loaders]

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.interval.on_epoch:
            self._predictions[dataloader_idx].append(outputs)
        if self.interval.on_batch:
            recorded = self._recorded[dataloader_idx]
            indices = [] if recorded is None else recorded.given[batch_idx]
            self.write_on_batch_end(trainer, pl_module, outputs, indices, batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.interval.on_epoch:
            several = len(self._predictions) > 1
            predictions = self._predictions if several else self._predictions[0]
            indices = self._indices([len(loader) for loader in self._predictions])
            self.write_on_epoch_end(trainer, pl_module, predictions, indices)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def _release(self) -> None:
        for recorded in self._recorded:
            if recorded is not None:
                recorded.remove()
        self._recorded, self._predictions = [], []

    def _indices(self, seen: list[int]) -> list[list[list[int]]]:
        """The positions of the items of so many batches of each loader; none where a loader has no sampler."""
        pairs = zip(self._recorded, seen, strict=False)
        return [[] if recorded is None else recorded.given[:count] for recorded, count in pairs]


class _Recorded:
    """Stands in a loader's place of the batch sampler and remembers which indices it gave; workers run ahead."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader: DataLoader[Any] = loader
        self.sampler: Any = loader.batch_sampler
        self.given: list[list[int]] = []
        # DataLoader forbids to exchange it, for good reason in general
        object.__setattr__(loader, "batch_sampler", self)

    def __iter__(self) -> Iterator[list[int]]:
        self.given = []
        for indices in self.sampler:
            self.given.append(list(indices))
            yield indices

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["sampler"], name)

    def remove(self) -> None:
        object.__setattr__(self.loader, "batch_sampler", self.sampler)


def _record(loader: Any) -> _Recorded | None:
    has_indices = isinstance(loader, DataLoader) and loader.batch_sampler is not None
    return _Recorded(loader) if has_indices else None
