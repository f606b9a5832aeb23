"""How often each action ran and how long it took."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from fulgurite.profilers.profiler import Profiler, never_started


class SimpleProfiler(Profiler):
    """Measure the duration of each action; the report names the slowest first.

    Example::

        Trainer(profiler=SimpleProfiler(filename="times"))  # or profiler="simple"
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None, extended: bool = True) -> None:
        super().__init__(dirpath, filename)
        self.extended = extended
        self.current_actions: dict[str, float] = {}
        self.recorded_durations: defaultdict[str, list[float]] = defaultdict(list)
        self.start_time = time.monotonic()

    def start(self, action_name: str) -> None:
        if action_name in self.current_actions:
            raise ValueError(f"Attempted to start {action_name} which has already started.")
        self.current_actions[action_name] = time.monotonic()

    def stop(self, action_name: str) -> None:
        end = time.monotonic()
        if action_name not in self.current_actions:
            raise never_started(action_name)
        self.recorded_durations[action_name].append(end - self.current_actions.pop(action_name))

    def summary(self) -> str:
        if not self.recorded_durations:
            return "Profiler Report\n"
        whole = time.monotonic() - self.start_time
        rows = sorted(((sum(times), name, len(times)) for name, times in self.recorded_durations.items()), reverse=True)
        if not self.extended:
            short = [[name, f"{spent / count:.5}", f"{spent:.5}"] for spent, name, count in rows]
            return _table([["Action", "Mean duration (s)", "Total time (s)"]], short)
        head = ["Action", "Mean duration (s)", "Num calls", "Total time (s)", "Percentage %"]
        total = ["Total", "-", f"{sum(count for _, _, count in rows)}", f"{whole:.5}", "100 %"]
        body = [
            [name, f"{spent / count:.5}", f"{count}", f"{spent:.5}", f"{100 * spent / whole:.5}"]
            for spent, name, count in rows
        ]
        return _table([head], [total], body)


def _table(*blocks: list[list[str]]) -> str:
    """Rows of equal columns, a rule after each block."""
    widths = [max(len(row[0]) for block in blocks for row in block), *[15] * (len(blocks[0][0]) - 1)]
    lines = [
        [
            "|  " + "\t|  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + "\t|"
            for row in block
        ]
        for block in blocks
    ]
    rule = "-" * len(lines[0][0].expandtabs())
    body = "".join("".join(f"{line}\n" for line in block) + f"{rule}\n" for block in lines)
    return f"Profiler Report\n\n{rule}\n{body}"
