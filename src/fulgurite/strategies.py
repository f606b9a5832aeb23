"""The public names of strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.machine.ddp import DDPStrategy
from fulgurite.machine.strategy import SingleDeviceStrategy, Strategy

if TYPE_CHECKING:
    from fulgurite.machine.fsdp import FSDPStrategy, ModelParallelStrategy

__path__: list[str] = []  # Lightning has modules below it, which compat's table finds
__all__ = ["DDPStrategy", "FSDPStrategy", "ModelParallelStrategy", "SingleDeviceStrategy", "Strategy"]


def __getattr__(name: str) -> Any:
    if name in ("FSDPStrategy", "ModelParallelStrategy"):  # torch's parts for sharding are slow to import
        from fulgurite.machine import fsdp

        return getattr(fsdp, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
