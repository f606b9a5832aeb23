"""Stochastic weight averaging: the mean of the weights of the last epochs, trained at a constant high rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import SWALR

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.combined_loader import CombinedLoader
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.names import weights_as_in
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulgurite.utilities.types import LRSchedulerConfig

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

AvgFn = Callable[[Tensor, Tensor, Tensor], Tensor]


class StochasticWeightAveraging(Callback):
    """From epoch `swa_epoch_start` on, train at `swa_lrs` and average the weights that each epoch starts with.

    Example::

        Trainer(max_epochs=50, callbacks=[StochasticWeightAveraging(swa_lrs=1e-2)])  # the last 20 % of the epochs

    When training ends the module holds the average. Where it has batch norm, the training data is run through once more
    to measure the statistics that belong to these weights.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        avg_fn: AvgFn | None = None,
        device: torch.device | str | None = torch.device("cpu"),  # noqa: B008  # a constant
    ) -> None:
        super().__init__()
        whole = isinstance(swa_epoch_start, int) and swa_epoch_start >= 1
        part = isinstance(swa_epoch_start, float) and 0 <= swa_epoch_start <= 1
        if not whole and not part:
            raise MisconfigurationException(
                f"swa_epoch_start={swa_epoch_start!r} must be a number of epochs from 1 on, or a part from 0.0 to 1.0."
            )
        rates = swa_lrs if isinstance(swa_lrs, list) else [swa_lrs]
        if not all(isinstance(rate, (int, float)) and rate > 0 for rate in rates) or not rates:
            raise MisconfigurationException(f"swa_lrs={swa_lrs!r} must be a positive number, or one for each group.")
        if avg_fn is not None and not callable(avg_fn):
            raise MisconfigurationException(
                f"avg_fn={avg_fn!r} must be a function (average, weights, count) -> average."
            )
        self._swa_lrs = swa_lrs
        self._swa_epoch_start = swa_epoch_start
        self._annealing_epochs = annealing_epochs
        self._annealing_strategy = annealing_strategy
        self._avg_fn: AvgFn = avg_fn or self.avg_fn
        self._device = device
        self._average_model: LightningModule | None = None
        self._swa_scheduler: SWALR | None = None
        self._n_averaged = 0
        self._latest_update_epoch = -1
        self._max_epochs = 0
        self._scheduler_state: dict[str, Any] | None = None  # of the checkpoint resumed from

    @property
    def swa_start(self) -> int:
        """The first epoch that is averaged, counted from 0."""
        return max(int(self._swa_epoch_start) - 1, 0)

    @property
    def swa_end(self) -> int:
        """The last epoch that is averaged."""
        return self._max_epochs - 1

    @staticmethod
    def avg_fn(averaged_model_parameter: Tensor, model_parameter: Tensor, num_averaged: Tensor) -> Tensor:
        """The mean of all so far."""
        return averaged_model_parameter + (model_parameter - averaged_model_parameter) / (num_averaged + 1)

    @staticmethod
    def pl_module_contains_batch_norm(pl_module: LightningModule) -> bool:
        return any(isinstance(module, _BatchNorm) for module in pl_module.modules())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._n_averaged, self._latest_update_epoch = 0, -1  # not as used before; a checkpoint is loaded later
            self._swa_scheduler = self._scheduler_state = None
            self._average_model = deepcopy(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise MisconfigurationException(
                "StochasticWeightAveraging works with one optimizer; configure_optimizers gave "
                f"{len(trainer.optimizers)}."
            )
        if len(trainer.lr_scheduler_configs) > 1:
            raise MisconfigurationException(
                "StochasticWeightAveraging takes the place of one learning-rate scheduler; there are "
                f"{len(trainer.lr_scheduler_configs)}."
            )
        if trainer.max_epochs is None or trainer.max_epochs < 0:
            raise MisconfigurationException("StochasticWeightAveraging needs a known end: set max_epochs.")
        self._max_epochs = trainer.max_epochs
        if isinstance(self._swa_epoch_start, float):
            self._swa_epoch_start = int(trainer.max_epochs * self._swa_epoch_start)
        if self._scheduler_state is not None:
            trainer.lr_scheduler_configs.clear()  # the one that averaging replaced before the checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._scheduler_state is not None and self._swa_scheduler is None:
            self._begin(trainer, pl_module)  # a run resumed in mid-epoch starts no epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        if not self.swa_start <= epoch <= self.swa_end:
            return
        if self._swa_scheduler is None:
            self._begin(trainer, pl_module)
        if epoch > self._latest_update_epoch:
            self._update(pl_module)
            self._latest_update_epoch = epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._swa_scheduler is None or trainer.current_epoch <= self.swa_end:
            return
        with torch.no_grad():
            for average, current in zip(self._average.parameters(), pl_module.parameters(), strict=True):
                current.copy_(average)
        if self.pl_module_contains_batch_norm(pl_module):
            self._measure_batch_norm(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "n_averaged": self._n_averaged,
            "latest_update_epoch": self._latest_update_epoch,
            "scheduler_state": None if self._swa_scheduler is None else self._swa_scheduler.state_dict(),
            "average_model_state": None if self._average_model is None else self._average_model.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._n_averaged = state_dict["n_averaged"]
        self._latest_update_epoch = state_dict["latest_update_epoch"]
        self._scheduler_state = state_dict["scheduler_state"]
        if self._average_model is not None and state_dict["average_model_state"] is not None:
            self._average_model.load_state_dict(weights_as_in(self._average_model, state_dict["average_model_state"]))

    @property
    def _average(self) -> LightningModule:
        assert self._average_model is not None  # made in setup
        return self._average_model

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._average.to(self._device if self._device is not None else pl_module.device)
        optimizer = trainer.optimizers[0]
        rates = self._swa_lrs if isinstance(self._swa_lrs, list) else [self._swa_lrs] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise MisconfigurationException(
                f"swa_lrs={self._swa_lrs} has {len(rates)} rates, and the optimizer has {len(optimizer.param_groups)} "
                "parameter groups. Give one number, or one for each group."
            )
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["initial_lr"] = rate
        before = [group["lr"] for group in optimizer.param_groups]
        self._swa_scheduler = SWALR(
            optimizer,
            swa_lr=rates,  # type: ignore[arg-type]  # torch takes a list, its hint does not say so
            anneal_epochs=self._annealing_epochs,
            anneal_strategy=self._annealing_strategy,
            last_epoch=self._max_epochs if self._annealing_strategy == "cos" else -1,
        )
        if self._scheduler_state is not None:
            self._swa_scheduler.load_state_dict(self._scheduler_state)
            for rate, group in zip(before, optimizer.param_groups, strict=True):
                group["lr"] = rate  # making a scheduler takes its first step
        elif trainer.current_epoch != self.swa_start:
            rank_zero_warn(
                f"StochasticWeightAveraging begins in epoch {trainer.current_epoch}, after swa_start={self.swa_start}: "
                "the checkpoint has nothing of it, so earlier epochs are missing from the average."
            )
        if trainer.lr_scheduler_configs:
            replaced = type(trainer.lr_scheduler_configs[0].scheduler).__name__
            rank_zero_info(f"StochasticWeightAveraging takes the place of the scheduler {replaced}.")
        trainer.lr_scheduler_configs[:1] = [LRSchedulerConfig(self._swa_scheduler)]

    def _update(self, pl_module: LightningModule) -> None:
        count = torch.tensor(self._n_averaged)
        with torch.no_grad():
            for average, current in zip(self._average.parameters(), pl_module.parameters(), strict=True):
                new = current.to(average.device)
                average.copy_(new if self._n_averaged == 0 else self._avg_fn(average, new, count.to(average.device)))
        self._n_averaged += 1

    def _measure_batch_norm(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not pl_module.automatic_optimization:
            rank_zero_warn(
                "The batch-norm statistics still belong to the weights before averaging: under manual optimization "
                "training_step would train. Run your data through the model once in train mode."
            )
            return
        assert trainer._run is not None  # we are in a fit
        transfer, count = trainer._run.transfer, trainer.num_training_batches
        step = trainer._run._taking_batch_idx(pl_module.training_step)
        loader = trainer.train_dataloader
        if isinstance(loader, (list, tuple, Mapping)):
            loader = CombinedLoader(loader, "max_size_cycle")
        batches = (batch for batch, _, _ in loader) if isinstance(loader, CombinedLoader) else loader
        with _measuring(pl_module), torch.no_grad():
            for i, batch in enumerate(islice(batches, None if math.isinf(count) else int(count))):
                with trainer.precision_plugin.train_step_context():
                    step(batch if transfer is None else transfer(batch, 0), i)


@contextlib.contextmanager
def _measuring(pl_module: LightningModule) -> Iterator[None]:
    """Batch norm starts anew and takes the plain mean over all batches; what the module logs meanwhile is dropped."""
    momenta: dict[nn.Module, float | None] = {}
    for module in pl_module.modules():
        if isinstance(module, _BatchNorm):
            momenta[module] = module.momentum
            module.reset_running_stats()
            module.momentum = None
    pl_module.log = pl_module.log_dict = lambda *args, **kwargs: None  # type: ignore[assignment,method-assign]  # for now
    try:
        yield
    finally:
        del pl_module.log, pl_module.log_dict
        for module, momentum in momenta.items():
            module.momentum = momentum  # type: ignore[assignment]  # a batch norm
