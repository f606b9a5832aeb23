"""Data for knowledge tracing: readers, one tidy table, a simulated school, batches."""

from __future__ import annotations

from dkt.data.course import read_course_csv, write_course_csv
from dkt.data.frames import from_frame, in_frame_order, to_frame, write_parquet
from dkt.data.read import read_answers
from dkt.data.table import TO_PREDICT, Answers, DataError
from dkt.data.twins import find_twins, without_twins

__all__ = [
    "TO_PREDICT",
    "Answers",
    "DataError",
    "find_twins",
    "from_frame",
    "in_frame_order",
    "read_answers",
    "read_course_csv",
    "to_frame",
    "without_twins",
    "write_course_csv",
    "write_parquet",
]
