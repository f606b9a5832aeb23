"""The old things' room: names of the 1.x era, Lightning's deep paths, and its checkpoints' shapes."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import Any


class _DeepPaths:
    """Below `fulgurite.`, the paths that Lightning has and we have no file for; asked when all others have passed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith("fulgurite."):
            return None
        spec: ModuleSpec | None = importlib.import_module("fulgurite.compat.aliases").find(name)
        return spec


sys.meta_path.append(_DeepPaths)


def install_alias() -> None:
    """From here on `import lightning`, `lightning.pytorch` and `pytorch_lightning` give fulgurite, in this process.

    Call it before anything imports one of them; `python -m fulgurite run script.py` does.
    """
    importlib.import_module("fulgurite.compat.aliases").install()
