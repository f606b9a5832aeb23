"""Evaluation protocols by name: into which sequences rows are cut, and so which history a prediction may use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dkt.data.table import Answers, Ints


@dataclass(frozen=True)
class Protocol:
    """A student's rows in chunks of at most `chunk`: a model begins each without memory; every position is scored."""

    chunk: int

    def sequences(self, answers: Answers) -> tuple[Ints, Ints]:
        """(starts, lengths) of the sequences, as spans of rows; short tails are kept."""
        pieces = -(-answers.lengths // self.chunk)
        first_piece = np.cumsum(pieces) - pieces
        nth = np.arange(int(pieces.sum())) - np.repeat(first_piece, pieces)
        starts = np.repeat(answers.offsets[:-1], pieces) + nth * self.chunk
        ends = np.minimum(starts + self.chunk, np.repeat(answers.offsets[1:], pieces))
        return starts, ends - starts


PROTOCOLS = {"akt": Protocol(chunk=200)}


def protocol_named(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"protocol={name!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
