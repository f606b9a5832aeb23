"""The base class of profilers."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from fulgurite.utilities.rank_zero import rank_zero_info


class Profiler(ABC):
    """Measure named actions; `summary` says what was measured.

    Example::

        class Counter(Profiler):
            def __init__(self):
                super().__init__()
                self.counts = collections.Counter()

            def start(self, action_name):
                self.counts[action_name] += 1

            def stop(self, action_name): ...

            def summary(self):
                return str(self.counts)
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None) -> None:
        self.dirpath = dirpath
        self.filename = filename
        self._local_rank: int | None = None
        self._stage: str | None = None
        self._written: set[str] = set()  # a file is begun anew once, then added to

    @abstractmethod
    def start(self, action_name: str) -> None:
        """An action begins."""

    @abstractmethod
    def stop(self, action_name: str) -> None:
        """An action ends."""

    def summary(self) -> str:
        """The report as text; empty where there is nothing to say."""
        return ""

    @contextlib.contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        """Measure what happens inside.

        Example::

            with self.trainer.profiler.profile("load data"):
                ...
        """
        self.start(action_name)
        try:
            yield action_name
        finally:
            self.stop(action_name)

    @property
    def local_rank(self) -> int:
        return self._local_rank or 0

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """A call of fit, validate, test or predict begins."""
        self._stage, self._local_rank = stage, local_rank
        if self.dirpath is None:
            self.dirpath = log_dir

    def describe(self) -> None:
        """Write the report: into `<stage>-<filename>.txt` where a file name is given, else as a log message."""
        text = self.summary()
        if not text:
            return
        text = f"{self._stage.upper()} {text}" if self._stage else text
        folder = self._folder()
        if folder is None or self.filename is None:
            rank_zero_info(text)
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._prepare_filename()
        with path.open("a" if str(path) in self._written else "w") as file:
            file.write(text)
        self._written.add(str(path))

    def teardown(self, stage: str | None) -> None:  # noqa: B027  # for those who can
        """A call of fit, validate, test or predict ends."""

    def _folder(self) -> Path | None:
        return None if self.dirpath is None else Path(self.dirpath)

    def _prepare_filename(self, action_name: str | None = None, extension: str = ".txt") -> str:
        """`<stage>-<filename>-<action>-<rank>`, as far as they are known."""
        parts = [self._stage, self.filename, action_name, self._local_rank]
        name = "-".join(str(part) for part in parts if part not in (None, ""))
        return re.sub(r"""[<>:"/\\|?*\x00-\x1f]""", "_", name) + extension  # what every system takes


def never_started(action_name: str) -> ValueError:
    return ValueError(f"Attempting to stop recording an action ({action_name}) which was never started.")
