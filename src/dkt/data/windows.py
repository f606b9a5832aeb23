"""Sliding windows: one long history as many short ones, each of which ends somewhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dkt.data.table import Ints


@dataclass(frozen=True)
class Windows:
    """Windows of `length` answers, one every `stride` of them; the last one ends with the history."""

    length: int
    stride: int

    def __post_init__(self) -> None:
        for name, value in (("length", self.length), ("stride", self.stride)):
            if value < 1:
                raise ValueError(f"the {name} of windows, {value}, must be at least 1; write them as LENGTH:STRIDE.")
        if self.stride > self.length:
            raise ValueError(f"windows {self} would skip answers; the stride may be at most the length.")

    @classmethod
    def of(cls, text: str) -> Windows:
        """`20:10`: 20 answers each, a new one every 10."""
        length, colon, stride = text.partition(":")
        if not (colon and length.isdigit() and stride.isdigit()):
            raise ValueError(f"windows {text!r} are written LENGTH:STRIDE, like 20:10.")
        return cls(int(length), int(stride))

    def __str__(self) -> str:
        return f"{self.length}:{self.stride}"

    def cut(self, offsets: Ints) -> tuple[Ints, Ints]:
        """(starts, lengths) of the windows of histories that lie at `offsets[i]:offsets[i + 1]`."""
        long = np.diff(offsets)
        count = 1 + -(-np.maximum(long - self.length, 0) // self.stride)
        first = np.cumsum(count) - count
        from_last = np.repeat(first + count, count) - 1 - np.arange(int(count.sum()))
        begin, end = np.repeat(offsets[:-1], count), np.repeat(offsets[1:], count) - from_last * self.stride
        starts = np.maximum(begin, end - self.length)
        return starts, end - starts
