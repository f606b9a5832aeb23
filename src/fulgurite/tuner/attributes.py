"""Where a tuned value lives: an attribute or hyper-parameter of the module or of its data module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.parsing import Setting

if TYPE_CHECKING:
    from fulgurite.core.datamodule import LightningDataModule
    from fulgurite.core.module import LightningModule


def learning_rate(name: str, module: LightningModule, datamodule: LightningDataModule | None) -> Setting:
    """The attribute that holds the learning rate: the one named, else `lr` or `learning_rate`."""
    for candidate in [name] if name else ["lr", "learning_rate"]:
        tuned = Setting(candidate, module, datamodule)
        if tuned.holders:
            return tuned
    wanted = repr(name) if name else "'lr' or 'learning_rate'"
    raise AttributeError(
        f"neither {type(module).__qualname__} nor its hparams has {wanted} to write the learning rate to. Set self.lr "
        "in __init__ and use it in configure_optimizers, pass attr_name=..., or pass update_attr=False."
    )


def batch_size(name: str, module: LightningModule, datamodule: LightningDataModule | None) -> Setting:
    """The attribute from which the loaders take their batch size."""
    tuned = Setting(name, module, datamodule)
    if not tuned.holders:
        owners = " nor ".join(type(owner).__qualname__ for owner in (module, datamodule) if owner is not None)
        raise MisconfigurationException(
            f"neither {owners} nor hparams has {name!r} to write the batch size to. Set self.{name} in __init__ and "
            f"use it where the DataLoader is made, or pass batch_arg_name=..."
        )
    return tuned
