"""From one answer a line to the tidy table: a `Layout` says which column means what, and what may be missing.

Cells are read as text and converted here, so that one which breaks the format can be named with its line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dkt.data.merge import merge_where
from dkt.data.table import TO_PREDICT, Answers, DataError, Ints, cumulated, distinct_sets, encode_numbers

if TYPE_CHECKING:
    import polars as pl

# The first is four times as fast to read as the second, which also takes it.
TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%.f", "%Y/%m/%d %H:%M", "%m/%d/%y %H:%M")
Where = Callable[[int], str]  # where a row stands in its source, for messages


class NoAnswers(DataError):
    """Every row was left out."""


@dataclass(frozen=True)
class Layout:
    """What the columns of a format mean; the defaults are a format in which every cell must be there."""

    text: str  # one line for --help
    student: str
    answer: str
    skills: str
    question: tuple[str, ...] = ()  # several columns: together they name it
    time: str | None = None
    seconds_per_unit: float | None = None  # of a numeric time; None: a date
    order: str | None = None  # whole numbers that say in which order a student answered; else the time does
    separator: str | None = None  # between the skills of one cell
    words: Mapping[str, float] | None = None  # what an answer is called, in lower case; None: numbers
    asks: str | None = None  # the cell that stands for an answer to be predicted
    partial_credit: bool = False  # has answers between 0 and 1: no answer to a yes-or-no question, left out
    skill_missing: bool = False  # has rows without a skill: left out
    attempt: str | None = None  # only rows where this column is 1, and the answer is one of the words, are answers
    one_answer: str = ""  # rows with the same `order` are one answer, written once for each skill: they "..."
    elapsed: tuple[str, float] | None = None  # column kept where it is there, and the seconds of one unit of it
    extra: Mapping[str, str] = field(default_factory=dict)  # further columns: our name -> theirs
    keep_further: bool = False  # columns not named here are kept under their own names
    delimiter: str = ","
    lossy: bool = False  # has free text in some other encoding than UTF-8

    @property
    def needs(self) -> list[str]:
        """The columns that must be there."""
        named = (self.student, *self.question, self.answer, self.skills, self.time, self.order, self.attempt)
        return list(dict.fromkeys(name for name in (*named, *self.extra.values()) if name is not None))


def read_table(path: Path, layout: Layout, merge: bool | None = None) -> Answers:
    """The answers of a delimited file, students in ascending order of id, each student's rows in the order of time."""
    return answers_of(read_frame(path, layout), layout, Lines(path, layout.delimiter), merge)


def read_frame(path: Path, layout: Layout) -> pl.DataFrame:
    """The columns of a layout as text."""
    import polars as pl

    wanted = wanted_columns(path, layout)
    how = csv_options(layout)
    try:
        if len(wanted) < len(header_of(path, layout.delimiter)):
            check_fields(path, layout)
        frame: pl.DataFrame = pl.read_csv(path, columns=wanted, **how)
    except pl.exceptions.PolarsError as error:
        raise torn(path, layout.delimiter, error) from error
    while len(frame) and all(cell is None for cell in frame.row(-1)):  # empty lines at the end
        frame = frame[:-1]
    if frame.is_empty():
        raise DataError(f"{path} has a header and no answers.")
    return frame


def check_fields(path: Path, layout: Layout) -> None:
    """Raise polars' error if a line has more fields than the header, which reading only some columns does not see."""
    import polars as pl

    pl.scan_csv(path, **csv_options(layout)).select(pl.all().null_count()).collect(engine="streaming")


def wanted_columns(path: Path, layout: Layout) -> list[int]:
    """The positions of the columns that a layout keeps; raises if one that it needs is missing."""
    header = header_of(path, layout.delimiter)
    absent = [name for name in layout.needs if name not in header]
    if absent:
        raise DataError(
            f"{path}: column {', '.join(absent)} is missing; the file has {', '.join(header)}. "
            f"This format has {','.join(layout.needs)}."
        )
    twice = [name for name in layout.needs if header.count(name) > 1 and name != layout.skills]
    if twice:
        raise DataError(f"{path}: there are {header.count(twice[0])} columns {twice[0]}; rename all but one of them.")
    kept = {*layout.needs, layout.elapsed[0] if layout.elapsed else None}
    return [i for i, name in enumerate(header) if layout.keep_further or name in kept]


