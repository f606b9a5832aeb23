"""Frames of polars or pandas in, and the table as a frame out; Parquet is such a frame on disk.

The tidy columns are `student`, `answer` (1, 0, or -1 where it is to be predicted) and `skills` (a list, or one cell
`7;45`), and where they are known `question` and `time` (a date, or seconds since 1970); every other column is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dkt.data.columns import Layout, Where, answers_of
from dkt.data.datashop import from_datashop_frame, is_datashop_header
from dkt.data.layouts import LAYOUTS, layout_of_header
from dkt.data.table import Answers, DataError, Ints

if TYPE_CHECKING:
    import polars as pl

TIDY = ("student", "question", "skills", "answer", "time")
NEEDED = ("student", "skills", "answer")
FRAME_ROW = "frame_row"
Floats = npt.NDArray[np.floating]


def is_frame(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in ("polars", "pandas")


def from_frame(frame: Any, columns: Mapping[str, str] | None = None) -> Answers:
    """The answers of a frame of polars or pandas, one answer a row, sorted by student and time.

    `columns` says which of its columns are `student`, `answer`, `skills`, `question` and `time`. Without it they have
    these names, or those of a format that dkt reads, such as the course's. `extra["frame_row"]` is the row of the frame
    that each answer was; `in_frame_order` puts predictions back into its order.

    >>> from_frame(logs, {"student": "user", "question": "item", "skills": "tag", "answer": "correct", "time": "at"})
    """
    table = _polars(frame)
    rows = np.arange(len(table))
    table = table.with_columns(**{FRAME_ROW: rows})
    return _answers(table, columns, "row {} of the frame".format, {FRAME_ROW: FRAME_ROW})


def in_frame_order(values: Floats, answers: Answers, frame: Any) -> Floats:
    """One value for each row of the frame that `answers` were made of; NaN where the row is no answer of its own."""
    ordered = np.full(len(frame), np.nan, dtype=values.dtype)
    ordered[answers.extra[FRAME_ROW]] = values
    return ordered


def _answers(table: pl.DataFrame, columns: Mapping[str, str] | None, where: Where, extra: Mapping[str, str]) -> Answers:
    if columns is None and not set(NEEDED) <= set(table.columns):
        if is_datashop_header(table.columns):
            return from_datashop_frame(table, where, extra)
        format = layout_of_header(table.columns)
        if format is not None:
            layout = LAYOUTS[format]
            return answers_of(_with(table, layout.needs), replace(layout, extra={**layout.extra, **extra}), where)
    return answers_of(table, replace(_tidy_layout(table, dict(columns or {})), extra=extra), where)


def to_frame(answers: Answers) -> pl.DataFrame:
    """The tidy columns of a table; `from_frame` makes the same table of them again."""
    import polars as pl

    taken = set(TIDY) & set(answers.extra)
    if taken:
        raise ValueError(f"extra column {', '.join(sorted(taken))} has the name of a tidy column; rename it.")
    skills = _named(answers.skill_names, answers.skill)
    if len(skills) == len(answers):
        lists = skills.reshape((-1, 1)).cast(pl.List(pl.String))
    else:
        rows = np.repeat(np.arange(len(answers)), answers.skills_per_row)
        grouped = pl.DataFrame({"row": rows, "skill": skills}).group_by("row", maintain_order=True).agg("skill")
        lists = grouped["skill"]
    columns = {"student": _named(answers.student_names, answers.student)}
    if answers.question is not None:
        columns["question"] = _named(answers.question_names, answers.question)
    columns |= {"skills": lists, "answer": pl.Series(answers.answer)}
    if answers.time is not None:
        columns["time"] = pl.from_epoch(pl.Series(answers.time), "s").cast(pl.Datetime("ms"))
    further = {name: pl.Series(values) for name, values in answers.extra.items() if name != FRAME_ROW}
    return pl.DataFrame({**columns, **further})


def write_parquet(answers: Answers, path: Path) -> None:
    """Write a table as one Parquet file of the tidy columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_frame(answers).write_parquet(path)


def read_parquet(path: Path) -> Answers:
    """The answers of a Parquet file, or of all those in a folder, whose columns are tidy ones or a known format's."""
    import polars as pl

    try:
        frame = pl.read_parquet(path / "*.parquet" if path.is_dir() else path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is no Parquet that can be read: {error}") from error
    if frame.is_empty():
        raise DataError(f"{path} has no answers.")
    return _answers(frame, None, lambda row: f"{path}: row {row}", {})


def _tidy_layout(frame: pl.DataFrame, columns: dict[str, str]) -> Layout:
    unknown = sorted(set(columns) - set(TIDY))
    if unknown:
        raise ValueError(f"columns: {', '.join(unknown)} is none of {', '.join(TIDY)}.")
    given = {name: columns.get(name, name) for name in TIDY if name in columns or name in frame.columns}
    given |= {name: columns.get(name, name) for name in NEEDED}
    layout = Layout(
        "",
        student=given["student"],
        answer=given["answer"],
        asks="-1",
        skills=given["skills"],
        separator=";",
        question=(given["question"],) if "question" in given else (),
        time=given.get("time"),
        seconds_per_unit=1 if "time" in given and _is_number(frame, given["time"]) else None,
        keep_further=True,
    )
    _with(frame, layout.needs)
    return layout


def _with(frame: pl.DataFrame, needs: list[str]) -> pl.DataFrame:
    absent = [name for name in needs if name not in frame.columns]
    if absent:
        raise DataError(
            f"the frame has no column {', '.join(absent)}; it has {', '.join(frame.columns)}. Say which columns mean "
            'what: columns={"student": ..., "skills": ..., "answer": ..., "question": ..., "time": ...}.'
        )
    return frame


def _is_number(frame: pl.DataFrame, column: str) -> bool:
    return column in frame.columns and frame[column].dtype.is_numeric()


def _named(names: list[str], code: Ints) -> pl.Series:
    import polars as pl

    return pl.Series(names, dtype=pl.String).gather(pl.Series(code))


def _polars(frame: Any) -> pl.DataFrame:
    """A pandas frame column by column, which needs no pyarrow; a polars frame as it is."""
    import polars as pl

    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    columns = {}
    for name in frame.columns:
        column = frame[name]
        values = column.to_numpy() if getattr(column.dtype, "kind", "O") in "biufM" and not _extension(column) else None
        if values is None:
            values = column.astype(object).where(column.notna(), None).tolist()
        columns[str(name)] = pl.Series(str(name), values, strict=False)
    return pl.DataFrame(columns)


def _extension(column: Any) -> bool:
    """Whether a pandas column is of a type of pandas' own (nullable, with a time zone, categories)."""
    return not isinstance(column.dtype, np.dtype)
