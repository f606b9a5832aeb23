"""Search for a learning rate or a batch size before training."""

from __future__ import annotations

from fulgurite.tuner.tuning import Tuner

__all__ = ["Tuner"]
