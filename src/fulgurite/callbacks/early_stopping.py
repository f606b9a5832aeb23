"""Stops training when a metric no longer gets better."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.monitoring import not_logged
from fulgurite.compat.inherited import old_callback_arguments
from fulgurite.states import TrainerFn
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import log, rank_prefixed_message, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class EarlyStoppingReason(IntEnum):
    """Why a run was stopped."""

    NOT_STOPPED = 0
    STOPPING_THRESHOLD = 1
    DIVERGENCE_THRESHOLD = 2
    PATIENCE_EXHAUSTED = 3
    NON_FINITE_METRIC = 4


class EarlyStopping(Callback):
    """Stop after `patience` checks without an improvement of more than `min_delta`.

    Example::

        Trainer(callbacks=[EarlyStopping("val_auc", mode="max", patience=5)])

    Checked at the end of the training epoch where each of them ends with a validation, after each validation otherwise.
    """

    _monitors = True
    mode_dict = {"min": torch.lt, "max": torch.gt}
    order_dict = {"min": "<", "max": ">"}

    @old_callback_arguments
    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        super().__init__()
        if mode not in self.mode_dict:
            raise MisconfigurationException(f"mode={mode!r} of EarlyStopping must be 'min' or 'max'.")
        self.monitor = monitor
        self.min_delta = min_delta if mode == "max" else -min_delta
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.log_rank_zero_only = log_rank_zero_only
        self._check_on_train_epoch_end = check_on_train_epoch_end
        self.wait_count = 0
        self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None
        self.best_score = torch.tensor(torch.inf if mode == "min" else -torch.inf)

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    @property
    def monitor_op(self) -> Callable[..., Tensor]:
        """Whether the first value is better than the second."""
        return self.mode_dict[self.mode]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._check_on_train_epoch_end is None:
            self._check_on_train_epoch_end = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._check_on_train_epoch_end and not self._should_skip_check(trainer):
            self._run_early_stopping_check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._check_on_train_epoch_end and not self._should_skip_check(trainer):
            self._run_early_stopping_check(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
            "stopping_reason": int(self.stopping_reason),
            "stopping_reason_message": self.stopping_reason_message,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait_count = state_dict["wait_count"]
        self.stopped_epoch = state_dict["stopped_epoch"]
        self.best_score = state_dict["best_score"]
        reason = EarlyStoppingReason(state_dict.get("stopping_reason", 0))
        if reason != EarlyStoppingReason.PATIENCE_EXHAUSTED or self.wait_count >= self.patience:
            self.stopping_reason, self.stopping_reason_message = reason, state_dict.get("stopping_reason_message")

    def _should_skip_check(self, trainer: Trainer) -> bool:
        return trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or bool(trainer.fast_dev_run)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        logged = trainer.callback_metrics
        if self.monitor not in logged:
            message = not_logged(f"EarlyStopping(monitor={self.monitor!r})", self.monitor, logged)
            if self.strict:
                raise RuntimeError(message)
            rank_zero_warn(message, category=RuntimeWarning)
            return
        # a value of a single step differs from process to process, and ranks that disagree would wait for each other
        current = torch.as_tensor(trainer.strategy.broadcast(logged[self.monitor])).squeeze()
        should_stop, reason = self._evaluate_stopping_criteria(current)
        trainer._vote_to_stop(self, should_stop)
        if should_stop:
            self.stopped_epoch = trainer.current_epoch
            self.stopping_reason_message = reason
        elif self.stopping_reason:  # min_epochs or min_steps kept the fit going, and the metric has recovered
            self.stopped_epoch, self.stopping_reason_message = 0, None
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        if reason and (should_stop or self.verbose):
            self._log_info(trainer, reason, self.log_rank_zero_only)

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        better, order = self.monitor_op, self.order_dict[self.mode]
        if self.check_finite and not torch.isfinite(current):
            return self._stop(
                EarlyStoppingReason.NON_FINITE_METRIC,
                f"Monitored metric {self.monitor} = {current} is not finite. "
                f"Previous best value was {self.best_score:.3f}. Signaling Trainer to stop.",
            )
        if self.stopping_threshold is not None and better(current, self.stopping_threshold):
            return self._stop(
                EarlyStoppingReason.STOPPING_THRESHOLD,
                f"Stopping threshold reached: {self.monitor} = {current} {order} {self.stopping_threshold}. "
                "Signaling Trainer to stop.",
            )
        if self.divergence_threshold is not None and better(-current, -self.divergence_threshold):
            return self._stop(
                EarlyStoppingReason.DIVERGENCE_THRESHOLD,
                f"Divergence threshold reached: {self.monitor} = {current} is worse than {self.divergence_threshold}. "
                "Signaling Trainer to stop.",
            )
        if better(current - self.min_delta, self.best_score.to(current.device)):
            message = self._improvement_message(current)
            self.best_score = current.detach().clone().cpu()
            self.wait_count = 0
            return False, message
        self.wait_count += 1
        if self.wait_count >= self.patience:
            return self._stop(
                EarlyStoppingReason.PATIENCE_EXHAUSTED,
                f"Monitored metric {self.monitor} did not improve in the last {self.wait_count} records. "
                f"Best score: {self.best_score:.3f}. Signaling Trainer to stop.",
            )
        return False, None

    def _stop(self, reason: EarlyStoppingReason, message: str) -> tuple[bool, str]:
        self.stopping_reason = reason
        return True, message

    def _improvement_message(self, current: Tensor) -> str:
        if torch.isfinite(self.best_score):
            gain = abs(float(self.best_score) - float(current))
            return (
                f"Metric {self.monitor} improved by {gain:.3f} >= min_delta = {abs(self.min_delta)}. "
                f"New best score: {current:.3f}"
            )
        return f"Metric {self.monitor} improved. New best score: {current:.3f}"

    @staticmethod
    def _log_info(trainer: Trainer, message: str, log_rank_zero_only: bool) -> None:
        rank = trainer.global_rank if trainer.world_size > 1 else None
        if rank is None or rank == 0 or not log_rank_zero_only:
            log.info(rank_prefixed_message(message, rank))
