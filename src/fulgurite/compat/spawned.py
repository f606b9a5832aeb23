"""The alias in processes that multiprocessing spawns: these import the script anew, before any of our code runs."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import spawn
from typing import Any

from fulgurite.compat import install_alias


class _AliasFirst:
    """A child unpickles what it is prepared with before it imports the script, and so this gives it the alias."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return install_alias_everywhere, ()


def install_alias_everywhere() -> None:
    """`install_alias`, here, in each process that is spawned from here, and in those that it spawns."""
    install_alias()
    prepare = spawn.get_preparation_data

    def with_alias(name: str) -> dict[str, Any]:
        return {**prepare(name), "fulgurite": _AliasFirst()}

    spawn.get_preparation_data = with_alias
