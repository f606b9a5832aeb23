"""The models that read sequences, behind the interface of all models."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import fulgurite as pl
from dkt.data.batches import Batch, sequence_loader
from dkt.data.table import Answers
from dkt.data.windows import Windows
from dkt.evaluate import Floats
from dkt.inference import CELLS_TO_SCORE, predict_rows
from dkt.live import Live, Recurrent
from dkt.models.base import Model
from dkt.models.dkt import DKTNet
from dkt.task import DktTask


class SequenceModel(Model):
    """A net trained on whole sequences; the weights of the epoch with the best validation AUC are kept.

    `rasch` gives each question a scalar of its own (the R of DKT-R and AKT-R), by default the Rasch model's estimate
    from the students of other folds, `scalar="learned"` trains it with the net; `features` adds the causal features;
    further keywords are the net's own.
    """

    learned = ("task", "history")
    net: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        rasch: bool = True,
        features: bool = False,
        epochs: int = 8,
        lr: float | None = None,
        cells: int = 3200,
        patience: int = 3,
        progress: bool = False,
        windows: str | None = None,
        protocol: str = "akt",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(protocol, seed)
        if windows and features:
            raise ValueError(
                f"windows={windows!r} overlap, and causal features are one a row; take features=False or no windows."
            )
        self.windows = None if windows is None else str(Windows.of(windows))
        self.rasch = rasch
        self.features = features
        self.epochs = epochs
        self.cells = cells
        self.patience = patience
        self.progress = progress
        self.lr = lr
        self.settings = settings

    @property
    def title(self) -> str:  # type: ignore[override]  # a plain attribute in other models
        return type(self).__name__ + "-R" * self.rasch + " + features" * self.features

    def _fit(self, train: Answers, valid: Answers) -> None:
        self.task = self.new_task(train)
        best = KeepBest(self.patience)
        trainer = pl.Trainer(
            max_epochs=self.epochs,
            accelerator="auto",
            devices=1,
            callbacks=[best],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=self.progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(self.task, *self.loaders(self.task, train, valid))
        self.history = best.history
        if best.weights is not None:
            self.task.load_state_dict(best.weights)

    def new_task(self, train: Answers) -> DktTask:
        """What is to be trained, its first weights drawn from the seed."""
        pl.seed_everything(self.seed, verbose=False)
        return DktTask.for_training(
            train, self.rasch, net=self.net, features=self.features, protocol=self.protocol, **self._settings()
        )

    def loaders(self, task: DktTask, train: Answers, valid: Answers) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        """(to learn from, to choose the epoch by)"""
        cut = None if self.windows is None else Windows.of(self.windows).cut(train.offsets)
        return (
            sequence_loader(task.training_sequences(train, cut), self.cells, shuffle=True),
            sequence_loader(task.sequences(valid), CELLS_TO_SCORE),
        )

    def predict(self, answers: Answers) -> Floats:
        return predict_rows(self.task, answers)

    def _settings(self) -> dict[str, Any]:
        chosen = {} if self.lr is None else {"lr": self.lr}
        return {"scalar": "out-of-fold", **self.defaults, **self.settings, **chosen}

    def start(self) -> Live:
        if isinstance(self.task.model, DKTNet):
            return Recurrent(self.task.model, self.task.vocabulary, self.task.features)
        return super().start()

    def state(self) -> dict[str, Any]:
        checkpoint: dict[str, Any] = {"state_dict": self.task.state_dict(), "hyper_parameters": dict(self.task.hparams)}
        self.task.on_save_checkpoint(checkpoint)
        return checkpoint

    def restore(self, state: dict[str, Any]) -> None:
        self.task = DktTask(**state["hyper_parameters"])
        self.task.on_load_checkpoint(state)
        self.task.load_state_dict(state["state_dict"])

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.task.parameters())


class KeepBest(pl.Callback):
    """Holds a copy of the best weights in memory and stops `patience` epochs after them."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.history: list[float] = []
        self.weights: dict[str, Tensor] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.history.append(float(trainer.callback_metrics.get("valid_auc", torch.tensor(0.0))))
        best = max(range(len(self.history)), key=self.history.__getitem__)
        if best == len(self.history) - 1:
            self.weights = copy.deepcopy(pl_module.state_dict())
        trainer.should_stop |= len(self.history) - 1 - best >= self.patience


class DKT(SequenceModel):
    """Piech et al., 2015; by default with one scalar per question (DKT-R)."""

    net = "dkt"


class DKTPlus(SequenceModel):
    """Yeung and Yeung, 2018."""

    net = "dkt+"


class DKVMN(SequenceModel):
    """Zhang et al., 2017."""

    net = "dkvmn"
    defaults = {"lr": 3e-3}


class SAKT(SequenceModel):
    """Pandey and Karypis, 2019."""

    net = "sakt"
    defaults = {"lr": 2e-3}


class SAINTPlus(SequenceModel):
    """Shin et al., 2021."""

    net = "saint+"
    defaults = {"lr": 2e-3}


class AKT(SequenceModel):
    """Ghosh et al., 2020; by default with one scalar per question (AKT-R)."""

    net = "akt"
    defaults = {"lr": 2e-3}


class SimpleKT(SequenceModel):
    """Liu et al., 2023."""

    net = "simplekt"
    defaults = {"lr": 2e-3}


class LastQuery(SequenceModel):
    """Jeon, 2021."""

    net = "lastquery"
    defaults = {"lr": 3e-3}
