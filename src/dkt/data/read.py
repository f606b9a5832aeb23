"""Read answers from whatever holds them: a file of any known format, a folder, a frame."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dkt.data import datashop
from dkt.data.columns import header_of, read_table
from dkt.data.datashop import is_datashop_header, read_datashop
from dkt.data.ednet import COLUMNS as EDNET_COLUMNS
from dkt.data.ednet import EdNet, is_ednet
from dkt.data.frames import from_frame, is_frame, read_parquet
from dkt.data.layouts import COURSE, LAYOUTS, layout_of_header
from dkt.data.lines import consistent_lines, read_lines
from dkt.data.merge import merge_repeats
from dkt.data.pykt import PYKT, is_pykt_header, is_pykt_text, read_pykt
from dkt.data.store import is_store, open_store, write_store
from dkt.data.table import Answers, DataError

FORMAT_TEXTS = {
    **{name: layout.text for name, layout in LAYOUTS.items()},
    "3line": "records of three lines: number of answers (or index,student) / skills / answers",
    "4line": "records of four lines: index,student / problems / skills / answers",
    "pykt": PYKT.text,
    "datashop": datashop.TEXT,
    "ednet": "folder of EdNet-KT1: KT1/u1.csv, u2.csv, ... and contents/questions.csv",
    "parquet": "Parquet file, or folder of some, with the columns student, question, skills (list), answer, time",
    "store": "folder that `dkt data convert` wrote: arrays which are mapped into memory, for data larger than it",
}
FORMATS = tuple(FORMAT_TEXTS)


def read_answers(
    source: str | Path | Any, format: str | None = None, *, merge: bool | None = None, skills: str | None = None
) -> Answers:
    """The answers of a file, a folder, or a frame of polars or pandas; what was left out or merged is in its `notes`.

    The format is found from the first lines if it is not given. Rows that a format marks as one answer, written once
    for each skill, are merged: `merge=False` keeps them apart, and `merge=True` also merges rows that ask the question
    of the row before where nothing marks them. `skills` names another column to take skills from.
    """
    if is_frame(source):
        answers = from_frame(source)
    else:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
        answers = _read(path, sniff(path) if format is None else format, merge, skills)
    return merge_repeats(answers).answers if merge and answers.question is not None else answers


def _read(path: Path, format: str, merge: bool | None, skills: str | None) -> Answers:
    if format == "datashop":
        return read_datashop(path, skills)
    if format in LAYOUTS:
        layout = LAYOUTS[format]
        return read_table(path, layout if skills is None else replace(layout, skills=skills), merge)
    if skills is not None:
        raise ValueError(f"skills={skills!r} names a column, and {path} of format {format} has no columns to choose.")
    if format in ("3line", "4line"):
        return _with_repeats_noted(read_lines(path, int(format[0])))
    if format == "pykt":
        return read_pykt(path, merge)
    if format == "parquet":
        return read_parquet(path)
    if format == "store":
        return open_store(path)
    if format == "ednet":
        return _read_ednet(path)
    raise ValueError(f"format={format!r} is unknown; choose one of {', '.join(FORMATS)}.")


def sniff(path: Path, look_at: int = 240) -> str:
    """The format of a file or folder, judged by its first lines or its files."""
    if path.is_dir():
        for format, fits in (("store", is_store(path)), ("ednet", is_ednet(path))):
            if fits:
                return format
        if next(path.glob("*.parquet"), None) is not None:
            return "parquet"
        raise IsADirectoryError(
            f"{path} is a directory without EdNet's u1.csv, ..., *.parquet or a store in it; name one file of answers."
        )
    with path.open("rb") as raw:
        begins = raw.read(4)
    if begins == b"PAR1":
        return "parquet"
    if begins.startswith((b"\x1f\x8b", b"PK\x03\x04", b"7z\xbc\xaf")):
        raise DataError(f"{path} is compressed; unpack it, and name a file of what was in it.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.strip() for line, _ in zip(file, range(look_at), strict=False)]
    except UnicodeDecodeError:
        lines = path.read_bytes()[:4096].decode("latin-1").splitlines()[:1]  # free text of other encodings
    if not any(lines):
        raise DataError(f"{path} is empty. {_expected()}")
    header = header_of(path)
    if is_datashop_header(header) or is_datashop_header(header_of(path, "\t")):
        return "datashop"
    if is_pykt_header(header) or is_pykt_text(lines):
        return "pykt"
    known = layout_of_header(header)
    if known is not None:
        return known
    if header == list(EDNET_COLUMNS):
        raise DataError(f"{path} is one student of EdNet-KT1; name the folder that holds KT1/ and contents/.")
    records = [line.rstrip(",") for line in lines]
    good = {size: consistent_lines(records, size) for size in (3, 4)}
    if not any(good.values()):
        raise DataError(f"{path}: the format is not recognised; line 1 is {lines[0][:60]!r}. {_expected()}")
    return "3line" if good[3] > good[4] else "4line"


def _read_ednet(path: Path) -> Answers:
    """The whole folder in memory, by way of a store that is deleted again."""
    source = EdNet(path)
    with tempfile.TemporaryDirectory() as folder:
        mapped = write_store(source, Path(folder), source.notes)
        return mapped.rows(np.ones(len(mapped), dtype=bool))  # copies of the mapped arrays


def _with_repeats_noted(answers: Answers) -> Answers:
    """With a note where rows repeat a question: these formats have no other way to write a problem of two skills."""
    fresh = answers.leak_free
    repeats = 0 if fresh is None else int((~fresh).sum())
    if not repeats:
        return answers
    note = (
        f"{repeats:,} of {len(answers):,} rows ask the question of the row before, as these files do for a problem of "
        "several skills: quote leak-free figures, or merge the rows (merge=True, --merge)"
    )
    return replace(answers, notes=(*answers.notes, note))


def _expected() -> str:
    return (
        f"Expected: a CSV with the columns {','.join(COURSE.needs)}; or records of 3 lines (count / skills / answers); "
        "or records of 4 lines (index,student / problems / skills / answers); or one of the other formats of "
        f"`dkt data --help`: {', '.join(FORMATS)}."
    )