def csv_options(layout: Layout) -> dict[str, Any]:
    """How polars reads a file of this layout: as text, so that a cell which is no number can be named."""
    return {
        "separator": layout.delimiter,
        "infer_schema": False,
        "encoding": "utf8-lossy" if layout.lossy else "utf8",
        "quote_char": None if layout.delimiter == "\t" else '"',
    }


def header_of(path: Path, delimiter: str = ",") -> list[str]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return next(_records(file, delimiter), [])


@dataclass(frozen=True)
class Lines:
    """Where a row of a delimited file stands: not always the same line, as quoted cells may hold line breaks."""

    path: Path
    delimiter: str = ","

    def __call__(self, row: int) -> str:
        with self.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = _records(file, self.delimiter)
            header = next(reader)
            fields = next(fields for i, fields in enumerate(reader) if i == row)
            where = f"{self.path}:{reader.line_num}"
        if len(fields) != len(header):
            raise DataError(_wrong_number(where, fields, header))
        return where


def answers_of(frame: pl.DataFrame, layout: Layout, where: Where, merge: bool | None = None) -> Answers:
    """The tidy table of a frame with a layout's columns; `merge=False` keeps rows apart that are one answer."""
    import polars as pl

    if frame.is_empty():
        raise NoAnswers("there are no rows, so no answers.")
    answer = _answers(frame[layout.answer], layout)
    time = None if layout.time is None else _milliseconds(frame[layout.time], layout)
    frame, answer, time, notes = _without_what_is_no_answer(frame, answer, time, layout, where)
    student_names, student = encode(frame[layout.student])
    skill_names, skill, skill_offsets = encode_sets(frame[layout.skills], layout.separator)
    question = None
    question_names: list[str] = []
    if layout.question:
        parts = [pl.col(name).cast(pl.String) for name in layout.question]
        one = len(parts) == 1
        cells = frame[layout.question[0]] if one else frame.select(pl.concat_str(parts, separator="/")).to_series()
        question_names, question = encode(cells)
    order = None if layout.order is None else frame[layout.order].cast(pl.Int64).to_numpy()
    milliseconds = None if time is None else time.to_numpy()
    extra = {name: _typed(frame[column]) for name, column in layout.extra.items()}
    if layout.elapsed and layout.elapsed[0] in frame.columns:
        column, unit = layout.elapsed
        extra["elapsed"] = (frame[column].cast(pl.Float64, strict=False) * unit).cast(pl.Float32).to_numpy()
    if layout.keep_further:
        extra |= {name: _typed(frame[name]) for name in frame.columns if name not in layout.needs}
    table = Answers(
        student_names=student_names,
        offsets=cumulated(np.bincount(student, minlength=len(student_names))),
        answer=answer.to_numpy().astype(np.int8),
        skill_names=skill_names,
        skill=skill,
        skill_offsets=skill_offsets,
        question_names=question_names,
        question=question,
        time=None if milliseconds is None else milliseconds // 1000,
        extra=extra,
        notes=notes,
    )
    moment = milliseconds if order is None else order
    sorting = _sorting([student] if moment is None else [student, moment])
    if sorting is not None:
        table = table.in_order(sorting)
        order = None if order is None else order[sorting]
    if layout.one_answer and order is not None and merge is not False:
        first = np.ones(len(table), dtype=bool)
        first[1:] = order[1:] != order[:-1]
        first[table.offsets[:-1]] = True
        table = merge_where(table, first, layout.one_answer).answers
    return table


def encode(ids: pl.Series) -> tuple[list[str], Ints]:
    """Ids as (names in ascending order, positions); in the order of numbers where all of them are whole numbers."""
    import polars as pl

    if ids.dtype.is_float() and (ids == ids.round()).all():
        ids = ids.cast(pl.Int64)  # whole numbers that a frame with gaps made floats
    if ids.dtype.is_integer():
        return encode_numbers(ids.to_numpy().astype(np.int64))
    ids = ids.cast(pl.String)
    names = ids.unique()
    numbers = names.cast(pl.Int64, strict=False)
    are_numbers = not numbers.null_count() and (numbers.cast(pl.String) == names).all()  # 007 is not 7
    names = names.gather(numbers.arg_sort()) if are_numbers else names.sort()
    return names.to_list(), ids.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)


