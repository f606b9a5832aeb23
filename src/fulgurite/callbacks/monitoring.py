"""The errors of callbacks that watch a metric or log what they see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fulgurite.utilities.exceptions import MisconfigurationException


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


def no_logger(who: str) -> MisconfigurationException:
    return MisconfigurationException(f"{who} writes to a logger, and the Trainer has none. Leave out logger=False.")
