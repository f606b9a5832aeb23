"""The public names of strategies."""

from fulgurite.machine.strategy import SingleDeviceStrategy, Strategy

__all__ = ["SingleDeviceStrategy", "Strategy"]
