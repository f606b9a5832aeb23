"""The marker of callbacks that write checkpoints."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities.exceptions import MisconfigurationException


class Checkpoint(Callback):
    """Base class of callbacks that save: they run last, when everything else of a moment has happened."""

    _monitors = True

    def _names_in_use(self) -> set[str]:
        """The files that this callback writes or keeps, which no other shall have."""
        return set()


def check_name(name: str, argument: str) -> None:
    """Raise where a file of this name, joined to a folder, would not be in it."""
    parts = re.split(r"[\\/]" if os.name == "nt" else "/", name)
    if ".." in parts or PurePath(name).anchor or "\0" in name:
        raise MisconfigurationException(
            f"{argument} gives a file named {name!r}, which would not be in the checkpoint folder. Name the folder in "
            "dirpath; a file name may have folders below it, and no '..', root or null character."
        )
