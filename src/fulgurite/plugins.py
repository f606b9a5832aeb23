"""The public names of plugins: precision, and how checkpoints reach the disk."""

from __future__ import annotations

import torch

from fulgurite.machine.async_checkpoint import AsyncCheckpointIO
from fulgurite.machine.precision import Precision
from fulgurite.machine.strategy import TorchCheckpointIO

CheckpointIO = TorchCheckpointIO


class MixedPrecision(Precision):
    """Autocast to float16 or bfloat16, weights in float32."""

    def __init__(self, precision: str = "bf16-mixed", device: torch.device | str = "cpu") -> None:
        super().__init__(precision, device)


class HalfPrecision(Precision):
    """Weights, inputs and arithmetic in float16 or bfloat16."""

    def __init__(self, precision: str = "bf16-true") -> None:
        super().__init__(precision)


class DoublePrecision(Precision):
    """Weights, inputs and arithmetic in float64."""

    def __init__(self) -> None:
        super().__init__("64-true")


__path__: list[str] = []  # Lightning has modules below it, which compat's table finds
__all__ = [
    "AsyncCheckpointIO",
    "CheckpointIO",
    "DoublePrecision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "TorchCheckpointIO",
]
