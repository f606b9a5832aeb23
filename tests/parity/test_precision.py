"""float16 autocast with a GradScaler, on the CPU: scaled, unscaled, skipped and counted as Lightning does."""

from __future__ import annotations

from typing import Any

import torch

from parity import models as M
from parity.compare import settings
from parity.harness import Case
from parity.test_evaluation import call, loader
from parity.test_fit import own_window_average


def scaled(pl: Any) -> list[Any]:
    """So large a scale that the first steps are skipped, growing so soon that later ones are too."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
    return [pl.plugins.MixedPrecision("16-mixed", "cpu", scaler=scaler)]


def lightly_scaled(pl: Any) -> list[Any]:
    return [pl.plugins.MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=8.0))]


def adam_with_closure(module: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=0.01)


CASES: dict[str, Case] = {
    "steps are skipped": Case(flags={"plugins": scaled}),
    "the scaler of the plugin's own making": Case(
        flags={"plugins": lambda pl: [pl.plugins.MixedPrecision("16-mixed", "cpu")]}
    ),
    "one plugin, not in a list": Case(flags={"plugins": lambda pl: scaled(pl)[0]}),
    "clip by norm": Case(flags={"plugins": scaled, "gradient_clip_val": 0.1}),
    "clip by value": Case(flags={"plugins": scaled, "gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "own clipping": Case(model="OwnClipping", flags={"plugins": scaled}),
    "losses of None": Case(none_at=(2, 5), flags={"plugins": lightly_scaled, "gradient_clip_val": 0.1}),
    "a loss of None at first": Case(none_at=(0,), flags={"plugins": scaled}),
    "nothing but None": Case(none_at=tuple(range(7)), flags={"plugins": scaled}),
    "a loss of None ends a window": Case(
        none_at=(1, 3), batches=6, flags={"plugins": lightly_scaled, "accumulate_grad_batches": 2}
    ),
    "a scheduler a step": Case(
        optim=M.scheduled(M.halving, interval="step"), flags={"plugins": scaled, "log_every_n_steps": 1}
    ),
    "a plateau": Case(optim=M.scheduled(M.plateau, monitor="vl"), flags={"plugins": scaled}),
    "max_steps counts skipped ones": Case(flags={"plugins": scaled, "max_steps": 5, "max_epochs": -1}),
    "manual": Case(model="Manual", optim=M.two_and_a_scheduler, flags={"plugins": scaled}),
    "manual, gradients that wait": Case(model="ManualPending", optim=M.two_and_a_scheduler, flags={"plugins": scaled}),
    "manual, toggled optimizers, own clipping": Case(model="ManualToggled", optim=M.two, flags={"plugins": scaled}),
    "manual, closure": Case(model="ManualClosure", optim=adam_with_closure, flags={"plugins": scaled}),
    "LBFGS": Case(optim=M.lbfgs, flags={"plugins": scaled}, raises="MisconfigurationException"),
    "manual, LBFGS": Case(
        model="ManualClosure", optim=M.lbfgs, flags={"plugins": scaled}, raises="MisconfigurationException"
    ),
    "a scaler for bf16": Case(
        flags={"plugins": lambda pl: pl.plugins.MixedPrecision("bf16-mixed", "cpu", torch.amp.GradScaler("cpu"))},
        raises="MisconfigurationException",
    ),
    "own optimizer_step": Case(model="OwnStepDefault", flags={"plugins": scaled, "gradient_clip_val": 0.1}),
    "own optimizer_step, skipping": Case(model="OwnStepSkipping", flags={"plugins": scaled}),
    "learning rate by hand in optimizer_step": Case(model="WarmUp", flags={"plugins": scaled}),
    "batch norm": Case(model="BatchNorm", flags={"plugins": scaled}),
    "validate": Case(act=call("validate", loader), flags={"plugins": scaled}),
    "test": Case(act=call("test", loader), flags={"plugins": scaled}),
    "half": Case(flags={"plugins": lambda pl: pl.plugins.HalfPrecision()}),
    "half, 16-true": Case(flags={"precision": "16-true", "gradient_clip_val": 0.5}),
    "double": Case(flags={"plugins": lambda pl: [pl.plugins.DoublePrecision()]}),
    "the base class": Case(flags={"plugins": lambda pl: [pl.plugins.Precision()]}),
    "bf16-mixed, accumulate 2, manual of none": Case(
        none_at=(1,), flags={"plugins": lambda pl: [pl.plugins.MixedPrecision("bf16-mixed", "cpu")]}
    ),
}
for k in (2, 3):
    for n in (6, 7):
        for clip in (None, 0.5):
            CASES[f"accumulate {k} of {n}, clip {clip}"] = Case(
                batches=n,
                flags={"plugins": scaled, "accumulate_grad_batches": k, "gradient_clip_val": clip},
                lightning_do={"m.on_after_backward": own_window_average(k)} if n % k else {},
            )

test_fit = settings(CASES)
