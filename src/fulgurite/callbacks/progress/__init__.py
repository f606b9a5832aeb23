"""Progress bars, and which one a run shows when none is asked for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fulgurite.utilities.imports import on_first_use

if TYPE_CHECKING:
    from fulgurite.callbacks.progress.progress_bar import ProgressBar

_HOME = {
    "PlainProgressBar": "plain_progress",
    "ProgressBar": "progress_bar",
    "RichProgressBar": "rich_progress",
    "TQDMProgressBar": "tqdm_progress",
}
__all__ = ["PlainProgressBar", "ProgressBar", "RichProgressBar", "TQDMProgressBar", "default_progress_bar"]
__getattr__, __dir__ = on_first_use(globals(), _HOME)


def default_progress_bar() -> ProgressBar:
    """A live bar on a terminal and in notebooks; elsewhere one plain line every few seconds."""
    from fulgurite.callbacks.progress.plain_progress import PlainProgressBar
    from fulgurite.callbacks.progress.rich_progress import RichProgressBar

    return RichProgressBar() if _is_live() else PlainProgressBar()


def _is_live() -> bool:
    if "ipykernel" in sys.modules or "google.colab" in sys.modules:
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
