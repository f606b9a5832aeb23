"""Plugins of the 1.x era that are strategies today."""

from __future__ import annotations

from typing import Any


class DDPPlugin:
    """`plugins=DDPPlugin(find_unused_parameters=False)`: on one device it changes nothing, on several it is `ddp`."""

    name = "ddp"

    def __init__(self, *args: Any, **options: Any) -> None:
        self.options = {k: v for k, v in options.items() if k not in ("parallel_devices", "num_nodes")}

    def line(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"DDPStrategy({options})" if options else repr(self.name)

    def today(self) -> Any:
        """The strategy that does the same."""
        if not self.options:
            return self.name
        from fulgurite.strategies import DDPStrategy

        return DDPStrategy(**self.options)


class DDPSpawnPlugin(DDPPlugin):
    """As `DDPPlugin`, the processes being spawned."""

    name = "ddp_spawn"


__all__ = ["DDPPlugin", "DDPSpawnPlugin"]