def encode_sets(cells: pl.Series, separator: str | None) -> tuple[list[str], Ints, Ints]:
    """Cells of one or several ids each as (names, positions, offsets of the cells); no cell holds an id twice."""
    import polars as pl

    if cells.dtype == pl.List:
        lists = cells
    else:
        several = separator is not None and cells.dtype == pl.String and _contains(cells, separator).any()
        if not several or separator is None:
            names, code = encode(cells)
            return names, code, np.arange(len(code) + 1, dtype=np.int64)
        lists = cells.str.split(separator).list.eval(pl.element().str.strip_chars())
    names, code = encode(lists.explode())
    return names, *distinct_sets(code, cumulated(lists.list.len().to_numpy()), len(names))


def _without_what_is_no_answer(
    frame: pl.DataFrame, answer: pl.Series, time: pl.Series | None, layout: Layout, where: Where
) -> tuple[pl.DataFrame, pl.Series, pl.Series | None, tuple[str, ...]]:
    """Leave out, and count, the rows that a format is known to hold beside answers; raise if another cell is broken."""
    import polars as pl

    left_out: dict[str, pl.Series] = {}
    if layout.attempt is not None:
        is_first = (frame[layout.attempt].cast(pl.String) == "1").fill_null(False)
        left_out["are no first attempt with an outcome"] = ~is_first | answer.is_null()
    if layout.skill_missing:
        left_out["have no skill"] = _empty(frame[layout.skills])
    if layout.partial_credit:
        left_out["have an answer between right and wrong"] = ((answer > 0) & (answer < 1)).fill_null(False)
    kept = pl.repeat(True, len(frame), dtype=pl.Boolean, eager=True)
    notes = []
    for what, rows in left_out.items():
        n = int((rows & kept).sum())
        kept &= ~rows
        if n:
            notes.append(f"{n:,} of {len(frame):,} rows {what} and were left out")
    _check(frame, answer, time, layout, kept, where)
    if notes:
        frame, answer, time = frame.filter(kept), answer.filter(kept), None if time is None else time.filter(kept)
    if frame.is_empty():
        raise NoAnswers(f"no answers are left: {'; '.join(notes)}.")
    return frame, answer, time, tuple(notes)


def _check(
    frame: pl.DataFrame, answer: pl.Series, time: pl.Series | None, layout: Layout, kept: pl.Series, where: Where
) -> None:
    """Raise for the first row with a cell that breaks the format."""
    import polars as pl

    asks = layout.asks is not None
    right = "an answer is " + (" or ".join(layout.words) if layout.words else "0 or 1")
    broken: list[tuple[str, pl.Series, str]] = [
        (layout.answer, ~answer.is_in([0.0, 1.0, *[float(TO_PREDICT)] * asks]).fill_null(False), right),
    ]
    if asks:
        shown = layout.asks or "an empty cell"
        broken[0] = (*broken[0][:2], f"{right}, or {shown} where it is to be predicted")
    for column in (layout.student, *layout.question, layout.skills):
        broken.append((column, _empty(frame[column]), ""))
    if time is not None and layout.time is not None:
        example = "a number" if layout.seconds_per_unit else "like 2020-03-24 00:17:11"
        broken.append((layout.time, time.is_null(), f"it is written {example}"))
    if layout.order is not None:
        numbers = frame[layout.order].cast(pl.Int64, strict=False)
        broken.append((layout.order, numbers.is_null(), "a whole number is expected"))
    if layout.separator is not None and frame[layout.skills].dtype == pl.String:
        s = layout.separator
        hole = frame[layout.skills].str.contains(rf"^\s*{s}|{s}\s*{s}|{s}\s*$").fill_null(False)
        broken.append((layout.skills, hole, f"skills are written like 7 or 7{s}45"))
    first: tuple[int, str, str] | None = None
    for column, rows, rule in broken:
        row = (rows & kept).arg_max()
        if row is not None and (rows & kept)[row] and (first is None or row < first[0]):
            first = row, column, rule
    if first is not None:
        row, column, rule = first
        place, cell = where(row), frame[column][row]
        empty = _empty(frame[column][row : row + 1]).any()
        raise DataError(f"{place}: {column} is empty." if empty else f"{place}: {column} is {cell!r}; {rule}.")


def _answers(cells: pl.Series, layout: Layout) -> pl.Series:
    """Answers as floats, null where the cell is none."""
    import polars as pl

    found: pl.Series
    if layout.words is None:
        found = cells.cast(pl.Float64, strict=False)
    else:
        lower = cells.cast(pl.String).str.to_lowercase()
        found = lower.replace_strict(dict(layout.words), default=None, return_dtype=pl.Float64)
    if layout.asks == "":
        empty = _empty(cells)
        found = pl.select(pl.when(empty).then(float(TO_PREDICT)).otherwise(found)).to_series()
    return found


