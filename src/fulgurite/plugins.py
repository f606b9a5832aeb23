"""The public names of plugins: precision, and how checkpoints reach the disk."""

from __future__ import annotations

from fulgurite.machine.async_checkpoint import AsyncCheckpointIO, _WrappingCheckpointIO
from fulgurite.machine.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from fulgurite.machine.strategy import TorchCheckpointIO

CheckpointIO = TorchCheckpointIO
__path__: list[str] = []  # Lightning has modules below it, which compat's table finds
__all__ = [
    "AsyncCheckpointIO",
    "CheckpointIO",
    "DoublePrecision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "TorchCheckpointIO",
    "_WrappingCheckpointIO",
]
