"""What callbacks that watch a metric share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def not_logged(who: str, name: str, logged: Iterable[str]) -> str:
    """The message for a metric that nobody has logged: the names that are there, the likely one first."""
    known = sorted(logged)
    likely = difflib.get_close_matches(name, known, n=1)
    return (
        f"{who}: no metric {name!r} has been logged. "
        + (f"Did you mean {likely[0]!r}? " if likely else "")
        + (f"Logged so far: {', '.join(known)}. " if known else "Nothing has been logged so far. ")
        + f"Log it in the module, e.g. self.log({name!r}, value)."
    )
