"""What loggers that write into a folder of their own for each run have in common."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from fulgurite.loggers.logger import Logger
from fulgurite.utilities.cloud_io import is_remote, location, path_of
from fulgurite.utilities.rank_zero import rank_zero_only, rank_zero_warn

_VERSION = re.compile(r"version_(\d+)(-[0-9a-f]{8})?")


class FolderLogger(Logger):
    """Write into `<save_dir>/<name>/version_<n>`, n counting up by itself; a version in words stands as it is.

    The number is found when it is asked for, and the folder made, exclusively, when a run begins or something is
    logged: two runs started together get two. A version that was given is shared with whoever has it. Where a folder
    cannot be made exclusively, as in a bucket, the name is a unique one, `version_<n>-<8 hex digits>`.
    """

    LOGGER_JOIN_CHAR = "-"
    NAME_HPARAMS_FILE = "hparams.yaml"

    def __init__(
        self, save_dir: str | os.PathLike[str], name: str | None, version: int | str | None, prefix: str
    ) -> None:
        super().__init__()
        self._save_dir = location(os.fspath(save_dir))
        self._name = name or ""
        self._version = version
        self._found: int | None = None  # a number that was free when somebody asked; its folder is not made yet
        self._prefix = prefix
        self._hparams_are_ours = False  # else the file that is there is of another run, and stays

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> int | str:
        if self._version is None:
            number = next_version(self.root_dir)
            if is_remote(self.root_dir) and not self.root_dir.startswith("memory:"):  # others may write there
                self._version = f"version_{number}-{uuid.uuid4().hex[:8]}"
            else:
                self._version = self._found = number
        return self._version

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    def root_dir(self) -> str:
        return str(path_of(self.save_dir) / self.name)

    @property
    def log_dir(self) -> str:
        return self._version_dir

    @property
    def _version_dir(self) -> str:
        version = self.version
        return str(path_of(self.root_dir) / (version if isinstance(version, str) else f"version_{version}"))

    @rank_zero_only
    def take_version(self) -> None:
        """Make the folder, with a file of hyper-parameters, be it an empty one; where nobody gave a version, alone."""
        asked_before = self._version is not None
        told = self._version_dir
        if self._found is not None and self._found == self._version and self.log_dir.startswith(told):
            while not self._take(may_exist=asked_before and told == self._version_dir):
                self._found = self._version = max(next_version(self.root_dir), self._found + 1)
        else:  # given, or a subclass says where
            self._take(may_exist=True)
        self._found = None
        if asked_before and told != self._version_dir:
            rank_zero_warn(
                f"{told}, which this logger named when it was asked, was then taken by another run: this one logs into "
                f"{self._version_dir}. Ask for the folder after the run has begun, in setup() or later."
            )

    def _take(self, may_exist: bool) -> bool:
        """Whether the folder is ours now; whoever was told its name may have made it, hparams.yaml says who has it."""
        folder, hparams = path_of(self._version_dir), path_of(self.log_dir) / self.NAME_HPARAMS_FILE
        try:
            if not may_exist:
                folder.mkdir(parents=True)
            hparams.parent.mkdir(parents=True, exist_ok=True)
            if is_remote(hparams) and hparams.exists():
                return False
            with hparams.open("wb" if is_remote(hparams) else "xb") as file:
                file.write(b"{}\n")
        except FileExistsError:
            return False
        except OSError as error:
            raise OSError(
                error.errno,
                f"{type(self).__name__} cannot write there ({error.strerror}). Give it another save_dir; here is",
                str(hparams.parent),
            ) from error
        self._hparams_are_ours = True
        return True


def next_version(root_dir: str | Path) -> int:
    """The first number after all `version_<n>` folders of an experiment."""
    root = path_of(root_dir)
    folders = [folder for folder in root.iterdir() if _VERSION.fullmatch(folder.name)] if root.is_dir() else []
    return max((int(folder.name.split("_")[1].split("-")[0]) for folder in folders if folder.is_dir()), default=-1) + 1
