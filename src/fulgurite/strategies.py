"""The public names of strategies."""

from fulgurite.machine.ddp import DDPStrategy
from fulgurite.machine.strategy import SingleDeviceStrategy, Strategy

__path__: list[str] = []  # Lightning has modules below it, which compat's table finds
__all__ = ["DDPStrategy", "SingleDeviceStrategy", "Strategy"]
