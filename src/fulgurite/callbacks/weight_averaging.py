"""Keeps an average of the weights beside the ones that are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from fulgurite.callbacks.callback import Callback
from fulgurite.states import TrainerFn
from fulgurite.utilities.names import weights_as_in
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

_MODULE = "module."  # where AveragedModel keeps the averaged weights


class WeightAveraging(Callback):
    """Average the weights after each step; the average validates, is saved as the weights, and stays at the end.

    Example::

        class EveryTenth(WeightAveraging):
            def should_update(self, step_idx=None, epoch_idx=None):
                return step_idx is not None and step_idx % 10 == 0

    Further keywords (`avg_fn`, `multi_avg_fn`) go to `torch.optim.swa_utils.AveragedModel`; without them: the mean.
    """

    def __init__(self, device: torch.device | str | int | None = None, use_buffers: bool = True, **kwargs: Any) -> None:
        super().__init__()
        self._device = device
        self._use_buffers = use_buffers
        self._kwargs = kwargs
        self._average_model: AveragedModel | None = None
        self._latest_update_step = 0  # optimizer steps done when a step last updated the average
        self._latest_update_epoch = -1
        self._swapped = False

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether to add the weights to the average, after the optimizer step or epoch of this index."""
        return step_idx is not None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._swapped = False
            self._latest_update_step, self._latest_update_epoch = trainer.global_step, -1  # not as used before
            with trainer.init_module():
                pl_module.configure_model()  # comes later and again in a run; layers made there are averaged too
            device = self._device if self._device is not None else trainer.strategy.root_device
            self._average_model = AveragedModel(
                model=pl_module, device=torch.device(device), use_buffers=self._use_buffers, **self._kwargs
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.global_step
        if done > self._latest_update_step and self.should_update(step_idx=done - 1):
            self._average.update_parameters(pl_module)
            self._latest_update_step = done

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        if epoch > self._latest_update_epoch and self.should_update(epoch_idx=epoch):
            self._average.update_parameters(pl_module)
            self._latest_update_epoch = epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._has_begun:
            rank_zero_warn("WeightAveraging has averaged nothing: the module keeps the weights it has.")
            return
        with torch.no_grad():
            for average, current in self._pairs(pl_module):
                current.copy_(average)
        rank_zero_info("The averaged weights are the module's weights now.")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._has_begun:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._swapped:
            self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._swapped:  # a validation was interrupted
            self._swap(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"latest_update_step": self._latest_update_step, "latest_update_epoch": self._latest_update_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest_update_step = state_dict["latest_update_step"]
        self._latest_update_epoch = state_dict.get("latest_update_epoch", -1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None:
            rank_zero_warn(
                "WeightAveraging has averaged nothing outside fit: the module's weights are saved as they are."
            )
            return
        state = self._average_model.state_dict()
        if not self._has_begun:  # there is no average yet
            state |= {_MODULE + name: value for name, value in checkpoint["state_dict"].items()}
        averaged = {name.removeprefix(_MODULE): v for name, v in state.items() if name.startswith(_MODULE)}
        live = checkpoint["state_dict"]
        if self._swapped:  # during a validation the module holds the average, and the live weights are beside it
            averaged, live = live, averaged
        checkpoint["current_model_state"] = live
        checkpoint["state_dict"] = averaged
        checkpoint["averaging_state"] = {name: v for name, v in state.items() if not name.startswith(_MODULE)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is None or trainer.state.fn != TrainerFn.FITTING:
            return  # validate, test, predict: with the average
        if "current_model_state" not in checkpoint:
            rank_zero_warn(
                "The checkpoint was saved without WeightAveraging: the average begins with the weights it holds."
            )
            state = weights_as_in(pl_module, checkpoint["state_dict"])
            self._average_model.module.load_state_dict(state, strict=pl_module.strict_loading)
            return
        averaged = {_MODULE + name: value for name, value in checkpoint["state_dict"].items()}
        averaged = weights_as_in(self._average_model, averaged | checkpoint["averaging_state"])
        self._average_model.load_state_dict(averaged)
        checkpoint["state_dict"] = live = weights_as_in(pl_module, checkpoint["current_model_state"])
        pl_module.load_state_dict(live, strict=pl_module.strict_loading)  # the average has been loaded already

    @property
    def _has_begun(self) -> bool:
        """Whether the average holds anything; before, the weights are those that are trained."""
        return bool(self._average.n_averaged)

    @property
    def _average(self) -> AveragedModel:
        assert self._average_model is not None  # made in setup
        return self._average_model

    def _pairs(self, pl_module: LightningModule) -> list[tuple[torch.Tensor, torch.Tensor]]:
        average = self._average.module
        averaged = [*average.parameters(), *average.buffers()]
        return list(zip(averaged, [*pl_module.parameters(), *pl_module.buffers()], strict=True))

    def _swap(self, pl_module: LightningModule) -> None:
        self._swapped = not self._swapped
        with torch.no_grad():
            for average, current in self._pairs(pl_module):
                kept = average.clone()
                average.copy_(current)
                current.copy_(kept)


class EMAWeightAveraging(WeightAveraging):
    """An exponential moving average: `decay` of the old average, `1 - decay` of the new weights.

    Example::

        Trainer(callbacks=[EMAWeightAveraging(decay=0.999, update_starting_at_step=1000)])
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        average = get_ema_avg_fn(decay=decay)  # type: ignore[no-untyped-call]  # torch's
        super().__init__(device=device, use_buffers=use_buffers, **{"avg_fn": average, **kwargs})
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is not None:
            first = self.update_starting_at_step or 0
            return step_idx >= first and step_idx % self.update_every_n_steps == 0
        first_epoch = self.update_starting_at_epoch
        return epoch_idx is not None and first_epoch is not None and epoch_idx >= first_epoch
