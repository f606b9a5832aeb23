"""`auto_lr_find`, `auto_scale_batch_size` and `trainer.tune` of the 1.x era, by means of the tuner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.core.datamodule import LightningDataModule
from fulgurite.tuner.attributes import batch_size, learning_rate
from fulgurite.tuner.tuning import Tuner
from fulgurite.utilities.rank_zero import rank_zero_deprecation

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


def tune(
    trainer: Trainer,
    model: LightningModule,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    scale_batch_size_kwargs: dict[str, Any] | None = None,
    lr_find_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Find what the trainer's arguments ask for, a learning rate where they say nothing; print old and new.

    The following fit does not look again.
    """
    rate, trainer._auto_lr_find = trainer._auto_lr_find, False
    mode, trainer._auto_scale_batch_size = trainer._auto_scale_batch_size, None
    if not (rate or mode):  # else those arguments have said so
        rank_zero_deprecation("trainer.tune is of the 1.x era. Write Tuner(trainer).lr_find(model).")
    if isinstance(train_dataloaders, LightningDataModule):
        datamodule, train_dataloaders = train_dataloaders, None
    tuner = Tuner(trainer)
    found: dict[str, Any] = {}
    data = {"train_dataloaders": train_dataloaders, "val_dataloaders": val_dataloaders, "datamodule": datamodule}
    if mode:
        options = {"mode": mode, **(scale_batch_size_kwargs or {})}
        size = batch_size(options.get("batch_arg_name", "batch_size"), model, datamodule)
        before = size.value
        found["scale_batch_size"] = tuner.scale_batch_size(model, **data, **options)
        trainer.print(f"auto_scale_batch_size: {size.name} was {before}, now {size.value}")
    if rate or not mode:
        options = {"attr_name": rate if isinstance(rate, str) else "", **(lr_find_kwargs or {})}
        held = learning_rate(options["attr_name"], model, datamodule)
        before = held.value
        found["lr_find"] = tuner.lr_find(model, **data, **options)
        trainer.print(f"auto_lr_find: {held.name} was {before:g}, now {held.value:g}")
    return found
