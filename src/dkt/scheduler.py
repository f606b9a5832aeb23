"""The course's `dkt.scheduler`."""

from __future__ import annotations

import argparse

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


def get_scheduler(optimizer: Optimizer, args: argparse.Namespace) -> LambdaLR | ReduceLROnPlateau:
    """ "plateau", to be stepped with the best AUC of each epoch; or "linear_warmup", stepped with the optimizer.

    The latter rises for `args.warmup_steps` and falls until `args.total_steps`.
    """
    if args.scheduler == "plateau":
        return ReduceLROnPlateau(optimizer, mode="max", patience=10, factor=0.5)
    if args.scheduler == "linear_warmup":
        return linear_warmup(optimizer, args.total_steps, args.warmup_steps)
    raise ValueError(f"--scheduler {args.scheduler} is unknown; choose plateau or linear_warmup.")


def linear_warmup(optimizer: Optimizer, steps: int, warm: int) -> LambdaLR:
    warm = max(1, warm)
    return LambdaLR(optimizer, lambda i: min((i + 1) / warm, max(0.0, (steps - i) / max(1, steps - warm))))
