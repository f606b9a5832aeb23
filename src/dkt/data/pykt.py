"""pyKT's prepared data: `data.txt` with six lines a student, and its CSV files with a sequence of answers in each row.

data.txt                     CSV
student,number               fold,uid,questions,concepts,responses,timestamps,usetimes,selectmasks,is_repeat
questions   or NA            each but the first two a list: "12,15,7"; padded with -1
concepts    or NA; 5_7 is two of them
answers
milliseconds or NA
durations   or NA
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dkt.data.columns import Layout, Lines, Where, answers_of, header_of, read_frame
from dkt.data.table import Answers, DataError, Ints, cumulated

if TYPE_CHECKING:
    import polars as pl

PER_STUDENT = ("questions", "concepts", "responses", "timestamps", "usetimes")
LINES = 1 + len(PER_STUDENT)

PYKT = Layout(
    "pyKT's data.txt (six lines a student) and CSV files (fold,uid,questions,concepts,responses,...); rows marked "
    "is_repeat are merged",
    student="uid",
    answer="responses",
    skills="concepts",
    separator="_",
    order="answer_number",
    one_answer="repeat the row before for another concept (is_repeat)",
)


def is_pykt_header(header: Sequence[str]) -> bool:
    return {"uid", "responses"} <= set(header)


def is_pykt_text(lines: Sequence[str]) -> bool:
    """Whether these first lines are records of six: student,number and then as many values in each line, or NA."""
    if len(lines) < LINES:
        return False
    number = lines[0].split(",")[-1].strip()
    return number.isdigit() and all(line == "NA" or line.count(",") + 1 == int(number) for line in lines[1:LINES])


def read_pykt(path: Path, merge: bool | None = None) -> Answers:
    """The answers of pyKT's `data.txt` or of one of its CSV files, in its order."""
    header = header_of(path)
    return _read_csv(path, header, merge) if is_pykt_header(header) else _read_text(path, merge)


def _read_csv(path: Path, header: Sequence[str], merge: bool | None) -> Answers:
    if "qidxs" in header or "orirow" in header:
        raise DataError(
            f"{path} is one of pyKT's question-level evaluation files, which repeat each history once for every "
            "question. Read train_valid.csv, test.csv or their _sequences.csv instead."
        )
    lists = [name for name in (*PER_STUDENT, "selectmasks", "is_repeat") if name in header]
    layout = Layout("", student="uid", answer="responses", skills=lists[0], extra={n: n for n in (*lists, "fold")})
    frame = read_frame(path, layout if "fold" in header else replace(layout, extra={n: n for n in lists}))
    where = Lines(path)
    cells = {name: frame[name].fill_null("").str.split(",") for name in lists}
    lengths = cells["responses"].list.len().to_numpy()
    for name, cell in cells.items():
        other = cell.list.len().to_numpy()
        for row in np.flatnonzero(other != lengths)[:1].tolist():
            raise DataError(f"{where(row)}: {other[row]} {name} for {lengths[row]} responses; they must be as many.")
    once = {"uid": frame["uid"], **({"fold": frame["fold"]} if "fold" in header else {})}
    return _table({name: cell.explode() for name, cell in cells.items()}, once, lengths, where, merge)


def _read_text(path: Path, merge: bool | None) -> Answers:
    import polars as pl

    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    if len(lines) % LINES:
        raise DataError(f"{path}: {len(lines)} lines, which are no records of {LINES}: is a line missing?")
    headers = [line.rpartition(",") for line in lines[::LINES]]
    for i, (_, _, number) in enumerate(headers):
        if not number.isdigit() or int(number) < 1:
            raise DataError(f"{path}:{i * LINES + 1}: {lines[i * LINES]!r} should be student,number of answers.")
    lengths = np.array([int(number) for _, _, number in headers])
    columns = {}
    for j, name in enumerate(PER_STUDENT, start=1):
        column = lines[j::LINES]
        there = [line != "NA" for line in column]
        if not any(there):
            continue
        for i, line in enumerate(column):
            n = 0 if line == "NA" else line.count(",") + 1
            if n != lengths[i]:
                raise DataError(
                    f"{path}:{i * LINES + j + 1}: {n} {name} where line {i * LINES + 1} announces {lengths[i]}."
                )
        columns[name] = pl.Series(",".join(column).split(","))
    once = {"uid": pl.Series([student for student, _, _ in headers])}
    return _table(columns, once, lengths, _Records(path), merge)


def _table(
    columns: Mapping[str, pl.Series], once: Mapping[str, pl.Series], lengths: Ints, where: Where, merge: bool | None
) -> Answers:
    """Columns of all sequences in turn, and those with one value a sequence, as a table."""
    import polars as pl

    record = np.repeat(np.arange(len(lengths)), lengths)
    frame = pl.DataFrame({**columns, **{name: cells.gather(record) for name, cells in once.items()}})
    # In the files of sliding windows all but the last position were in an earlier window.
    real = frame["selectmasks"] == "1" if "selectmasks" in columns else frame["responses"] != "-1"
    rows = np.flatnonzero(real.fill_null(False).to_numpy())
    frame = frame[rows]
    is_new = (frame["is_repeat"] != "1").to_numpy() if "is_repeat" in columns else np.ones(len(frame), dtype=bool)
    frame = frame.with_columns(pl.Series("answer_number", np.cumsum(is_new)))
    layout = PYKT
    notes: tuple[str, ...] = ()
    if "questions" in columns:
        layout = replace(layout, question=("questions",))
    if "concepts" not in columns:
        layout, notes = replace(layout, skills="questions"), ("no concepts: each question is its own skill",)
    if "timestamps" in columns:
        layout = replace(layout, time="timestamps", seconds_per_unit=1e-3)
    if "usetimes" in columns:
        layout = replace(layout, elapsed=("usetimes", 1e-3))
    if "fold" in once:
        layout = replace(layout, extra={"fold": "fold"})
    place = _Place(where, record[rows], (rows - cumulated(lengths)[record[rows]]) + 1)
    table = answers_of(frame, layout, place, merge)
    return replace(table, notes=(*notes, *table.notes))


@dataclass(frozen=True)
class _Records:
    """Where a student of `data.txt` stands."""

    path: Path

    def __call__(self, record: int) -> str:
        return f"{self.path}:{record * LINES + 1}"


@dataclass(frozen=True)
class _Place:
    """Where an answer of a sequence stands: the line of the sequence, and the position in it."""

    line: Where
    record: Ints
    position: Ints

    def __call__(self, row: int) -> str:
        return f"{self.line(int(self.record[row]))}: position {self.position[row]}"
