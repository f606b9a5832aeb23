"""The course's CSV: `userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag`, one answer a line.

`answerCode` is 0, 1, or -1 where it is to be predicted. A question that asks several skills writes them in one cell,
separated by semicolons: `KnowledgeTag` `12;45`.
"""

from __future__ import annotations

import csv
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dkt.data.table import TO_PREDICT, Answers, DataError, Ints, cumulated, encode_numbers

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("userID", "assessmentItemID", "testId", "answerCode", "Timestamp", "KnowledgeTag")
SKILL_SEPARATOR = ";"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
EMPTY_SKILL = r"(^|;)\s*(;|$)"


def read_course_csv(path: Path) -> Answers:
    """The answers in a CSV of the course's columns, sorted by student and time; further columns are left out."""
    import polars as pl

    frame = _read_frame(path)
    typed = frame.with_columns(
        pl.col("answerCode").cast(pl.Int8, strict=False),
        pl.col("Timestamp").str.to_datetime(TIME_FORMAT, time_unit="ms", strict=False).dt.epoch("s"),
    )
    unreadable = (
        not typed["answerCode"].is_in([0, 1, TO_PREDICT]).fill_null(False).all(),
        sum(typed.null_count().row(0)),
        any((column == "").any() for column in frame),
        frame["KnowledgeTag"].str.contains(EMPTY_SKILL).any(),
    )
    if any(unreadable):
        raise DataError(_fault(path) or f"{path}: a value could not be read.")
    return table_of(typed)


def table_of(frame: pl.DataFrame) -> Answers:
    """The tidy table of a frame of the course's columns: answers as integers, time stamps as seconds."""
    import polars as pl

    student_names, student = _encode(frame["userID"])
    frame = frame.with_columns(pl.Series("student", student)).sort("student", "Timestamp", maintain_order=True)
    question_names, question = _encode(frame["assessmentItemID"])
    test_names, test = _encode(frame["testId"])
    tags = frame["KnowledgeTag"].cast(pl.String)
    several = tags.str.contains(SKILL_SEPARATOR, literal=True).any()
    lists = tags.str.split(SKILL_SEPARATOR) if several else None
    skill_names, skill = _encode(tags if lists is None else lists.explode())
    per_row = np.ones(len(frame), dtype=np.int64) if lists is None else lists.list.len().to_numpy().astype(np.int64)
    return Answers(
        student_names=student_names,
        offsets=cumulated(np.bincount(student, minlength=len(student_names))),
        answer=frame["answerCode"].to_numpy().astype(np.int8),
        skill_names=skill_names,
        skill=skill,
        skill_offsets=cumulated(per_row),
        question_names=question_names,
        question=question,
        time=frame["Timestamp"].to_numpy().astype(np.int64),
        extra={"test": np.array(test_names)[test]},
    )


def write_course_csv(answers: Answers, path: Path) -> None:
    """Write a table as the course's CSV; it needs question ids, times, and the test of each row in `extra["test"]`."""
    import polars as pl

    if answers.question is None or answers.time is None or "test" not in answers.extra:
        raise ValueError("the course's CSV needs question ids, times and tests; this table lacks some of them.")
    tags = pl.Series([answers.skill_names[k] for k in answers.skill.tolist()])
    if len(tags) != len(answers):
        row = pl.Series(np.repeat(np.arange(len(answers)), answers.skills_per_row))
        grouped = pl.DataFrame({"row": row, "tag": tags}).group_by("row", maintain_order=True).agg(pl.col("tag"))
        tags = grouped["tag"].list.join(SKILL_SEPARATOR)
    frame = pl.DataFrame(
        {
            "userID": np.array(answers.student_names)[answers.student],
            "assessmentItemID": np.array(answers.question_names)[answers.question],
            "testId": answers.extra["test"],
            "answerCode": answers.answer,
            "Timestamp": pl.from_epoch(pl.Series(answers.time), "s").dt.strftime(TIME_FORMAT),
            "KnowledgeTag": tags,
        }
    )
    frame.write_csv(path)


def _read_frame(path: Path) -> pl.DataFrame:
    """The course's columns as text: conversion is ours, so that a bad value can be named."""
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(_fault(path) or f"{path}: {error}") from error
    absent = [name for name in COLUMNS if name not in frame.columns]
    if absent:
        raise DataError(
            f"{path}: column {', '.join(absent)} is missing; the file has {', '.join(frame.columns)}. "
            f"The course's CSV has {','.join(COLUMNS)}."
        )
    if frame.is_empty():
        raise DataError(f"{path} has a header and no answers.")
    return frame.select(COLUMNS)


def _encode(ids: pl.Series) -> tuple[list[str], Ints]:
    """Ids as (names in ascending order, positions); in the order of numbers where all of them are numbers."""
    import polars as pl

    numbers = ids.cast(pl.Int64, strict=False)
    if not numbers.null_count():
        return encode_numbers(numbers.to_numpy())
    names = ids.unique().sort()
    return names.to_list(), ids.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)


def _fault(path: Path) -> str | None:
    """What is wrong with the first line that breaks the format; this slow walk happens only when something is wrong."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader)
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if len(fields) != len(header):
                return f"{where}: {len(fields)} fields where the header has {len(header)} ({','.join(header)})."
            row = dict(zip(header, fields, strict=True))
            for name in COLUMNS:
                if not row.get(name, "-").strip():
                    return f"{where}: {name} is empty."
            answer = row.get("answerCode", "0")
            if answer not in {"0", "1", str(TO_PREDICT)}:
                return f"{where}: answerCode is {answer!r}; an answer is 0 or 1, or -1 where it is to be predicted."
            if "Timestamp" in row and not _is_time(row["Timestamp"]):
                return f"{where}: Timestamp is {row['Timestamp']!r}; it is written like 2020-03-24 00:17:11."
            if re.search(EMPTY_SKILL, row.get("KnowledgeTag", "-")):
                return f"{where}: KnowledgeTag is {row['KnowledgeTag']!r}; skills are written like 7 or 7;45."
    return None


def _is_time(text: str) -> bool:
    try:
        return len(text) == 19 and datetime.strptime(text, TIME_FORMAT) is not None
    except ValueError:
        return False
