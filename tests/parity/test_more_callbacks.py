"""The callbacks that change how training goes: averages of weights, unfreezing, growing windows, searches, writers."""

from __future__ import annotations

import warnings
from typing import Any

from parity import models as M
from parity.compare import settings
from parity.harness import Case
from parity.test_callbacks import only


def backbone(pl: Any) -> list[Any]:
    class Unfreeze(pl.callbacks.BaseFinetuning):
        def freeze_before_training(self, module: Any) -> None:
            self.freeze(module.net[0])

        def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(module.net[0], optimizer, lr=0.01)

    return [Unfreeze()]


def trainable(module: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return M.torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)


# Lightning's averages call the module's configure_model once more, from their setup; it is called once here.
HOOKS = ("record",)
# Lightning's has attributes for the momenta of batch norms and for the count; here they are in its state.
ATTRIBUTES = ("callbacks",)
CASES: dict[str, Case] = {
    # windows that divide the epoch: the last one of an epoch that they do not is averaged over its own size here
    "windows that grow": Case(
        callbacks=only("GradientAccumulationScheduler", scheduling={0: 1, 1: 2, 2: 4}), batches=8
    ),
    "weights averaged by steps": Case(callbacks=only("EMAWeightAveraging", decay=0.8), ignore=HOOKS),
    "weights averaged from a step": Case(
        callbacks=only("EMAWeightAveraging", decay=0.5, update_starting_at_step=4), ignore=HOOKS
    ),
    "weights averaged every second step": Case(
        callbacks=only("EMAWeightAveraging", update_every_n_steps=2), ignore=HOOKS
    ),
    "stochastic average": Case(
        callbacks=only("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1),
        optim=M.sgd,
        batches=4,
        ignore=ATTRIBUTES,
    ),
    "stochastic average, linear": Case(
        callbacks=only("StochasticWeightAveraging", swa_lrs=0.02, swa_epoch_start=0.5, annealing_strategy="linear"),
        flags={"max_epochs": 4},
        optim=M.sgd,
        batches=4,
        ignore=ATTRIBUTES,
    ),
    "a part unfrozen in the second epoch": Case(callbacks=backbone, optim=trainable),
    "on an exception, none": Case(callbacks=lambda pl: [pl.callbacks.OnExceptionCheckpoint("broken")]),
}

test_more_callbacks = settings(CASES)
