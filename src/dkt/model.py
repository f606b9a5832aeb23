"""The course's `dkt.model`: its models under its path."""

from __future__ import annotations

from dkt.models.course import BERT, LSTM, LSTMATTN, ModelBase

Bert = BERT  # its name in the edition of 2021

__all__ = ["BERT", "LSTM", "LSTMATTN", "Bert", "ModelBase"]
