"""The task that all models of sequences share: predict each answer from the rows before it, score whole epochs."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import fulgurite as pl
from dkt.data.batches import Batch, Sequences
from dkt.data.protocols import protocol_named
from dkt.data.table import Answers, Ints
from dkt.data.vocabulary import Vocabulary
from dkt.evaluate import score
from dkt.features import NetFeatures
from dkt.models.nets import NETS
from fulgurite.utilities.types import OptimizerLRScheduler

EASE = "question_ease.weight"
SCALARS = ("learned", "out-of-fold")
EASE_STEP = 4.0  # a question is met in few batches, so its scalar takes longer steps: valid AUC 0.826 -> 0.831


class DktTask(pl.LightningModule):
    """Training and scoring of a net; a checkpoint of it holds the ids it knows, so that it can predict on any file.

    `settings` are the net's own. `loss_of_ease` pulls each question's difficulty towards its skill's, so that a
    question seen once is not trusted. With `features` the net also reads the causal features of each row. `scalar` says
    where each question's number comes from: "learned" with the net, or "out-of-fold", from other students' answers.
    """

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        net: str = "dkt",
        lr: float = 6e-3,
        loss_of_ease: float = 0.01,
        features: bool = False,
        scalar: str = "learned",
        protocol: str = "akt",
        **settings: Any,
    ) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f"net={net!r} is unknown; choose one of {', '.join(NETS)}.")
        self.save_hyperparameters()
        self.lr = lr
        self.loss_of_ease = loss_of_ease
        self.protocol = protocol
        if scalar not in SCALARS:
            raise ValueError(f"scalar={scalar!r} is unknown; choose one of {', '.join(SCALARS)}.")
        given = scalar == "out-of-fold" and n_questions > 0
        timed = getattr(NETS[net], "reads_time", False)
        names = NetFeatures.ALL if features else (*[NetFeatures.TIME] * timed, *[NetFeatures.SCALAR] * given)
        self.features = NetFeatures(names) if names else None
        self.model = NETS[net](
            n_skills,
            n_questions,
            n_features=len(names),
            scalar_column=names.index(NetFeatures.SCALAR) if given else None,
            **({"time_column": names.index(NetFeatures.TIME)} if timed else {}),
            **settings,
        )
        self.penalised = hasattr(self.model, "penalty")
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

    def training_sequences(self, train: Answers, cut: tuple[Ints, Ints] | None = None) -> Sequences:
        """The sequences to learn from (the protocol's, or `cut`): their features know nothing of their own students."""
        cut = protocol_named(self.protocol).sequences(train) if cut is None else cut
        features = None if self.features is None else self.features.fit_transform(train, *cut)
        if self.features is not None and hasattr(self.model, "time_scale"):
            cast(Tensor, self.model.time_scale).copy_(torch.tensor(self.features.scale_of(NetFeatures.TIME)))
        return Sequences(train, self.vocabulary, *cut, features)

    def sequences(self, answers: Answers, cut: tuple[Ints, Ints] | None = None) -> Sequences:
        """The sequences of this task's protocol (or of `cut`), with this task's numbers for skills and questions."""
        starts, lengths = protocol_named(self.protocol).sequences(answers) if cut is None else cut
        features = None if self.features is None else self.features.transform(answers, starts, lengths)
        return Sequences(answers, self.vocabulary, starts, lengths, features)

    def forward(self, batch: Batch) -> Tensor:
        return cast(Tensor, self.model(batch["skill"], batch["answer"], batch["question"], batch["features"]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = masked_loss(self(batch), batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=batch["n"])
        if self.penalised:
            loss = loss + self.model.penalty(  # type: ignore[operator]  # a net's own method
                batch["skill"], batch["answer"], batch["question"], batch["features"], batch["mask"]
            )
        for name, table in self.model.named_parameters():
            if name.endswith(EASE):
                ease = nn.functional.embedding(batch["question"], table).squeeze(-1)
                loss = loss + self.loss_of_ease * (ease.square() * batch["mask"]).sum() / batch["n"]
        return loss

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
        ease = [p for name, p in self.named_parameters() if name.endswith(EASE)]
        others = [p for name, p in self.named_parameters() if not name.endswith(EASE)]
        groups: list[dict[str, Any]] = [{"params": others}, *({"params": [p], "lr": EASE_STEP * self.lr} for p in ease)]
        optimizer = torch.optim.Adam(groups, lr=self.lr, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.02 * self.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vocabulary"] = {"skills": self.vocabulary.skills, "questions": self.vocabulary.questions}
        if self.features is not None:
            checkpoint["features"] = self.features.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(**checkpoint["vocabulary"])
        if self.features is not None:
            self.features.load(checkpoint["features"])


def masked_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean over the real rows: what fills short sequences weighs nothing."""
    real, right = batch["mask"].to(logits.dtype), batch["answer"].to(logits.dtype)
    return binary_cross_entropy_with_logits(logits, right, weight=real, reduction="sum") / batch["n"]
