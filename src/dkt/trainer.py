"""The course's `dkt.trainer`: `get_model`, `run`, `load_model`, `inference`, on our Trainer and without an account.

The course's train.py and inference.py call these, in either edition: that of 2021 lets `run` and `inference` make the
model. The files they leave are the course's: `models/best_model.pt` with "epoch" and "state_dict",
`outputs/submission.csv`. For loops of one's own there are `process_batch`, `compute_loss`, `train`, `validate`,
`update_params` and `save_checkpoint`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

import fulgurite as pl
from dkt.criterion import get_criterion
from dkt.data.table import DataError
from dkt.dataloader import Student, device_of, get_loaders, process_batch
from dkt.evaluate import accuracy, auc
from dkt.metric import get_metric
from dkt.models.course import MODELS, ModelBase
from dkt.models.sequence import KeepBest
from dkt.optimizer import get_optimizer
from dkt.scheduler import get_scheduler, linear_warmup
from fulgurite.loggers import CSVLogger
from fulgurite.utilities.types import OptimizerLRScheduler

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]


def get_model(args: argparse.Namespace) -> ModelBase:
    """The model that `args.model` names, for the ids that `Preprocess` has counted."""
    name = str(args.model).lower()
    if name not in MODELS:
        raise ValueError(f"--model {args.model} is unknown; choose one of {', '.join(MODELS)}.")
    return MODELS[name](args).to(device_of(args))


class CourseTask(pl.LightningModule):
    """Training of one of the course's models; scores are of the last position, which is the one to predict."""

    def __init__(self, model: nn.Module, args: argparse.Namespace) -> None:
        super().__init__()
        self.model = model
        self.args = args
        self.lr = args.lr
        self.learns_from_all = learns_from_all(model, getattr(args, "loss", "last"))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        preds = self.model(**batch)
        loss = compute_loss(preds, batch["correct"], batch["mask"] if self.learns_from_all else None)
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(preds))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append((self.model(**batch)[:, -1].sigmoid(), batch["correct"][:, -1]))

    def on_validation_epoch_end(self) -> None:
        probability, right = (torch.cat(column).float().cpu().numpy() for column in zip(*self.seen, strict=True))
        self.seen.clear()
        value = auc(right > 0, probability)
        if value is None:
            raise DataError("the last answers of the validation students are all the same, so they have no AUC.")
        self.log("valid_auc", value, prog_bar=True)
        self.log("valid_acc", accuracy(right > 0, probability), prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return cast(Tensor, self.model(**batch)[:, -1].sigmoid())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = get_optimizer(self, self.args, self.lr)
        if self.args.scheduler == "linear_warmup":
            steps = int(self.trainer.estimated_stepping_batches)
            by_step = linear_warmup(optimizer, steps, steps // 10)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}
        plateau = get_scheduler(optimizer, self.args)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "valid_auc"}}


def learns_from_all(model: nn.Module, loss: str) -> bool:
    """Whether all positions are learned from; refused where a position sees the answers after it."""
    causal = bool(getattr(model, "causal", False))
    if loss == "all" and not causal:
        raise ValueError(
            f"--loss all needs a causal model: {type(model).__name__} reads the answers behind a position too, so it "
            "would learn to copy them. Use --causal, --model lstm, or --loss last."
        )
    return causal and loss != "last"


