"""Evaluation protocols by name: into which sequences rows are cut, and which of their positions are scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dkt.data.table import Answers, Bools, DataError, Ints


@dataclass(frozen=True)
class Protocol:
    """A student's rows in chunks of at most `chunk`, each begun without memory; `scores` says which rows count.

    `scores` is "all", "after the first" (of a chunk), "last" (of a student) or "leak-free".
    """

    text: str
    chunk: int = 200
    scores: str = "all"

    def sequences(self, answers: Answers) -> tuple[Ints, Ints]:
        """(starts, lengths) of the sequences, as spans of rows; short tails are kept."""
        if self.scores == "last":  # the chunk that ends with the last row
            lengths = np.minimum(answers.lengths, self.chunk)
            return answers.offsets[1:] - lengths, lengths
        pieces = -(-answers.lengths // self.chunk)
        first_piece = np.cumsum(pieces) - pieces
        nth = np.arange(int(pieces.sum())) - np.repeat(first_piece, pieces)
        starts = np.repeat(answers.offsets[:-1], pieces) + nth * self.chunk
        ends = np.minimum(starts + self.chunk, np.repeat(answers.offsets[1:], pieces))
        return starts, ends - starts

    def scored(self, answers: Answers) -> Bools:
        """[rows] which predictions the protocol's figures are made of."""
        if self.scores == "leak-free":
            if answers.leak_free is None:
                raise DataError("protocol leakfree needs question ids, to see which rows repeat the row before.")
            return answers.leak_free
        keep = np.full(len(answers), self.scores != "last")
        if self.scores == "last":
            keep[answers.offsets[1:] - 1] = True
        if self.scores == "after the first":
            keep[self.sequences(answers)[0]] = False
        return keep


PROTOCOLS = {
    "akt": Protocol("chunks of 200 answers, every position scored"),
    "dkvmn": Protocol("the same chunks and positions; its source counts them so too"),
    "pykt": Protocol("chunks of 200 answers, their first position not scored", scores="after the first"),
    "last": Protocol("the last answer of each student only, as in the course", scores="last"),
    "leakfree": Protocol("chunks of 200, rows that ask the question of the row before not scored", scores="leak-free"),
}


def protocol_named(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"protocol={name!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
