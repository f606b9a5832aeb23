"""The base class of callbacks: code that runs at named moments of training without being part of the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.hooks import Watched

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer

    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class Callback(Watched):
    """Override the hooks you need; the ones you leave alone are never called.

    Inside a hook that may log, `self.log` and `self.log_dict` work as in the module.
    """

    # A callback that reads metrics runs after the module's own `on_train_epoch_end`, which may still log.
    _monitors: bool = False

    @property
    def state_key(self) -> str:
        """The name under which this callback's state stands in a checkpoint; unique among the callbacks of a run."""
        return type(self).__qualname__

    def _generate_state_key(self, **kwargs: Any) -> str:
        """A state key that tells apart several callbacks of one class by their arguments."""
        return f"{type(self).__qualname__}{kwargs!r}"

    # setting up and tearing down
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """When fit, validate, test or predict begins, before the module's own setup."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """When fit, validate, test or predict ends."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once a fit, before the sanity check."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once a fit, after training has ended."""

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the few validation batches that run ahead of training."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the few validation batches that run ahead of training."""

    # training
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the sanity check, before the first epoch."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the start of each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """At the end of each epoch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the training step of a batch; the batch is on its device."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a batch is done; `outputs` holds what training_step returned, its loss detached."""

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Before gradients are set to zero."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Before `loss.backward()`."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After `loss.backward()`, before gradients are unscaled or clipped."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Before an optimizer steps; gradients are unscaled and not yet clipped."""

    # validation
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before validation."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After validation; its metrics are known."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first validation batch."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last validation batch; may still log."""

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before the validation step of a batch."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After the validation step of a batch."""

    # test
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before testing."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After testing; its metrics are known."""

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first test batch."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last test batch; may still log."""

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before the test step of a batch."""

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After the test step of a batch."""

    # prediction
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before predicting."""

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After predicting."""

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first batch to predict."""

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last batch was predicted."""

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Before the predict step of a batch."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After the predict step of a batch."""

    # exceptions and checkpoints
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """When an exception, KeyboardInterrupt included, ends the run."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint before it is written."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read a checkpoint before its state is restored."""
