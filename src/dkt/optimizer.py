"""The course's `dkt.optimizer`."""

from __future__ import annotations

import argparse

import torch
from torch import nn

OPTIMIZERS: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamW": torch.optim.AdamW}


def get_optimizer(model: nn.Module, args: argparse.Namespace, lr: float | None = None) -> torch.optim.Optimizer:
    """What `args.optimizer` names, with `args.weight_decay` (the course: 0.01) and `lr`, by default `args.lr`."""
    if args.optimizer not in OPTIMIZERS:
        raise ValueError(f"--optimizer {args.optimizer} is unknown; choose one of {', '.join(OPTIMIZERS)}.")
    decay = getattr(args, "weight_decay", 0.01)
    return OPTIMIZERS[args.optimizer](model.parameters(), lr=args.lr if lr is None else lr, weight_decay=decay)
