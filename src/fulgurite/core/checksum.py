"""Check sums of checkpoint files: what was changed since it was written, by a disk or a copy, is not read.

A file of ours ends with a sum over all of it, in the archive's comment, which other readers skip. Any other archive of
torch holds a sum of each part; of it the parts are checked, and that nothing stands between them.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import IO, Any, NamedTuple

MARK = b"fulgurite crc32 "  # eight hexadecimal digits follow, and end the file
_END_SIZE = 22  # of an archive's last record, before the comment
_CHUNK = 1 << 20
_PADDING = 0x4246  # what torch puts before a part, so that it begins at a round place


class DamagedError(ValueError):
    """What stands in a file is not what was written."""


class SummedFile:
    """An open file for `torch.save` that ends, once finished, with the sum of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum, self._held = file, 0, b""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if view.nbytes < _END_SIZE:
            kept = self._held + bytes(view)
            self._out(kept[:-_END_SIZE])
            self._held = kept[-_END_SIZE:]
        else:
            self._out(self._held)
            self._out(view[:-_END_SIZE])
            self._held = bytes(view[-_END_SIZE:])
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> None:
        """Write the sum; the archive's end says how long its comment is."""
        self._out(self._held[:-2] + struct.pack("<H", len(MARK) + 8) + MARK)
        self._file.write(b"%08x" % self._sum)

    def _out(self, data: bytes | memoryview) -> None:
        self._sum = zlib.crc32(data, self._sum)
        self._file.write(data)


def check_file(file: IO[bytes]) -> None:
    """Raise DamagedError where a file that can be checked was changed; it is read once, in small parts.

    Files older than torch 1.6 hold no sums, nor do those written after `set_crc32_options(False)`.
    """
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - len(MARK) - 8))
    end = file.read()
    if end.startswith(MARK):
        if b"%08x" % _sum_of(file, 0, size - 8) != end[len(MARK) :]:
            raise DamagedError("its check sum does not fit: a disk or a copy has changed it")
    elif is_archive(file):
        try:
            _check_archive(file, size)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise DamagedError(f"its parts do not fit together: {error}") from error
    file.seek(0)


def is_archive(file: IO[bytes]) -> bool:
    """Whether it is a zip archive, as torch writes them since 1.6."""
    return _at(file, 0, 4) == b"PK\3\4"


def _at(file: IO[bytes], offset: int, length: int) -> bytes:
    if not 0 <= offset < 1 << 62:
        raise DamagedError("it is cut, or its end is damaged")
    file.seek(offset)
    return file.read(length)


def _sum_of(file: IO[bytes], start: int, length: int, deflated: bool = False) -> int:
    file.seek(start)
    unpack = zlib.decompressobj(-15).decompress if deflated else bytes
    crc = 0
    while length > 0 and (data := file.read(min(_CHUNK, length))):
        crc, length = zlib.crc32(unpack(data), crc), length - len(data)
    return crc


class _Part(NamedTuple):
    """An entry of the archive's directory."""

    made: int
    fixed: tuple[int, ...]  # version, flags, method, time, date: they stand before the part, too
    crc: int
    packed: int
    size: int
    attributes: tuple[int, ...]
    offset: int
    name: bytes


def _check_archive(file: IO[bytes], size: int) -> None:
    parts = _directory(file, size)
    if len({part.name for part in parts}) != len(parts):
        raise DamagedError("two of its parts have one name")
    summed, position, kinds = any(part.crc for part in parts), 0, set()
    for part in sorted(parts, key=lambda part: part.offset):
        if part.offset != position:
            raise DamagedError(f"something stands before its part {part.name.decode()}")
        position, extra = _check_part(file, part, summed)
        kinds.add((part.made, part.fixed[0], part.attributes, extra))
    if len(kinds) > 1:  # a program writes all alike; this is where no sum reaches
        raise DamagedError("its parts were written by different programs")
    if parts and position != _directory_place(file, size)[0]:
        raise DamagedError("something stands before its directory")


