"""What ranks tell one another: which call they make, and small things, in a group of its own.

Every call that all ranks must make begins here with its name. Where the names differ, each rank gets an error that says
who made which call and where, instead of an answer to another question; a rank that waits for one that has gone on
without making the call gets it too.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fulgurite.machine import watchdog
from fulgurite.utilities.exceptions import CollectiveMismatchError

POLL = timedelta(seconds=1)
_TEXT, _SHORT = 320, 256  # bytes for the call in words, and for a message that needs no second exchange
_HEAD = struct.Struct("<16sQH")  # the call's digest, the length of the message, that of the text
_SIZE = _HEAD.size + _TEXT + _SHORT


class Words:
    """The channel of one rank."""

    def __init__(self, rank: int, world_size: int, timeout: timedelta) -> None:
        self.rank, self.world_size = rank, world_size
        self.group = dist.new_group(backend="gloo", timeout=timeout)

    def exchange(self, call: str, message: bytes = b"", sender: int | None = None, detail: str = "") -> list[bytes]:
        """The messages of all ranks, in their order, once all have made the same call; or that of `sender` alone."""
        done = watchdog.batches_done()
        called, line = watchdog.users_call(sys._getframe())
        what = f"{called}(), {call} ({detail})" if detail else f"{called}(), {call}"
        text = f"{what}, at {line}, after {done} training batches".encode()[:_TEXT]
        digest = hashlib.blake2b(f"{call} {done}".encode(), digest_size=16).digest()
        short = message if len(message) <= _SHORT else b""
        head = _HEAD.pack(digest, len(message), len(text)) + text.ljust(_TEXT, b"\0") + short
        with watchdog.waiting(what):
            told = [bytes(row.numpy()) for row in self._gathered(head, _SIZE)]
            heads = [_HEAD.unpack_from(row) for row in told]
            if any(theirs != digest for theirs, _, _ in heads):
                texts = [
                    row[_HEAD.size : _HEAD.size + size].decode(errors="replace")
                    for row, (*_, size) in zip(told, heads, strict=True)
                ]
                raise CollectiveMismatchError(_mismatch(texts))
            lengths = [length for _, length, _ in heads]
            if sender is not None:
                return [self._whole(told[sender], message, lengths[sender], sender)]
            if max(lengths) > _SHORT:
                return [
                    bytes(row[:size].numpy())
                    for row, size in zip(self._gathered(message, max(lengths)), lengths, strict=True)
                ]
        return [row[_HEAD.size + _TEXT :][:size] for row, size in zip(told, lengths, strict=True)]

    def tell(self, call: str, thing: Any, sender: int | None = None, detail: str = "") -> list[Any]:
        """The same of things that can be pickled."""
        told = self.exchange(call, pickle.dumps(thing) if sender in (None, self.rank) else b"", sender, detail)
        return [pickle.loads(message) for message in told]

    def _gathered(self, message: bytes, size: int) -> list[Tensor]:
        mine = torch.frombuffer(bytearray(message.ljust(size, b"\0")), dtype=torch.uint8)
        rows = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._complete(dist.all_gather(rows, mine, group=self.group, async_op=True))
        return rows

    def _whole(self, told: bytes, message: bytes, length: int, sender: int) -> bytes:
        if length <= _SHORT:
            return told[_HEAD.size + _TEXT :][:length]
        whole = (
            torch.frombuffer(bytearray(message), dtype=torch.uint8)
            if sender == self.rank
            else torch.empty(length, dtype=torch.uint8)
        )
        self._complete(dist.broadcast(whole, sender, group=self.group, async_op=True))
        return bytes(whole.numpy())

    def _complete(self, work: Any) -> None:
        """Wait for the other ranks, as long as they can still come."""
        while not _is_over(work):
            if (report := watchdog.gone_on()) is not None:
                raise CollectiveMismatchError(report)
        work.wait()


def _is_over(work: Any) -> bool:
    try:
        work.wait(POLL)
    except RuntimeError:  # the time is up, or the exchange has failed
        return bool(work.is_completed())
    return True


def _mismatch(texts: list[str]) -> str:
    lines = [f"  rank {rank}: {text}" for rank, text in enumerate(texts)]
    return "\n".join(
        ["the ranks have come to different calls, each of which all must make:", *lines, watchdog.ALL_RANKS]
    )
