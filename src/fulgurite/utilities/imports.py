"""Is an optional package there?"""

from __future__ import annotations

from importlib.util import find_spec


def package_available(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a parent of `name` is missing
        return False
