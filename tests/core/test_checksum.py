"""A file that was changed since it was written is refused, whoever wrote it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fulgurite.core.checksum import MARK, DamagedError, SummedFile, check_file
from fulgurite.core.saving import read_checkpoint, write_checkpoint

CHECKPOINT = {"weights": torch.arange(30.0), "nothing": torch.zeros(0), "epoch": 3, "inner": [{"a": (1, "x")}]}


def ours() -> bytes:
    write_checkpoint(CHECKPOINT, "ours.ckpt")
    return Path("ours.ckpt").read_bytes()


def torchs() -> bytes:
    buffer = io.BytesIO()
    torch.save(CHECKPOINT, buffer)
    return buffer.getvalue()


def is_accepted(data: bytes) -> bool:
    try:
        check_file(io.BytesIO(data))
    except DamagedError:
        return False
    return True


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def passed(data: bytes, step: int = 1) -> Iterator[int]:
    """The bits whose flip is not noticed. Without the first four bytes it is no archive at all: torch refuses it."""
    return (bit for bit in range(32, len(data) * 8, step) if is_accepted(flipped(data, bit)))


@pytest.mark.parametrize("writer", [ours, torchs])
def test_a_flipped_bit_is_noticed_wherever_it_is(writer: Any) -> None:
    data = writer()
    assert is_accepted(data) and not list(passed(data, 11))


@pytest.mark.slow
@pytest.mark.parametrize("writer", [ours, torchs])
def test_every_flipped_bit_is_noticed(writer: Any) -> None:
    assert not list(passed(writer()))


@pytest.mark.parametrize("writer", [ours, torchs])
def test_a_cut_or_a_longer_file_is_noticed(writer: Any) -> None:
    data = writer()
    assert not any(is_accepted(data[:length]) for length in range(4, len(data), 5))
    assert not is_accepted(data + b"\0") and not is_accepted(data[:200] + data[199:]) and not is_accepted(data + data)


@pytest.mark.parametrize("writer", [ours, torchs])
@pytest.mark.parametrize("change", ["flip", "cut", "first byte"])
def test_a_changed_file_is_one_error_that_names_it(writer: Any, change: str) -> None:
    data = writer()
    at = data.index(CHECKPOINT["weights"].numpy().tobytes()) if change == "flip" else 0  # type: ignore[attr-defined]
    Path("a.ckpt").write_bytes(data[:-100] if change == "cut" else flipped(data, at * 8 + 30 if at else 0))
    for weights_only in (True, False):
        with pytest.raises(RuntimeError, match=r"a.ckpt \(\d+ bytes\) cannot be read as a checkpoint: .*damaged"):
            read_checkpoint("a.ckpt", weights_only=weights_only)
        with open("a.ckpt", "rb") as file, pytest.raises(RuntimeError, match="damaged"):
            read_checkpoint(file, weights_only=weights_only)


def test_other_readers_skip_the_sum() -> None:
    data = ours()
    assert data[-len(MARK) - 8 :].startswith(MARK)
    assert torch.equal(torch.load("ours.ckpt", weights_only=True)["weights"], CHECKPOINT["weights"])  # type: ignore[arg-type]
    assert torch.load("ours.ckpt", mmap=True)["epoch"] == 3
    with zipfile.ZipFile("ours.ckpt") as archive:
        assert archive.testzip() is None


def test_a_file_without_sums_is_read() -> None:
    """Before torch 1.6 there were none, `set_crc32_options(False)` leaves them out; other tools pack differently."""
    torch.save(CHECKPOINT, "old.pt", _use_new_zipfile_serialization=False)
    torch.save(CHECKPOINT, "torch.pt")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CHECKPOINT, "unsummed.pt")
        ours()
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile("torch.pt") as archive, zipfile.ZipFile("packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    for name in ("old.pt", "unsummed.pt", "packed.pt"):
        assert torch.equal(read_checkpoint(name)["weights"], CHECKPOINT["weights"]), name  # type: ignore[arg-type]
    assert not list(passed(Path("ours.ckpt").read_bytes(), 101))


def test_the_sum_covers_what_comes_in_pieces_of_any_size() -> None:
    data, whole = torchs(), io.BytesIO()
    for size in (1, 7, 21, 22, 23, 1000):
        written = io.BytesIO()
        summed = SummedFile(written)
        for start in range(0, len(data), size):
            summed.write(memoryview(data)[start : start + size])
        summed.finish()
        whole = written if not whole.getvalue() else whole
        assert written.getvalue() == whole.getvalue() and is_accepted(written.getvalue())
