"""The training loop under every flag that steers it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch.optim import lr_scheduler

from parity import models as M
from parity.compare import settings
from parity.harness import Case


def stop_at(batch: int, epoch: int = 0) -> Callable[..., None]:
    def stop(trainer: Any, module: Any, *args: Any) -> None:
        if trainer.current_epoch == epoch and args[-1] == batch:
            trainer.should_stop = True

    return stop


def stop_if(condition: Callable[[Any], bool]) -> Callable[..., None]:
    def stop(trainer: Any, module: Any, *args: Any) -> None:
        if condition(trainer):
            trainer.should_stop = True

    return stop


def skip_rest_at(batch: int) -> Callable[..., Any]:
    return lambda trainer, module, batch_, batch_idx: -1 if batch_idx == batch else None


def own_window_average(k: int) -> Callable[..., None]:
    """Lightning with the deliberate difference put in by hand: the last, short window is averaged over its own size."""

    def rescale(trainer: Any, module: Any) -> None:
        window = (trainer.fit_loop.total_batch_idx - trainer.current_epoch * trainer.num_training_batches) % k + 1
        if trainer.is_last_batch and window < k:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(k / window)

    return rescale


def draw(trainer: Any, module: Any) -> None:
    torch.rand(())


def log_bias(name: str, **how: Any) -> Callable[..., None]:
    return lambda trainer, module, *args: module.log(name, module.net[0].bias.sum(), **how)


CASES: dict[str, Case] = {}

for k in (1, 2, 3):
    for n in (6, 7):
        for clip in (None, 0.5):
            fix = {"m.on_after_backward": own_window_average(k)} if n % k else {}
            flags = {"accumulate_grad_batches": k, "gradient_clip_val": clip}
            CASES[f"accumulate {k} of {n}, clip {clip}"] = Case(batches=n, flags=flags, lightning_do=fix)

for interval in (1, 2, 3, 8, 0.25, 0.5, 1.0):
    for k in (1, 2):
        flags = {"val_check_interval": interval, "accumulate_grad_batches": k}
        CASES[f"val_check_interval {interval}, accumulate {k}"] = Case(batches=8, flags=flags)
for interval in (3, 5, 10):
    CASES[f"val_check_interval {interval} across epochs"] = Case(
        flags={"val_check_interval": interval, "check_val_every_n_epoch": None}
    )
for name, span in {
    "no time at all": timedelta(0),
    "a day": timedelta(days=1),
    "a day in words": "01:00:00:00",
    "a day in parts": {"days": 1},
}.items():
    CASES[f"val_check_interval of {name}"] = Case(flags={"val_check_interval": span})
CASES["val_check_interval of no time, every 2 epochs"] = Case(
    flags={"val_check_interval": timedelta(0), "check_val_every_n_epoch": 2, "max_epochs": 4}
)

CASES |= {
    "clip by value": Case(flags={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "clip by norm, named": Case(flags={"gradient_clip_val": 0.1, "gradient_clip_algorithm": "norm"}),
    "clip value 0": Case(flags={"gradient_clip_val": 0}),
    "the module's own clipping": Case(model="OwnClipping"),
    "check_val_every_n_epoch 2": Case(flags={"check_val_every_n_epoch": 2}),
    "val_check_interval 2, check_val_every_n_epoch 2": Case(
        flags={"val_check_interval": 2, "check_val_every_n_epoch": 2, "max_epochs": 4}
    ),
    "no validation loader": Case(val=0),
    "no validation step": Case(model="NoValidation"),
    "limit_val_batches 0": Case(flags={"limit_val_batches": 0}),
    "limit_val_batches 1": Case(flags={"limit_val_batches": 1}),
    "limit_val_batches .4": Case(flags={"limit_val_batches": 0.4}),
    "limit_train_batches 0": Case(flags={"limit_train_batches": 0}, ignore=("batches",)),  # Lightning says inf, we 0
    "limit_train_batches 3": Case(flags={"limit_train_batches": 3}),
    "limit_train_batches 100": Case(flags={"limit_train_batches": 100}),
    "limit_train_batches .5, accumulate 2": Case(
        batches=8, flags={"limit_train_batches": 0.5, "accumulate_grad_batches": 2}
    ),
    "overfit 2 batches": Case(flags={"overfit_batches": 2}),
    "overfit half": Case(flags={"overfit_batches": 0.5}),
    "fast_dev_run": Case(flags={"fast_dev_run": True}),
    "fast_dev_run 3": Case(flags={"fast_dev_run": 3}),
    "max_epochs 0": Case(flags={"max_epochs": 0}, ignore=("rng",)),  # Lightning opens the loader all the same
    "max_epochs 1": Case(flags={"max_epochs": 1}),
    "min_epochs and max_epochs equal": Case(flags={"min_epochs": 2, "max_epochs": 2}),
    "max_steps 3, accumulate 2": Case(
        batches=8, flags={"max_steps": 3, "max_epochs": -1, "accumulate_grad_batches": 2}
    ),
    "max_steps at an epoch's end, accumulate 2": Case(
        batches=8, flags={"max_steps": 4, "max_epochs": -1, "accumulate_grad_batches": 2}
    ),
    "max_steps without max_epochs": Case(flags={"max_steps": 9, "max_epochs": None}),
    "max_time of a day": Case(flags={"max_time": "01:00:00:00"}),
    "max_time of no time": Case(flags={"max_time": timedelta(0)}),
    "max_time of no time, min_epochs 1": Case(flags={"max_time": {"seconds": 0}, "min_epochs": 1}),
    "detect_anomaly": Case(flags={"detect_anomaly": True}),
    "deterministic": Case(flags={"deterministic": True}),
    "barebones": Case(
        flags={
            "barebones": True,
            "logger": None,
            "log_every_n_steps": None,
            "enable_progress_bar": None,
            "enable_model_summary": None,
            "enable_checkpointing": None,
        },
        monitor=False,
    ),
    "log_every_n_steps 1": Case(flags={"log_every_n_steps": 1}),
    "log_every_n_steps 3, accumulate 2": Case(batches=8, flags={"log_every_n_steps": 3, "accumulate_grad_batches": 2}),
    "log_every_n_steps 50": Case(flags={"log_every_n_steps": 50}),
    "log_every_n_steps 0": Case(flags={"log_every_n_steps": 0}),
}
for steps in (0, 1, 5, 7, 9):
    flags = {"max_steps": steps, "max_epochs": -1, "val_check_interval": 2}
    CASES[f"max_steps {steps}"] = Case(flags=flags, ignore=() if steps else ("rng",))
for steps in (-1, 0, 1, 2):
    CASES[f"num_sanity_val_steps {steps}"] = Case(flags={"num_sanity_val_steps": steps})
for precision in ("64-true", "bf16-mixed", "16-mixed", "bf16-true", 64, "bf16", 16):
    CASES[f"precision {precision!r}"] = Case(flags={"precision": precision, "gradient_clip_val": 0.5})

for k in (1, 2):
    CASES[f"should_stop in the third batch, accumulate {k}"] = Case(
        batches=8, flags={"accumulate_grad_batches": k}, do={"cb.on_train_batch_end": stop_at(2, 1)}
    )
CASES |= {
    "should_stop in the last batch": Case(do={"cb.on_train_batch_end": stop_at(6)}),
    "should_stop in the last batch, val each 2": Case(
        do={"cb.on_train_batch_end": stop_at(6)}, flags={"val_check_interval": 2}
    ),
    "should_stop in batch_start": Case(do={"m.on_train_batch_start": stop_at(3)}),
    "should_stop in on_train_epoch_start": Case(
        do={"cb.on_train_epoch_start": stop_if(lambda t: t.current_epoch == 1)}
    ),
    "should_stop in on_train_epoch_end": Case(do={"mon.on_train_epoch_end": stop_if(lambda t: t.current_epoch == 1)}),
    "should_stop in on_validation_end": Case(
        do={"mon.on_validation_end": stop_if(lambda t: not t.sanity_checking)}, flags={"val_check_interval": 2}
    ),
    "should_stop in on_train_start": Case(do={"cb.on_train_start": stop_if(lambda t: True)}),
    "should_stop in an optimizer hook": Case(do={"cb.on_before_optimizer_step": stop_if(lambda t: t.global_step == 4)}),
    "should_stop, min_epochs 2": Case(
        do={"cb.on_train_batch_end": stop_at(2)}, flags={"min_epochs": 2, "max_epochs": 4}
    ),
    "should_stop, min_steps 10": Case(
        do={"cb.on_train_batch_end": stop_at(2)}, flags={"min_steps": 10, "max_epochs": 4}
    ),
    "should_stop in mid-window, val each 2": Case(
        batches=6,
        do={"cb.on_train_batch_end": stop_at(3, 1)},
        flags={"accumulate_grad_batches": 3, "val_check_interval": 2},
    ),
    "should_stop in an epoch without validation": Case(
        do={"cb.on_train_batch_end": stop_at(3)}, flags={"check_val_every_n_epoch": 2}
    ),
    "None loss in the last batch": Case(none_at=(6,)),
    "every loss None": Case(none_at=tuple(range(7))),
    "-1 across epochs": Case(
        do={"m.on_train_batch_start": skip_rest_at(3)},
        flags={"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 5},
    ),
    "-1, manual optimization, log each": Case(
        model="Manual",
        optim=M.two_and_a_scheduler,
        do={"m.on_train_batch_start": skip_rest_at(3)},
        flags={"log_every_n_steps": 1},
    ),
    "a dictionary with None for a loss": Case(model="DictOutput", none_at=(3,), raises="MisconfigurationException"),
    "a callback returning -1 has no say": Case(do={"cb.on_train_batch_start": lambda *a: -1}),
}
for k in (1, 2, 3):
    CASES[f"None losses, accumulate {k}"] = Case(
        batches=6,
        none_at=(0, 1, 4),
        flags={"accumulate_grad_batches": k, "gradient_clip_val": 0.5},
        optim=M.scheduled(M.halving, interval="step"),
    )
four_schedulers = M.several_schedulers(
    (lambda o: lr_scheduler.ExponentialLR(o, 0.9), {"interval": "step"}),
    (lambda o: lr_scheduler.ExponentialLR(o, 0.7), {"interval": "epoch"}),
    (M.plateau, {"interval": "step", "monitor": "loss_step", "strict": False}),
    (M.plateau, {"monitor": "only_step", "strict": False}),
)
for k in (1, 2):
    for at in (0, 3):
        CASES[f"-1 at batch {at}, four schedulers, accumulate {k}"] = Case(
            do={"m.on_train_batch_start": skip_rest_at(at)}, flags={"accumulate_grad_batches": k}, optim=four_schedulers
        )

for f in (1, 2):
    for k in (1, 2):
        CASES[f"step scheduler, frequency {f}, accumulate {k}"] = Case(
            batches=8, flags={"accumulate_grad_batches": k}, optim=M.scheduled(M.halving, interval="step", frequency=f)
        )
    one_epoch = M.scheduled(lambda o: lr_scheduler.StepLR(o, 1, 0.5), frequency=f)
    CASES[f"epoch scheduler, frequency {f}"] = Case(flags={"val_check_interval": 2, "max_epochs": 4}, optim=one_epoch)
    CASES[f"plateau by epoch on vl, frequency {f}"] = Case(
        flags={"max_epochs": 5}, optim=M.scheduled(M.plateau, monitor="vl", frequency=f)
    )
for k in (1, 2):
    CASES[f"plateau by step on loss, accumulate {k}"] = Case(
        batches=8, flags={"accumulate_grad_batches": k}, optim=M.scheduled(M.plateau, monitor="loss", interval="step")
    )
    CASES[f"log in hooks, plateau on them, accumulate {k}"] = Case(
        batches=6,
        flags={"accumulate_grad_batches": k},
        do={
            "m.on_train_epoch_end": log_bias("te"),
            "cb.on_validation_epoch_end": log_bias("ve"),
            "m.on_train_batch_end": log_bias("be", on_step=True, on_epoch=True),
            "cb.on_train_epoch_start": lambda t, m: m.log("es", 1.0 + t.current_epoch),
        },
        optim=M.several_schedulers(
            (M.plateau, {"monitor": "te"}), (M.plateau, {"monitor": "ve", "interval": "step", "strict": False})
        ),
    )
in_mid_epoch = M.scheduled(M.plateau, monitor="vl")
CASES |= {
    "plateau by epoch on loss_epoch": Case(flags={"max_epochs": 5}, optim=M.scheduled(M.plateau, monitor="loss_epoch")),
    "plateau by epoch, max_steps in mid-epoch": Case(flags={"max_steps": 10, "max_epochs": -1}, optim=in_mid_epoch),
    "plateau by epoch, should_stop in mid-epoch": Case(do={"cb.on_train_batch_end": stop_at(2, 1)}, optim=in_mid_epoch),
    "plateau by step on vl, not strict, val each 2": Case(
        flags={"val_check_interval": 2}, optim=M.scheduled(M.plateau, monitor="vl", interval="step", strict=False)
    ),
    "plateau by step on vl, frequency 3": Case(
        flags={"val_check_interval": 1}, optim=M.scheduled(M.plateau, monitor="vl", interval="step", frequency=3)
    ),
    "LBFGS": Case(optim=M.lbfgs, flags={"gradient_clip_val": 0.5}, model="DictOutput"),
    "SGD momentum, dict output": Case(optim=M.sgd, model="DictOutput", flags={"accumulate_grad_batches": 2}, batches=6),
    "own optimizer_step": Case(model="OwnStepDefault", flags={"gradient_clip_val": 0.1}),
    "own optimizer_step, skipping": Case(model="OwnStepSkipping", flags={"gradient_clip_val": 0.1}),
    "own optimizer_step, closure first": Case(model="OwnStepClosureFirst", flags={"gradient_clip_val": 0.1}),
    "own optimizer_step, accumulate 2": Case(model="OwnStepDefault", batches=6, flags={"accumulate_grad_batches": 2}),
    "learning rate by hand in optimizer_step": Case(model="WarmUp"),
    "training_step without batch_idx": Case(model="NoBatchIndex"),
    "training_step with keywords besides": Case(model="KeywordsOnly"),
    "nothing logged": Case(model="Silent"),
    "batch norm": Case(model="BatchNorm", flags={"val_check_interval": 2}),
    "part of the module in eval mode": Case(model="PartInEval", flags={"val_check_interval": 2}),
    "layers made in configure_model": Case(model="ConfiguredLate"),
    # Lightning shows a mock optimizer, we none
    "configure_optimizers returns None": Case(optim=lambda m: None, ignore=("optimizer states",)),
    "configure_optimizers returns a list": Case(optim=lambda m: [M.adamw(m)]),
    "configure_optimizers returns two lists": Case(optim=lambda m: ([o := M.adamw(m)], [M.halving(o)])),
    "configure_optimizers returns a dict with a bare scheduler": Case(
        optim=lambda m: {"optimizer": (o := M.adamw(m)), "lr_scheduler": M.halving(o)}
    ),
    "configure_optimizers returns a dict with plateau and monitor": Case(
        optim=lambda m: {"optimizer": (o := M.adamw(m)), "lr_scheduler": M.plateau(o), "monitor": "vl"}
    ),
    "a warm restart and a lambda": Case(
        optim=M.several_schedulers(
            (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3), {"interval": "step"}),
            (lambda o: lr_scheduler.LambdaLR(o, lambda e: 0.9**e), {"interval": "epoch", "name": "decay"}),
        )
    ),
    "OneCycle over estimated_stepping_batches": Case(
        flags={"accumulate_grad_batches": 2},
        batches=6,
        optim=lambda m: {
            "optimizer": (o := M.adamw(m)),
            "lr_scheduler": {
                "scheduler": lr_scheduler.OneCycleLR(o, 0.1, total_steps=m.trainer.estimated_stepping_batches),
                "interval": "step",
            },
        },
    ),
    "manual, two optimizers, own scheduler": Case(
        model="Manual", optim=M.two_and_a_scheduler, flags={"val_check_interval": 2}
    ),
    "manual, pending gradients over validation": Case(
        model="ManualPending", optim=M.two_and_a_scheduler, flags={"val_check_interval": 2}
    ),
    "manual, max_steps 8": Case(model="Manual", optim=M.two_and_a_scheduler, flags={"max_steps": 8, "max_epochs": -1}),
    "manual, log each batch": Case(model="Manual", optim=M.two_and_a_scheduler, flags={"log_every_n_steps": 1}),
    "manual, toggled optimizers, own clipping": Case(model="ManualToggled", optim=M.two),
    "manual, closure": Case(model="ManualClosure", optim=M.lbfgs),
    "manual, 16-mixed": Case(model="Manual", optim=M.two_and_a_scheduler, flags={"precision": "bf16-mixed"}),
    "random draws in hooks": Case(
        do={
            f"cb.{h}": draw
            for h in ("on_train_start", "on_train_epoch_start", "on_sanity_check_start", "on_train_epoch_end")
        }
    ),
    "optimizer_zero_grad keeps zeros": Case(
        do={"m.optimizer_zero_grad": lambda t, m, *a: m.zero_grad(set_to_none=False)},
        none_at=(2, 3),
        flags={"val_check_interval": 2},
    ),
    "counters and estimates": Case(model="Extras", flags={"accumulate_grad_batches": 2}, batches=6),
    "iterable, limit_train_batches 4": Case(iterable=True, flags={"limit_train_batches": 4}),
    "iterable, accumulate 2, max_steps 5": Case(
        iterable=True, batches=6, flags={"accumulate_grad_batches": 2, "max_steps": 5, "max_epochs": -1}
    ),
}
for interval in (1.0, 2, 3):
    CASES[f"iterable, val_check_interval {interval}"] = Case(iterable=True, flags={"val_check_interval": interval})


test_fit = settings(CASES)
