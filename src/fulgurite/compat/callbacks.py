"""What was a Trainer argument in the 1.x era and is a few lines of callback."""

from __future__ import annotations

from typing import Any

import torch

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.grads import grad_norm


class GradNorm(Callback):
    """`track_grad_norm=2`: logs the norm of each parameter's gradient, and of all."""

    def __init__(self, norm: float | str) -> None:
        self.norm = norm

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        pl_module.log_dict(grad_norm(pl_module, self.norm), on_step=True, on_epoch=True)


class StopAtNan(Callback):
    """`terminate_on_nan=True`: looks at each loss, which waits for the device each time."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss")
        if loss is not None and not torch.isfinite(loss).all():
            raise ValueError(f"the loss that training_step returned for batch {batch_idx} is {loss.item()}.")
        for name, parameter in pl_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise ValueError(f"the parameter {name} is not finite after batch {batch_idx}.")


def averaging_at_their_rates() -> Callback:
    """`stochastic_weight_avg=True`: averages at the learning rates that the optimizer has."""
    from fulgurite.callbacks.stochastic_weight_avg import StochasticWeightAveraging

    class AtTheirRates(StochasticWeightAveraging):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self._swa_lrs = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
            super().on_fit_start(trainer, pl_module)

    return AtTheirRates(swa_lrs=1e-2)
