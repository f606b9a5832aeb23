"""Whose a checkpoint file is: a callback replaces and removes what its own run wrote, and nothing else.

Each file says which life of which callback wrote it: a life is a call of fit. A run that goes on from a checkpoint in
the same folder is a next life, and what the lives before it wrote is its own; a file that was copied there, that
another run wrote or that was replaced is not.
"""

from __future__ import annotations

import pickle
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fulgurite.core.sharded import META
from fulgurite.utilities.cloud_io import RemotePath, entries_of, path_of

SAVED_BY = "saved_by"  # in what a checkpoint holds of ours


class OwnFiles:
    """The lives of a callback, and what it has still to remove."""

    def __init__(self) -> None:
        self._lives = [uuid.uuid4().hex[:12]]
        self.goes_on = False  # a state was taken over, and nothing is written yet
        self.unmarked: set[str] = set()  # ours, by another writer than ours, which leaves no note in them
        self.outdated: list[str] = []  # to be removed as soon as what replaces them is on disk
        self.note: dict[str, Any] | None = None  # what goes into the file that is written now

    def begin(self) -> None:
        """A next life, where a state was taken over."""
        if self.goes_on or not self._lives:
            self._lives.append(uuid.uuid4().hex[:12])
            self.goes_on = False

    def noted(self, **note: Any) -> dict[str, Any]:
        """What to write into a file, so that later lives know it."""
        self.begin()
        return {"life": self._lives[-1], **note}

    def are(self, path: str) -> bool:
        """Whether there is a file that a life of ours wrote."""
        life = saved_by(path).get("life")
        return life in self._lives if life else path in self.unmarked and path_of(path).exists()

    def found(self, folder: Path | RemotePath, depth: int, extension: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The files of ours in the folder, `depth` folders below it, with the notes in them."""
        for path in files_at(folder, depth, extension):
            if not path.is_symlink() and (note := saved_by(path)).get("life") in self._lives:
                yield str(path), note

    def state_dict(self) -> dict[str, Any]:
        return {"lives": list(self._lives), "outdated": list(self.outdated)}

    def load_state_dict(self, state: dict[str, Any], named: set[str]) -> None:
        """Take over what the run before had; `named` are the files of which its state knows."""
        self._lives = list(state.get("lives", ()))
        self.outdated = list(state.get("outdated", ()))
        self.unmarked = set() if "lives" in state else named  # another framework leaves no notes
        self.goes_on = True


def files_at(folder: Path | RemotePath, depth: int, extension: str) -> Iterator[Path | RemotePath]:
    """The files and folders of this extension that lie `depth` folders below."""
    for entry in entries_of(folder):
        if depth:
            yield from files_at(entry, depth - 1, extension)
        elif entry.name.endswith(extension):
            yield entry


def saved_by(path: str | Path | RemotePath) -> dict[str, Any]:
    """The note that a checkpoint holds of who wrote it; nothing where there is none, or no such file."""
    path = path_of(path)
    try:
        path = path / META if path.is_dir() else path
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as content:
                note = _Reader(content).load()["fulgurite"][SAVED_BY]
        return dict(note)
    except Exception:  # no checkpoint of ours: it may be anything
        return {}


class _Inert:
    """Stands for every class in a file, and every object of it: nothing is made, nothing runs."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def __setstate__(self, state: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def append(self, value: Any) -> None: ...
    def extend(self, values: Any) -> None: ...
    def add(self, value: Any) -> None: ...


class _Reader(pickle.Unpickler):
    """Reads the plain data of a checkpoint, without its tensors."""

    def find_class(self, module: str, name: str) -> Any:
        return _Inert

    def persistent_load(self, pid: Any) -> None: ...