def _directory_place(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Where the directory begins, its length and how many entries it has; the end of the file is as it must be."""
    end = _at(file, size - _END_SIZE, _END_SIZE)
    count, length, start = struct.unpack("<10xHLL2x", end)
    locator = _at(file, size - _END_SIZE - 20, 20)
    expected = b""
    if locator.startswith(b"PK\6\7"):
        where = struct.unpack("<8xQ4x", locator)[0]
        large = _at(file, where, 56)
        made, count, length, start = struct.unpack("<12xH18xQQQ", large)
        if made not in (0x31E, 45):
            raise DamagedError("its end is damaged")
        expected = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, made, 45, 0, 0, count, count, length, start)
        expected += struct.pack("<4sLQL", b"PK\6\7", 0, where, 1)
    few, short, near = min(count, 0xFFFF), min(length, 0xFFFFFFFF), min(start, 0xFFFFFFFF)
    expected += struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, few, few, short, near, 0)
    if _at(file, start + length, len(expected) + 1) != expected:
        raise DamagedError("it is cut, or its end is damaged")
    return start, length, count


def _directory(file: IO[bytes], size: int) -> list[_Part]:
    start, length, count = _directory_place(file, size)
    raw, parts, position = _at(file, start, length), [], 0
    for _ in range(count):
        signature, made, *fixed = struct.unpack_from("<4sHHHHHH", raw, position)
        crc, *sizes, name, extra, comment, disk, inner, outer, offset = struct.unpack_from(
            "<LLLHHHHHLL", raw, position + 16
        )
        if signature != b"PK\1\2" or comment:
            raise DamagedError("its directory is damaged")
        position += 46
        own, more = raw[position : position + name], dict(_extras(raw[position + name : position + name + extra]))
        position += name + extra
        large = list(struct.unpack(f"<{len(more.get(1, b'')) // 8}Q", more.get(1, b"")))
        usual = [sizes[1], sizes[0], offset]
        whole, packed, offset = (large.pop(0) if value == 0xFFFFFFFF and large else value for value in usual)
        if large or more.keys() - {1}:
            raise DamagedError("its directory is damaged")
        parts.append(_Part(made, tuple(fixed), crc, packed, whole, (disk, inner, outer), offset, own))
    if position != length:
        raise DamagedError("its directory is damaged")
    return parts


def _extras(raw: bytes) -> list[tuple[int, bytes]]:
    found, position = [], 0
    while position < len(raw):
        kind, length = struct.unpack_from("<HH", raw, position)
        found.append((kind, raw[position + 4 : position + 4 + length]))
        position += 4 + length
    if position != len(raw):
        raise DamagedError("what stands before one of its parts is damaged")
    return found


def _check_part(file: IO[bytes], part: _Part, summed: bool) -> tuple[int, frozenset[int]]:
    """Where a part ends, and what kinds of further notes stand before it."""
    name = part.name.decode()
    signature, *fixed, crc, packed, size, length, extra = struct.unpack("<4sHHHHHLLLHH", _at(file, part.offset, 30))
    own = file.read(length)
    notes = _extras(file.read(extra))
    known = (part.crc, min(part.packed, 0xFFFFFFFF), min(part.size, 0xFFFFFFFF))
    follows = bool(part.fixed[1] & 8)  # sum and sizes stand after the part
    if (signature, tuple(fixed), own) != (b"PK\3\4", part.fixed, part.name) or (crc, packed, size) not in (
        known,
        (0, 0, 0) if follows else known,
    ):
        raise DamagedError(f"what stands before its part {name} does not fit")
    if any(kind == _PADDING and content.strip(b"Z") for kind, content in notes):
        raise DamagedError(f"what stands before its part {name} is damaged")
    start = part.offset + 30 + length + extra
    if part.fixed[2] not in (0, 8) or (part.fixed[2] == 0 and part.packed != part.size):
        raise DamagedError(f"its part {name} is damaged")
    if summed and _sum_of(file, start, part.packed, deflated=part.fixed[2] == 8) != part.crc:
        raise DamagedError(f"the check sum of its part {name} does not fit")
    end = start + part.packed
    if follows:
        short = struct.pack("<4sLLL", b"PK\7\10", *known)
        large = struct.pack("<4sLQQ", b"PK\7\10", part.crc, part.packed, part.size)
        after = _at(file, end, len(large))
        if not after.startswith(short) and after != large:
            raise DamagedError(f"what stands after its part {name} does not fit")
        end += len(large) if after == large else len(short)
    return end, frozenset(kind for kind, _ in notes if kind != 1)
