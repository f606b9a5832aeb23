"""The task that all models of sequences share: predict each answer from the rows before it, score whole epochs."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import fulgurite as pl
from dkt.data.batches import Batch, Sequences
from dkt.data.protocols import protocol_named
from dkt.data.table import Answers
from dkt.data.vocabulary import Vocabulary
from dkt.evaluate import score
from dkt.models.dkt import DKT
from fulgurite.utilities.types import OptimizerLRScheduler

EASE = "model.question_ease.weight"
EASE_STEP = 4.0  # a question is met in few batches, so its scalar takes longer steps: valid AUC 0.826 -> 0.831


class DktTask(pl.LightningModule):
    """Training and scoring of DKT; a checkpoint of it holds the ids it knows, so that it can predict on any file.

    `loss_of_ease` pulls each question's difficulty towards its skill's, so that a question seen once is not trusted.
    """

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        hidden: int = 64,
        dropout: float = 0.2,
        cell: str = "lstm",
        lr: float = 6e-3,
        loss_of_ease: float = 0.01,
        protocol: str = "akt",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.loss_of_ease = loss_of_ease
        self.protocol = protocol
        self.model = DKT(n_skills, n_questions, dim, hidden, dropout, cell)
        self.vocabulary = Vocabulary([], [])
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    @classmethod
    def for_training(cls, train: Answers, rasch: bool = True, **settings: Any) -> DktTask:
        """A task whose skills and questions are those of the training data; `rasch=False` leaves the questions out."""
        vocabulary = Vocabulary.of(train)
        if not rasch:
            vocabulary = Vocabulary(vocabulary.skills, [])
        task = cls(n_skills=len(vocabulary.skills), n_questions=len(vocabulary.questions), **settings)
        task.vocabulary = vocabulary
        return task

    def sequences(self, answers: Answers) -> Sequences:
        """The sequences of this task's protocol, with this task's numbers for skills and questions."""
        return Sequences(answers, self.vocabulary, *protocol_named(self.protocol).sequences(answers))

    def forward(self, batch: Batch) -> Tensor:
        return cast(Tensor, self.model(batch["skill"], batch["answer"], batch["question"]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = masked_loss(self(batch), batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=batch["n"])
        if self.model.question_ease is None:
            return loss
        ease: Tensor = self.model.question_ease(batch["question"]).squeeze(-1)
        return loss + self.loss_of_ease * (ease.square() * batch["mask"]).sum() / batch["n"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        real = batch["mask"]
        self._seen.append((batch["answer"][real], torch.sigmoid(self(batch)[real]), batch["leak_free"][real]))

    def on_validation_epoch_end(self) -> None:
        answer, probability, leak_free = (torch.cat(column).cpu().numpy() for column in zip(*self._seen, strict=True))
        self._seen.clear()
        figures = score(answer, probability.astype(np.float32), leak_free).as_dict()
        for name in ("auc", "auc_leakfree", "accuracy", "log_loss"):
            value = figures[name]
            if value is not None:
                self.log(f"valid_{name}", value, prog_bar=name.startswith("auc"))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        ease = [p for name, p in self.named_parameters() if name == EASE]
        others = [p for name, p in self.named_parameters() if name != EASE]
        groups: list[dict[str, Any]] = [{"params": others}, *({"params": [p], "lr": EASE_STEP * self.lr} for p in ease)]
        optimizer = torch.optim.Adam(groups, lr=self.lr, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.02 * self.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vocabulary"] = {"skills": self.vocabulary.skills, "questions": self.vocabulary.questions}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(**checkpoint["vocabulary"])


def masked_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean over the real rows: what fills short sequences weighs nothing."""
    real, right = batch["mask"].to(logits.dtype), batch["answer"].to(logits.dtype)
    return binary_cross_entropy_with_logits(logits, right, weight=real, reduction="sum") / batch["n"]
