"""How the 1.x era is spoken of: once, with the line to write today."""

from __future__ import annotations

from fulgurite.utilities.rank_zero import LightningDeprecationWarning, warn_once


def say(what: str, today: str) -> None:
    """Warn that `what` is old, unless that has been said; `today` is the line to write instead."""
    warn_once(f"{what} is of the 1.x era. {today}", LightningDeprecationWarning)
