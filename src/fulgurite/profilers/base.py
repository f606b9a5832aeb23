"""The profiler that measures nothing."""

from __future__ import annotations

from fulgurite.profilers.profiler import Profiler


class PassThroughProfiler(Profiler):
    """Stands where no profiler was asked for."""

    def start(self, action_name: str) -> None: ...

    def stop(self, action_name: str) -> None: ...
