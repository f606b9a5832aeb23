"""The course's CSV: `userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag`, one answer a line.

`answerCode` is 0, 1, or -1 where it is to be predicted. A question that asks several skills writes them in one cell,
separated by semicolons: `KnowledgeTag` `12;45`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dkt.data.columns import read_table
from dkt.data.layouts import COURSE
from dkt.data.table import Answers

SKILL_SEPARATOR = ";"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def read_course_csv(path: Path) -> Answers:
    """The answers in a CSV of the course's columns, sorted by student and time; further columns are kept in `extra`."""
    return read_table(path, COURSE)


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
