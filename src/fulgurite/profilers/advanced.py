"""Which Python functions each action spent its time in."""

from __future__ import annotations

import cProfile
import io
import pstats
from pathlib import Path

from fulgurite.profilers.profiler import Profiler, never_started


class AdvancedProfiler(Profiler):
    """Run Python's cProfile over each action; the report lists functions by cumulative time.

    Example::

        Trainer(profiler=AdvancedProfiler(dirpath="profile", filename="functions", line_count_restriction=20))
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        line_count_restriction: float = 1.0,
        dump_stats: bool = False,
    ) -> None:
        super().__init__(dirpath, filename)
        self.profiled_actions: dict[str, cProfile.Profile] = {}
        self.line_count_restriction = line_count_restriction
        self.dump_stats = dump_stats
        self._running: list[str] = []  # Python measures one at a time: an inner action interrupts the outer one

    def start(self, action_name: str) -> None:
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        self._running.append(action_name)
        self.profiled_actions.setdefault(action_name, cProfile.Profile()).enable()

    def stop(self, action_name: str) -> None:
        if action_name not in self._running:
            raise never_started(action_name)
        self.profiled_actions[self._running[-1]].disable()
        self._running.remove(action_name)
        if self._running:
            self.profiled_actions[self._running[-1]].enable()

    def summary(self) -> str:
        parts, written = [], set[Path]()
        for action_name, profile in self.profiled_actions.items():
            if self.dump_stats:
                self._dump_stats(action_name, profile, written)
            text = io.StringIO()
            stats = pstats.Stats(profile, stream=text).strip_dirs().sort_stats("cumulative")
            stats.print_stats(self.line_count_restriction)
            parts.append(f"Profile stats for: {action_name}\n{text.getvalue()}")
        return "Profiler Report\n" + "\n".join(parts)

    def teardown(self, stage: str | None) -> None:
        super().teardown(stage)
        self.profiled_actions.clear()
        self._running.clear()

    def _dump_stats(self, action_name: str, profile: cProfile.Profile, written: set[Path]) -> None:
        """Two names that differ only in what no file name may hold get two files."""
        folder = self._folder() or Path()
        folder.mkdir(parents=True, exist_ok=True)
        path = first = folder / self._prepare_filename(action_name, ".prof").replace(" ", "_")
        while path in written:
            path = first.with_stem(f"{first.stem}-{len(written)}")
        written.add(path)
        profile.dump_stats(path)
