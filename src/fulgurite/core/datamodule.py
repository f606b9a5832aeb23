"""The data module: where data comes from, apart from the model that learns from it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fulgurite.compat.inherited import OldDataModule
from fulgurite.core.hparams import HyperparametersMixin
from fulgurite.core.saving import MapLocation, PathOrFile, load_from_checkpoint
from fulgurite.hooks import Watched
from fulgurite.utilities.data import sized_len
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.model_helpers import classmethod_only, is_overridden
from fulgurite.utilities.tree import move_data_to_device

if TYPE_CHECKING:
    from typing_extensions import Self

    from fulgurite.trainer import Trainer


class LightningDataModule(Watched, OldDataModule, HyperparametersMixin):
    """Say how data is fetched, split and loaded; pass it as `trainer.fit(model, datamodule=...)`.

    Example::

        class Numbers(LightningDataModule):
            def setup(self, stage):
                self.train, self.val = random_split(TensorDataset(torch.randn(100, 4)), [80, 20])

            def train_dataloader(self):
                return DataLoader(self.train, batch_size=8, shuffle=True)

            def val_dataloader(self):
                return DataLoader(self.val, batch_size=8)
    """

    name: str | None = None
    CHECKPOINT_HYPER_PARAMS_KEY = "datamodule_hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "datamodule_hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "datamodule_hparams_type"

    trainer: Trainer | None = None
    prepare_data_per_node: bool = True
    allow_zero_length_dataloader_with_multiple_devices: bool = False

    def prepare_data(self) -> None:
        """Download and the like: called in one process only, so set nothing on `self` here."""

    def setup(self, stage: str) -> None:
        """Make data sets and splits, in every process, before "fit", "validate", "test" or "predict"."""

    def teardown(self, stage: str) -> None:
        """Clean up after "fit", "validate", "test" or "predict"."""

    def train_dataloader(self) -> Any:
        """A DataLoader, any iterable of batches, or nested lists and dictionaries of these."""
        raise _not_defined(self, "train_dataloader")

    def val_dataloader(self) -> Any:
        """One or several loaders to validate on."""
        raise _not_defined(self, "val_dataloader")

    def test_dataloader(self) -> Any:
        """One or several loaders to test on."""
        raise _not_defined(self, "test_dataloader")

    def predict_dataloader(self) -> Any:
        """One or several loaders to predict on."""
        raise _not_defined(self, "predict_dataloader")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch before it goes to the device."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; override for types that have no `to`."""
        return move_data_to_device(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch on the device."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint shall hold of the data module."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def on_exception(self, exception: BaseException) -> None:
        """When the run ends with an exception."""

    @classmethod
    def from_datasets(
        cls,
        train_dataset: Dataset[Any] | Iterable[Dataset[Any]] | None = None,
        val_dataset: Dataset[Any] | Iterable[Dataset[Any]] | None = None,
        test_dataset: Dataset[Any] | Iterable[Dataset[Any]] | None = None,
        predict_dataset: Dataset[Any] | Iterable[Dataset[Any]] | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **datamodule_kwargs: Any,
    ) -> LightningDataModule:
        """A data module with a loader for each data set given (or a list or dictionary of loaders); training shuffles.

        `batch_size` and `num_workers` reach `__init__` too, where it takes them.
        """

        takes = inspect.signature(cls.__init__).parameters
        takes_any = cls.__init__ is not object.__init__ and any(p.kind is p.VAR_KEYWORD for p in takes.values())
        offered = {"batch_size": batch_size, "num_workers": num_workers}
        extra = {name: value for name, value in offered.items() if name in takes or takes_any}
        datamodule = cls(**datamodule_kwargs, **extra)
        given = {"train": train_dataset, "val": val_dataset, "test": test_dataset, "predict": predict_dataset}
        for stage, datasets in given.items():
            if datasets is not None:  # a partial, not a closure: the data module can go to another process
                loaders = functools.partial(_loaders, datasets, stage == "train", batch_size, num_workers)
                setattr(datamodule, f"{stage}_dataloader", loaders)
        return datamodule

    @classmethod_only
    def load_from_checkpoint(
        cls,
        checkpoint_path: PathOrFile,
        map_location: MapLocation = None,
        hparams_file: str | Path | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the data module from the hyper-parameters and the state in a checkpoint.

        Args:
            checkpoint_path: the file.
            map_location: where tensors go, as in `torch.load`.
            hparams_file: a YAML file to take the hyper-parameters from instead.
            weights_only: False also reads objects of any class, which runs whatever code the file holds.
            kwargs: arguments of `__init__` that were not saved, or that shall differ.
        """
        return load_from_checkpoint(
            cls, checkpoint_path, map_location, hparams_file, weights_only=weights_only, **kwargs
        )

    def __str__(self) -> str:
        lines = []
        for label, stage in (("Train", "train"), ("Validation", "val"), ("Test", "test"), ("Predict", "predict")):
            hook = f"{stage}_dataloader"
            sizes = _sizes(self, hook) if is_overridden(hook, self, LightningDataModule) else None
            lines.append(f"{{{label} dataloader: {sizes}}}")
        return "\n".join(lines)


def _loaders(datasets: Any, shuffle: bool, batch_size: int, num_workers: int) -> Any:
    if isinstance(datasets, Mapping):
        return {key: _loaders(dataset, shuffle, batch_size, num_workers) for key, dataset in datasets.items()}
    if isinstance(datasets, (list, tuple)):
        return [_loaders(dataset, shuffle, batch_size, num_workers) for dataset in datasets]
    return DataLoader(
        datasets,
        batch_size=batch_size,
        shuffle=shuffle and not isinstance(datasets, IterableDataset),
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )


def _sizes(datamodule: LightningDataModule, hook: str) -> str:
    try:
        loaders = getattr(datamodule, hook)()
    except Exception:  # printing must not fail because setup has not run yet
        return "not available yet"
    if isinstance(loaders, Mapping):
        return " ; ".join(f"{key}. {_size(loader)}" for key, loader in loaders.items())
    if isinstance(loaders, (list, tuple)):
        return " ; ".join(f"{i}. {_size(loader)}" for i, loader in enumerate(loaders))
    return _size(loaders)


def _size(loader: Any) -> str:
    batches = sized_len(loader)
    return "size=unknown" if batches is None else f"size={batches}"


def _not_defined(datamodule: LightningDataModule, hook: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"`{hook}` must be implemented to be used with the Trainer: {type(datamodule).__name__} does not define it."
    )
