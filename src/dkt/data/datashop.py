"""DataShop's tables, KDD Cup 2010 among them: student-step tables, and transactions whose first attempts count.

Columns follow pslcdatashop.web.cmu.edu/KDDCup/rules_data_format.jsp and DataShop's export help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dkt.data.columns import Layout, Lines, Where, answers_of, header_of, read_frame
from dkt.data.table import Answers, DataError

if TYPE_CHECKING:
    import polars as pl

STUDENT = "Anon Student Id"
TEXT = (
    "DataShop student-step or transaction table, KDD Cup 2010 (Anon Student Id, Problem Name, Step Name, Correct First "
    "Attempt or First Attempt or Outcome, KC (...) split by ~~); a first attempt that is a hint is wrong"
)
SEPARATOR = "~~"
# An outcome of a transaction that is none of these (a message, an untutored step) is no answer.
OUTCOMES = {"correct": 1.0, "ok": 1.0} | dict.fromkeys(
    ("incorrect", "bug", "error", "hint", "initial_hint", "hint_level_change"), 0.0
)


def is_datashop_header(header: Sequence[str]) -> bool:
    return STUDENT in header


def read_datashop(path: Path, skills: str | None = None) -> Answers:
    """The answers of a table with tabs (or commas); `skills` names the column of the skill model to take."""
    delimiter = "\t" if STUDENT in header_of(path, "\t") else ","
    layout, note = _layout(header_of(path, delimiter), skills)
    layout = replace(layout, delimiter=delimiter)
    # A transaction of two skills has its KC column twice.
    copies = replace(layout, keep_further=True) if header_of(path, delimiter).count(layout.skills) > 1 else layout
    return _answers(read_frame(path, copies), layout, note, Lines(path, delimiter))


def from_datashop_frame(frame: pl.DataFrame, where: Where, extra: Mapping[str, str]) -> Answers:
    """The same from a frame with the table's columns; `extra` names further ones to keep."""
    layout, note = _layout(frame.columns, None)
    return _answers(frame, replace(layout, extra=extra), note, where)


def _answers(frame: pl.DataFrame, layout: Layout, note: str, where: Where) -> Answers:
    import polars as pl

    copies = [name for name in frame.columns if name.partition("_duplicated_")[0] == layout.skills]
    if len(copies) > 1:
        cells = [pl.when(pl.col(name) != "").then(pl.col(name)) for name in copies]
        joined = pl.concat_str(cells, separator=SEPARATOR, ignore_nulls=True).alias(layout.skills)
        frame = frame.with_columns(joined)
    if layout.time is not None and (frame[layout.time].is_null() | (frame[layout.time] == "")).all():
        layout = replace(layout, time=None)  # KDD Cup's test files: the rows are in order, without times
    answers = answers_of(frame, layout, where)
    return replace(answers, notes=(note, *answers.notes))


def _layout(header: Sequence[str], skills: str | None) -> tuple[Layout, str]:
    """What the columns mean, and a note on which of the skill models was taken."""
    models = [name for name in dict.fromkeys(header) if name.startswith(("KC (", "KC("))]
    if skills is None and not models:
        raise DataError(
            f"no column KC (...) says which skills a step asks; there are {', '.join(header)}. Name the column to "
            "take: skills='Step Name' (--skills 'Step Name') makes each step a skill."
        )
    chosen = skills or models[0]
    others = [name for name in models if name != chosen]
    note = f"skills are those of the column {chosen}" + (f"; there are also {', '.join(others)}" if others else "")
    layout = Layout(
        TEXT,
        student=STUDENT,
        question=("Problem Name", "Step Name"),
        answer="Correct First Attempt",
        asks="",  # KDD Cup: empty in the rows that were to be predicted
        skills=chosen,
        separator=SEPARATOR,
        skill_missing=True,
        time="First Transaction Time",
        elapsed=("Step Duration (sec)", 1),
        lossy=True,
    )
    if "Correct First Attempt" in header:
        return layout, note
    layout = replace(layout, words=OUTCOMES, asks=None)
    if "First Attempt" in header:
        return replace(layout, answer="First Attempt"), note
    first_attempts = replace(layout, answer="Outcome", attempt="Attempt At Step", time="Time")
    return replace(first_attempts, elapsed=("Duration (sec)", 1)), note
