"""The marker of callbacks that write checkpoints."""

from __future__ import annotations

from fulgurite.callbacks.callback import Callback


class Checkpoint(Callback):
    """Base class of callbacks that save: they run last, when everything else of a moment has happened."""

    _monitors = True
