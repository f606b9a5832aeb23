"""Imports that wait until they are needed, and of what may not be installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any


def package_available(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a parent of `name` is missing
        return False


def import_extra(module: str, user: str, extra: str) -> Any:
    """A module of a package that only `fulgurite[<extra>]` installs; where it is missing, say who needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(f"{user} needs {package}: pip install 'fulgurite[{extra}]'") from error


def on_first_use(
    front: dict[str, Any], home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package that imports each name from its module below when it is first used.

    Example::

        _HOME = {"Callback": "callback"}  # which module each name is in
        __all__ = sorted(_HOME)
        __getattr__, __dir__ = on_first_use(globals(), _HOME)
    """
    package = front["__name__"]

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = front[name] = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        return value

    return find, lambda: front["__all__"]
