"""The base class of callbacks that write predictions to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from torch.utils.data import DataLoader, IterableDataset

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.data import twin_of
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
        self._recorded, self._predictions = [], []

    def _recording(self, loaders: list[Any]) -> list[Any]:
        """What to iterate in the loaders' place, to know which items each batch has; no hook, for users override these.

        Twins, for the user's own stay as they are: one may stand there twice, or have workers that know its sampler.
        """
        self._recorded = [_Recorded(loader.batch_sampler) if _draws_batches(loader) else None for loader in loaders]
        self._predictions = [[] for _ in loaders]
        pairs = zip(loaders, self._recorded, strict=True)
        return [loader if recorded is None else twin_of(loader, batch_sampler=recorded) for loader, recorded in pairs]

    def _indices(self, seen: list[int]) -> list[list[list[int]]]:
        """The positions of the items of so many batches of each loader; none where a loader has no sampler."""
        pairs = zip(self._recorded, seen, strict=False)
        return [[] if recorded is None else recorded.given[:count] for recorded, count in pairs]


class _Recorded:
    """Stands in a loader's place of the batch sampler and remembers which indices it gave; workers run ahead."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.given: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        self.given = []
        for indices in self.sampler:
            self.given.append(list(indices))
            yield indices

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["sampler"], name)


def _draws_batches(loader: Any) -> bool:
    iterates = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    return iterates and loader.batch_sampler is not None
