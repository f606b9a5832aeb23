"""Answers on disk as plain arrays that are mapped into memory and not read: for data larger than memory.

A store is a folder of .npy files, one for each array of the table, and `answers.json` with the names of students,
questions and skills. It is written part by part, so that writing needs the memory of one part. Further columns of text
are stored as numbers and are the only ones that opening reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from dkt.data.columns import encode
from dkt.data.table import Answers, DataError, Ints

INDEX = "answers.json"
VERSION = 1
OFFSETS = ("offsets", "skill_offsets")  # they go on counting from part to part
BLOCK = 1 << 22  # values that are renumbered at a time


def is_store(path: Path) -> bool:
    return (path / INDEX).exists()


def write_store(parts: Iterable[Answers], folder: Path, notes: Callable[[], tuple[str, ...]] = tuple) -> Answers:
    """Write tables of different students one after the other as a store, and open it; `notes` is asked at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the store.")
    try:
        _write(parts, folder, notes)
    except BaseException:  # half a store is none, and would be in the way of the next try
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        raise
    return open_store(folder)


def _write(parts: Iterable[Answers], folder: Path, notes: Callable[[], tuple[str, ...]]) -> None:
    students: dict[str, int] = {}
    names = {"question": _Names(), "skill": _Names()}
    columns: dict[str, _Column] = {}
    texts: set[str] = set()  # further columns that are text
    with ExitStack() as opened:
        for part in parts:
            _add_students(students, part)
            arrays = _arrays(part, names)
            now_text = {f"extra.{name}" for name, values in part.extra.items() if values.dtype.kind == "U"}
            if not columns:
                texts = now_text
                for name, values in arrays.items():
                    columns[name] = opened.enter_context(_Column(folder / f"{name}.npy", values.dtype))
                for name in OFFSETS:
                    columns[name].append(np.zeros(1, dtype=np.int64))
            if columns.keys() != arrays.keys():
                odd = sorted(columns.keys() ^ arrays.keys())
                raise DataError(f"{', '.join(odd)} is in some parts of the data and not in others.")
            if texts != now_text:
                odd = sorted(texts ^ now_text)
                raise DataError(
                    f"{', '.join(odd)} is text in some parts of the data and numbers in others; take fewer parts."
                )
            for name, values in arrays.items():
                columns[name].append(values + columns[name].last if name in OFFSETS else values)
    if not students:
        raise DataError(f"there are no answers to write to {folder}.")
    index: dict[str, Any] = {"version": VERSION, "notes": notes(), "students": list(students), "names": {}}
    for name, known in names.items():
        if name in columns:
            index["names"][name] = known.sorted_in(folder / f"{name}.npy")
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def open_store(folder: Path) -> Answers:
    """The table of a store; its arrays are read from disk where and when they are used."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if index["version"] != VERSION:
        raise DataError(f"{folder} is a store of version {index['version']}; this dkt reads version {VERSION}.")
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    names = index["names"]
    extra = {}
    for name, values in arrays.items():
        if name.startswith("extra."):
            extra[name.removeprefix("extra.")] = np.array(names[name])[values] if name in names else values
    return Answers(
        student_names=index["students"],
        offsets=arrays["offsets"],
        answer=arrays["answer"],
        skill_names=names["skill"],
        skill=arrays["skill"],
        skill_offsets=arrays["skill_offsets"],
        question_names=names.get("question", []),
        question=arrays.get("question"),
        time=arrays.get("time"),
        extra=extra,
        notes=tuple(index["notes"]),
    )


def _arrays(part: Answers, names: dict[str, _Names]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a table, with the numbers that names have in the whole store."""
    found: dict[str, npt.NDArray[Any]] = {
        "offsets": part.offsets[1:],
        "answer": part.answer,
        "skill": names["skill"].numbers(part.skill, part.skill_names),
        "skill_offsets": part.skill_offsets[1:],
    }
    if part.question is not None:
        found["question"] = names["question"].numbers(part.question, part.question_names)
    if part.time is not None:
        found["time"] = part.time
    for name, values in part.extra.items():
        extra = f"extra.{name}"
        found[extra] = values
        if values.dtype.kind == "U":
            texts, codes = np.unique(values, return_inverse=True)
            found[extra] = names.setdefault(extra, _Names()).numbers(codes, texts.tolist())
    return found


def _add_students(students: dict[str, int], part: Answers) -> None:
    twice = next((name for name in part.student_names if name in students), None)
    if twice is not None:
        raise DataError(f"student {twice} is in two parts of the data; a student's answers must be in one.")
    students.update((name, len(students) + i) for i, name in enumerate(part.student_names))


@dataclass
class _Names:
    """The numbers of names, given in the order in which they are met."""

    number: dict[str, int] = field(default_factory=dict)

    def numbers(self, codes: Ints, names: list[str]) -> Ints:
        new = np.zeros(len(names), dtype=np.int64)
        for code in np.unique(codes).tolist():
            new[code] = self.number.setdefault(names[code], len(self.number))
        return new[codes]

    def sorted_in(self, path: Path) -> list[str]:
        """Renumber the values of a file so that the names ascend, as in every table; the names."""
        import polars as pl

        names, new = encode(pl.Series(list(self.number), dtype=pl.String))
        values = np.load(path, mmap_mode="r+")
        for start in range(0, len(values), BLOCK):
            values[start : start + BLOCK] = new[values[start : start + BLOCK]]
        values.flush()
        return names


class _Column:
    """A growing .npy file: its header is written again when the number of values is known."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.n = self.last = 0
        self.file: BinaryIO = path.open("wb")
        self._write_header()
        self.begin = self.file.tell()

    def append(self, values: npt.NDArray[Any]) -> None:
        if values.dtype != self.dtype:
            if not self.path.stem.startswith("extra.") or {values.dtype.kind, self.dtype.kind} - set("iuf"):
                raise DataError(
                    f"{self.path.stem} is {values.dtype} in one part of the data and {self.dtype} in an earlier one."
                )
            wider = np.result_type(values.dtype, self.dtype)
            if wider != self.dtype:  # numbers with a gap among them are float64, those before had none
                self._widen(wider)
        np.ascontiguousarray(values, dtype=self.dtype).tofile(self.file)
        self.n += len(values)
        self.last = values[-1]

    def _widen(self, dtype: np.dtype[Any]) -> None:
        narrow, begin, old = self.dtype, self.begin, self.path.with_suffix(".narrow")
        self.file.close()
        self.path.rename(old)
        self.dtype, self.file = dtype, self.path.open("wb")
        self._write_header()
        self.begin = self.file.tell()
        for start in range(0, self.n, BLOCK):
            block = np.fromfile(old, narrow, BLOCK, offset=begin + start * narrow.itemsize)
            block.astype(dtype).tofile(self.file)
        old.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self.begin, "numpy leaves room for the number of values to grow"
        self.file.close()

    def _write_header(self) -> None:
        described = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.n,)}
        np.lib.format.write_array_header_1_0(self.file, described)
