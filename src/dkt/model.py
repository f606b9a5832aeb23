"""The course's `dkt.model`: its models under its path."""

from __future__ import annotations

from dkt.models.course import BERT, LSTM, LSTMATTN, ModelBase

__all__ = ["BERT", "LSTM", "LSTMATTN", "ModelBase"]
