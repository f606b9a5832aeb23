"""`auto_lr_find` and `trainer.tune` of the 1.x era, by means of the tuner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.tuner.attributes import learning_rate
from fulgurite.tuner.tuning import Tuner
from fulgurite.utilities.rank_zero import rank_zero_deprecation

if TYPE_CHECKING:
    from fulgurite.core.datamodule import LightningDataModule
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


def tune(
    trainer: Trainer,
    model: LightningModule,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    lr_find_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Find the learning rate, print the old and the new one; the following fit does not look again."""
    wanted, trainer._auto_lr_find = trainer._auto_lr_find, False
    if not wanted:  # else the argument auto_lr_find has said so
        rank_zero_deprecation("trainer.tune is of the 1.x era. Write Tuner(trainer).lr_find(model).")
    options = {"attr_name": wanted if isinstance(wanted, str) else "", **(lr_find_kwargs or {})}
    held = learning_rate(options["attr_name"], model, datamodule)
    before = held.value
    finder = Tuner(trainer).lr_find(model, train_dataloaders, val_dataloaders, datamodule=datamodule, **options)
    if finder is None:
        return {}
    trainer.print(f"auto_lr_find: {held.name} was {before:g}, now {held.value:g}")
    return {"lr_find": finder}
