"""fulgurite: the PyTorch trainer whose loop is one page.

`import fulgurite as pl` is the whole migration of a file that said `import lightning.pytorch as pl`.
"""

from __future__ import annotations

import importlib
from typing import Any

from fulgurite.__version__ import __version__
from fulgurite.callbacks.callback import Callback
from fulgurite.core.datamodule import LightningDataModule
from fulgurite.core.module import LightningModule
from fulgurite.trainer import Trainer
from fulgurite.utilities.seed import seed_everything

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "__version__",
    "seed_everything",
]

# reached as attributes, imported when first used
_SUBMODULES = (
    "accelerators",
    "callbacks",
    "cli",
    "core",
    "demos",
    "loggers",
    "plugins",
    "profilers",
    "strategies",
    "tuner",
    "utilities",
)


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        try:  # a module of ours, or one that Lightning had, which compat's table finds
            return importlib.import_module(f"fulgurite.{name}")
        except ImportError as error:
            if error.name != f"fulgurite.{name}":
                raise
            if not isinstance(error, ModuleNotFoundError):  # we lack it on purpose, and say so
                raise AttributeError(str(error)) from None
    raise AttributeError(f"module 'fulgurite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
