"""Where the numbers of a run go; each class is imported when first used."""

from __future__ import annotations

from fulgurite.utilities.imports import on_first_use

_HOME = {
    "CSVLogger": "csv_logs",
    "CometLogger": "comet",
    "Logger": "logger",
    "MLFlowLogger": "mlflow",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = on_first_use(globals(), _HOME)