def compute_loss(preds: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the positions of `mask`, or else, as in the course, over the last positions.

    `preds` are logits, [B, T] or, of the last positions alone, [B].
    """
    if preds.shape != targets.shape:
        raise ValueError(
            f"compute_loss was given predictions of shape {tuple(preds.shape)} and answers of {tuple(targets.shape)}; "
            "take the same positions of both."
        )
    if mask is None:
        loss = get_criterion(preds, targets)
        return (loss[:, -1] if loss.dim() > 1 else loss).mean()
    weight = mask.to(preds.dtype)
    total = binary_cross_entropy_with_logits(preds, targets.float(), weight=weight, reduction="sum")
    return total / weight.sum()


def train(
    train_loader: Iterable[Any], model: nn.Module, optimizer: Optimizer, scheduler: Any = None, args: Any = None
) -> tuple[float, float, float]:
    """One epoch by hand, as in the course: (AUC, accuracy, mean loss). In 2021 `args` came fourth."""
    scheduler, args = (None, scheduler) if args is None else (scheduler, args)
    model.train()
    seen, losses = [], []
    for step, batch in enumerate(train_loader):
        input = process_batch(batch, args)
        preds, targets = model(input), input[3]
        loss = compute_loss(preds, targets)
        update_params(loss, model, optimizer, scheduler, args)
        if step % args.log_steps == 0:
            logger.info("Training steps: %s Loss: %.4f", step, loss.item())
        seen.append((preds[:, -1].detach().sigmoid(), targets[:, -1]))
        losses.append(loss.detach())
    value, correct = _metric_of(seen)
    mean = float(torch.stack(losses).mean())
    logger.info("TRAIN AUC : %.4f ACC : %.4f", value, correct)
    return value, correct, mean


def validate(valid_loader: Iterable[Any], model: nn.Module, args: argparse.Namespace) -> tuple[float, float]:
    """(AUC, accuracy) of the last positions."""
    model.eval()
    seen = []
    with torch.no_grad():
        for batch in valid_loader:
            input = process_batch(batch, args)
            seen.append((model(input)[:, -1].sigmoid(), input[3][:, -1]))
    value, correct = _metric_of(seen)
    logger.info("VALID AUC : %.4f ACC : %.4f", value, correct)
    return value, correct


def _metric_of(seen: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    p, targets = (torch.cat(column).float().cpu().numpy() for column in zip(*seen, strict=True))
    return get_metric(targets, p)


def update_params(
    loss: Tensor, model: nn.Module, optimizer: Optimizer, scheduler: Any = None, args: Any = None
) -> None:
    """Backward, clipping to `args.clip_grad`, a step. In 2021 `args` came fourth."""
    scheduler, args = (None, scheduler) if args is None else (scheduler, args)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad)
    optimizer.step()
    if scheduler is not None and args.scheduler == "linear_warmup":
        scheduler.step()
    optimizer.zero_grad()


def save_checkpoint(state: dict[str, Any], model_dir: str | Path, model_filename: str) -> None:
    """Write {"epoch": ..., "state_dict": ...} where `load_model` reads it."""
    Path(model_dir).mkdir(parents=True, exist_ok=True)
    torch.save(state, Path(model_dir) / model_filename)


def run(
    args: argparse.Namespace,
    train_data: Sequence[Student],
    valid_data: Sequence[Student],
    model: nn.Module | None = None,
) -> pl.Trainer:
    """Train `model`, or one of `args`, keeping the weights of the best validation AUC in it and in `args.model_dir`."""
    model = get_model(args) if model is None else model
    train_loader, valid_loader = get_loaders(args, train_data, valid_data)
    task = CourseTask(model, args)
    best = SaveBest(args.patience, Path(args.model_dir) / args.model_name)
    trainer = _trainer(
        args,
        max_epochs=args.n_epochs,
        gradient_clip_val=args.clip_grad,
        callbacks=[best],
        logger=CSVLogger(args.output_dir, name="course"),
        enable_checkpointing=False,
        log_every_n_steps=args.log_steps,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, train_loader, valid_loader)
    if best.weights is None:
        raise ValueError(f"--n_epochs {args.n_epochs}: no epoch was trained, so there is no model to keep.")
    task.load_state_dict(best.weights)
    logger.info("best AUC %.4f, written to %s", max(best.history), best.path)
    return trainer


class SaveBest(KeepBest):
    """Writes the best weights as the course does, each time they get better."""

    def __init__(self, patience: int, path: Path) -> None:
        super().__init__(patience)
        self.path = path

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self.history[-1] > max(self.history[:-1], default=-1.0):
            weights = cast(nn.Module, pl_module.model).state_dict()
            save_checkpoint({"epoch": len(self.history), "state_dict": weights}, self.path.parent, self.path.name)


def load_model(args: argparse.Namespace) -> ModelBase:
    """The model of `args` with the weights that `run` has written."""
    path = Path(args.model_dir) / args.model_name
    kept = torch.load(path, map_location="cpu", weights_only=True)
    model = get_model(args)
    try:
        model.load_state_dict(kept["state_dict"])
    except RuntimeError as error:
        raise DataError(
            f"{path} was not written by --model {args.model} with --hidden_dim {args.hidden_dim}, --n_layers "
            f"{args.n_layers}, --max_seq_len {args.max_seq_len}; give the settings of the training: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    return model


def inference(args: argparse.Namespace, test_data: Sequence[Student], model: nn.Module | None = None) -> None:
    """Write the probability of each student's last answer to `outputs/submission.csv`; by default `load_model`'s."""
    model = load_model(args) if model is None else model
    _, loader = get_loaders(args, None, test_data)
    predictions = _trainer(args, logger=False).predict(CourseTask(model, args), loader)
    path = Path(args.output_dir) / "submission.csv"
    write_submission(path, torch.cat(cast(list[Tensor], predictions)).float().cpu().numpy())
    logger.info("Successfully saved submission as %s", path)


def write_submission(path: Path, probability: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """The course's bytes: students in ascending order of userID, counted from 0, each number in full precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["id,prediction", *(f"{i},{p}" for i, p in enumerate(probability))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _trainer(args: argparse.Namespace, **settings: Any) -> pl.Trainer:
    device = device_of(args)
    accelerator = "auto" if str(args.device) == "auto" else {"cuda": "gpu"}.get(device.type, device.type)
    devices = 1 if device.index is None else [device.index]
    return pl.Trainer(accelerator=accelerator, devices=devices, enable_model_summary=False, **settings)