def _milliseconds(cells: pl.Series, layout: Layout) -> pl.Series:
    """Times in milliseconds since 1970, null where the cell is none."""
    import polars as pl

    if cells.dtype.is_temporal():
        since: pl.Series = cells.cast(pl.Datetime("ms")).to_physical()
        return since
    if layout.seconds_per_unit is not None:
        number = cells.cast(pl.Float64, strict=False) * (1000 * layout.seconds_per_unit)
        whole: pl.Series = number.fill_nan(None).round().cast(pl.Int64)
        return whole
    found: pl.Series = cells.str.to_datetime(TIME_FORMATS[0], time_unit="ms", strict=False)
    for format in TIME_FORMATS[1:]:
        if found.null_count():
            other = cells.str.to_datetime(format, time_unit="ms", strict=False)
            found = pl.select(pl.coalesce(found, other)).to_series()
    moments: pl.Series = found.to_physical()
    return moments


def _sorting(keys: Sequence[npt.NDArray[Any]]) -> Ints | None:
    """The rows in ascending order of the first key, of the second among equals, and so on; None if they are in it."""
    import polars as pl

    equal = np.ones(max(0, len(keys[0]) - 1), dtype=bool)
    falls = ~equal
    for key in keys:
        falls |= equal & (key[1:] < key[:-1])
        equal &= key[1:] == key[:-1]
    if not falls.any():
        return None
    names = [str(i) for i in range(len(keys))]
    frame = pl.DataFrame(dict(zip(names, keys, strict=True)))
    order = frame.select(pl.arg_sort_by(names, maintain_order=True)).to_series()
    return order.to_numpy().astype(np.int64)


def _typed(cells: pl.Series) -> npt.NDArray[Any]:
    """A further column as numbers where all of its cells are some (an empty one is NaN), else as text."""
    import polars as pl

    values: npt.NDArray[Any]
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        values = cells.to_numpy()
        return values
    text = cells.cast(pl.String).fill_null("")
    gaps = int(_empty(text).sum())
    whole, number = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
    if number.null_count() == gaps < len(text):
        if whole.null_count() > gaps or (gaps and not _is_padded(text, whole)):
            values = number.fill_null(float("nan")).to_numpy()
            return values
        if not gaps and not _is_padded(text, whole):
            values = whole.to_numpy()
            return values
    names, code = encode(text)
    return np.array(names)[code]


def _is_padded(text: pl.Series, numbers: pl.Series) -> bool:
    """Whether some whole numbers are written like 007: those are names."""
    import polars as pl

    return not (numbers.cast(pl.String) == text).fill_null(True).all()


def _empty(cells: pl.Series) -> pl.Series:
    import polars as pl

    if cells.dtype == pl.String:
        return (cells.str.strip_chars() == "").fill_null(True)
    if cells.dtype == pl.List:
        inner = cells.list.eval(pl.element().is_null().any()).list.first()
        return ((cells.list.len() == 0) | inner.fill_null(False)).fill_null(True)
    return cells.is_nan().fill_null(True) if cells.dtype.is_float() else cells.is_null()


def _contains(cells: pl.Series, text: str) -> pl.Series:
    return cells.str.contains(text, literal=True)


def _records(file: Any, delimiter: str) -> Any:
    return csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL)


def torn(path: Path, delimiter: str, error: Exception) -> DataError:
    """What to say of a file that is no table: the first line with too many or too few fields, or of no UTF-8."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = _records(file, delimiter)
            header = next(reader)
            for fields in reader:
                if len(fields) != len(header):
                    return DataError(_wrong_number(f"{path}:{reader.line_num}", fields, header))
    except UnicodeDecodeError:
        line = next(i for i, line in enumerate(path.read_bytes().split(b"\n"), start=1) if not _is_utf8(line))
        return DataError(f"{path}:{line}: not UTF-8 text. Save the file as UTF-8.")
    return DataError(f"{path}: {error}")


def _is_utf8(line: bytes) -> bool:
    try:
        return line.decode() is not None
    except UnicodeDecodeError:
        return False


def _wrong_number(where: str, fields: list[str], header: list[str]) -> str:
    shown = ",".join(header if len(header) <= 8 else [*header[:8], "..."])
    return f"{where}: {len(fields)} fields where the header has {len(header)} ({shown})."
