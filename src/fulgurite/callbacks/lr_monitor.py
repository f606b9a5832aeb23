"""Logs learning rates, and with them momentum and weight decay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim import Optimizer

from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.monitoring import no_logger
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class LearningRateMonitor(Callback):
    """Log the learning rate of each optimizer, at each due step and each epoch or at one of the two.

    Example::

        Trainer(callbacks=[LearningRateMonitor("step")])  # "lr-Adam"; with two parameter groups "lr-Adam/pg1", "/pg2"

    A scheduler's own "name", and a parameter group's, stand in the place of those.
    """

    def __init__(
        self,
        logging_interval: Literal["step", "epoch"] | None = None,
        log_momentum: bool = False,
        log_weight_decay: bool = False,
        log_key_prefix: str | None = None,
    ) -> None:
        super().__init__()
        if logging_interval not in (None, "step", "epoch"):
            raise MisconfigurationException(
                f"logging_interval={logging_interval!r} of LearningRateMonitor must be 'step', 'epoch' or None (both)."
            )
        self.logging_interval = logging_interval
        self.log_momentum = log_momentum
        self.log_weight_decay = log_weight_decay
        self.log_key_prefix = log_key_prefix
        self.lrs: dict[str, list[float]] = {}
        self.last_momentum_values: dict[str, Any] = {}
        self.last_weight_decay_values: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.loggers:
            raise no_logger("LearningRateMonitor")
        if self.log_momentum:
            without = [
                type(config.scheduler.optimizer).__name__
                for config in trainer.lr_scheduler_configs
                if not {"momentum", "betas"} & config.scheduler.optimizer.defaults.keys()
            ]
            if without:
                rank_zero_warn(
                    f"LearningRateMonitor(log_momentum=True): {', '.join(without)} has no momentum; it is logged as 0.",
                    category=RuntimeWarning,
                )
        names = [name for _, _, group_names in self._named(trainer) for name in group_names]
        self.lrs = {name: [] for name in names}
        self.last_momentum_values = {f"{name}-momentum": None for name in names}
        self.last_weight_decay_values = {f"{name}-weight_decay": None for name in names}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        every = trainer.log_every_n_steps
        due = every and (trainer.batches_that_stepped + 1) % every == 0
        if self.logging_interval != "epoch" and (due or trainer.should_stop):
            self._log(trainer, "step")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.logging_interval != "step":
            self._log(trainer, "epoch")

    def _log(self, trainer: Trainer, moment: str) -> None:
        latest: dict[str, float] = {}
        for optimizer, interval, names in self._named(trainer):
            # asked for one rhythm, all rates go there; else each at its scheduler's, and those without one at both
            if self.logging_interval is not None or interval in (moment, None):
                for group, name in zip(optimizer.param_groups, names, strict=True):
                    latest |= self._values_of(optimizer, group, name)
        if not latest:
            return
        trainer.callback_metrics.update({name: torch.tensor(float(value)) for name, value in latest.items()})
        for logger in trainer.loggers:
            logger.log_metrics(latest, step=trainer.batches_that_stepped)

    def _values_of(self, optimizer: Optimizer, group: dict[str, Any], name: str) -> dict[str, float]:
        rate = float(group["lr"])
        self.lrs.setdefault(name, []).append(rate)
        values = {name: rate}
        if self.log_momentum:
            momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0)
            values[f"{name}-momentum"] = self.last_momentum_values[f"{name}-momentum"] = momentum
        if self.log_weight_decay:
            decay = group.get("weight_decay", 0)
            values[f"{name}-weight_decay"] = self.last_weight_decay_values[f"{name}-weight_decay"] = decay
        return values

    def _named(self, trainer: Trainer) -> Iterator[tuple[Optimizer, str | None, list[str]]]:
        """Each scheduler's optimizer, then those without one: its interval and the names of its parameter groups."""
        of_class: Counter[type[Optimizer]] = Counter()
        scheduled: list[Optimizer] = []
        for config in trainer.lr_scheduler_configs:
            optimizer = config.scheduler.optimizer
            scheduled.append(optimizer)
            yield optimizer, config.interval, self._group_names(optimizer, config.name, of_class)
        for optimizer in trainer.optimizers:
            if optimizer not in scheduled:
                yield optimizer, None, self._group_names(optimizer, None, of_class)

    def _group_names(self, optimizer: Optimizer, name: str | None, of_class: Counter[type[Optimizer]]) -> list[str]:
        kind = type(optimizer)
        if not name:
            of_class[kind] += 1
            name = f"lr-{kind.__name__}" + (f"-{of_class[kind] - 1}" if of_class[kind] > 1 else "")
        if self.log_key_prefix:
            name = self.log_key_prefix + name
        groups = optimizer.param_groups
        own = [group["name"] for group in groups if "name" in group]
        if len(set(own)) < len(own):
            raise MisconfigurationException(
                f"{kind.__name__} has two parameter groups of one name ({', '.join(own)}), so their learning rates "
                "cannot be logged apart. Give each group a name of its own."
            )
        if len(groups) == 1 and not own:
            return [name]
        return [f"{name}/{group.get('name', f'pg{i}')}" for i, group in enumerate(groups, 1)]
