"""What loggers that write into a folder of their own for each run have in common."""

from __future__ import annotations

from pathlib import Path

from fulgurite.loggers.logger import Logger
from fulgurite.utilities.cloud_io import local_path


class FolderLogger(Logger):
    """Write into `<save_dir>/<name>/version_<n>`, n counting up by itself; a version in words stands as it is."""

    LOGGER_JOIN_CHAR = "-"

    def __init__(self, save_dir: str, name: str | None, version: int | str | None, prefix: str) -> None:
        super().__init__()
        self._save_dir = local_path(save_dir)
        self._name = name or ""
        self._version = version
        self._prefix = prefix

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int | str:
        if self._version is None:
            self._version = next_version(self.root_dir)
        return self._version

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    def root_dir(self) -> str:
        return str(Path(self.save_dir, self.name))

    @property
    def log_dir(self) -> str:
        version = self.version
        return str(Path(self.root_dir, version if isinstance(version, str) else f"version_{version}"))


def next_version(root_dir: str | Path) -> int:
    """The first number after all `version_<n>` folders of an experiment."""
    root = Path(root_dir)
    taken = [folder.name for folder in root.glob("version_*") if folder.is_dir()] if root.is_dir() else []
    numbers = [name.removeprefix("version_") for name in taken]
    return max((int(n) for n in numbers if n.isdigit()), default=-1) + 1
