"""What users derive from; each class is imported when first used."""

from __future__ import annotations

from fulgurite.utilities.imports import on_first_use

_HOME = {"LightningDataModule": "datamodule", "LightningModule": "module"}
__all__ = sorted(_HOME)
__getattr__, __dir__ = on_first_use(globals(), _HOME)
