"""EdNet-KT1: a folder with one CSV for each of 784,309 students, and the questions' right answers and tags beside it.

KT1/u1.csv               timestamp,solving_id,question_id,user_answer,elapsed_time
contents/questions.csv   question_id,bundle_id,explanation_id,correct_answer,part,tags,deployed_at

It is read some thousand students at a time, so that no more than those are in memory (github.com/riiid/ednet).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dkt.data.columns import encode_sets, header_of
from dkt.data.table import Answers, DataError, Ints, cumulated

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("timestamp", "solving_id", "question_id", "user_answer", "elapsed_time")
HEADER = ",".join(COLUMNS).encode()
QUESTION_COLUMNS = ("question_id", "correct_answer", "tags")
NO_TAG = "-1"


def is_ednet(path: Path) -> bool:
    return path.is_dir() and _student_folder(path) is not None


@dataclass(frozen=True)
class _Bank:
    """The questions; the tags of question q are `skill[offsets[q]:offsets[q + 1]]`, none where it has no tag."""

    ids: list[str]
    right: pl.Series
    skill_names: list[str]
    skill: Ints
    offsets: Ints


class EdNet:
    """The students of an EdNet-KT1 folder, `students_per_part` of them at a time, in the order of their numbers."""

    def __init__(self, folder: Path, students_per_part: int = 5000, students: int | None = None, seed: int = 0) -> None:
        found = _student_folder(folder)
        if found is None:
            raise DataError(f"{folder} has no files u1.csv, u2.csv, ... of students, and neither has {folder / 'KT1'}.")
        self.files = sorted(found.glob("u*.csv"), key=lambda path: (len(path.name), path.name))
        if students is not None:
            if not 0 < students <= len(self.files):
                raise ValueError(f"students={students} must be between 1 and the {len(self.files)} of {found}.")
            chosen = np.random.default_rng(seed).choice(len(self.files), students, replace=False)
            self.files = [self.files[i] for i in np.sort(chosen).tolist()]
        self.bank = _read_bank(_questions_file(folder, found))
        self.students_per_part = students_per_part
        self.rows = self.unanswered = self.without_tag = self.empty = 0

    def __iter__(self) -> Iterator[Answers]:
        self.rows = self.unanswered = self.without_tag = self.empty = 0
        for start in range(0, len(self.files), self.students_per_part):
            part = self._part(self.files[start : start + self.students_per_part])
            if part is not None:
                yield part

    def notes(self) -> tuple[str, ...]:
        """What was left out of the parts read so far."""
        found = {
            f"{self.unanswered:,} of {self.rows:,} rows have no user_answer and were left out": self.unanswered,
            f"{self.without_tag:,} of {self.rows:,} rows ask a question without tags and were left out": (
                self.without_tag
            ),
            f"{self.empty:,} students have no answers": self.empty,
        }
        return tuple(text for text, n in found.items() if n)

    def _part(self, files: list[Path]) -> Answers | None:
        import polars as pl

        frame, student = _rows(files)
        question = frame["question_id"].cast(pl.Enum(self.bank.ids), strict=False).to_physical()
        if question.null_count():
            row = int(question.is_null().arg_max() or 0)
            raise DataError(
                f"{_place(files, student, row)}: question_id {frame['question_id'][row]!r} is not in questions.csv."
            )
        q = question.to_numpy().astype(np.int64)
        given = frame["user_answer"]
        answered = (given.is_not_null() & (given != "")).fill_null(False).to_numpy()
        has_tag = np.diff(self.bank.offsets)[q] > 0
        self.rows += len(frame)
        self.unanswered += int((~answered).sum())
        self.without_tag += int((answered & ~has_tag).sum())
        right = (given == self.bank.right.gather(question)).fill_null(False).to_numpy()
        kept = np.flatnonzero(answered & has_tag)
        order = pl.DataFrame({"student": student[kept], "at": frame["timestamp"].to_numpy()[kept]})
        kept = kept[order.select(pl.arg_sort_by("student", "at", maintain_order=True)).to_series().to_numpy()]
        lengths = np.bincount(student[kept], minlength=len(files))
        self.empty += int((lengths == 0).sum())
        if not len(kept):
            return None
        q = q[kept]
        counts = np.diff(self.bank.offsets)[q]
        offsets = cumulated(counts)
        place = np.repeat(self.bank.offsets[q] - offsets[:-1], counts) + np.arange(int(offsets[-1]))
        return Answers(
            student_names=[path.stem for path, n in zip(files, lengths.tolist(), strict=True) if n],
            offsets=cumulated(lengths[lengths > 0]),
            answer=right[kept].astype(np.int8),
            skill_names=self.bank.skill_names,
            skill=self.bank.skill[place],
            skill_offsets=offsets,
            question_names=self.bank.ids,
            question=q,
            time=frame["timestamp"].to_numpy()[kept] // 1000,
            extra={"elapsed": (frame["elapsed_time"] / 1000).cast(pl.Float32).to_numpy()[kept]},
        )


def _rows(files: list[Path]) -> tuple[pl.DataFrame, Ints]:
    """All rows of some students' files as one frame, and the file of each: one parse is faster than thousands."""
    import polars as pl

    bodies = []
    for path in files:
        header, _, body = path.read_bytes().removeprefix(b"\xef\xbb\xbf").partition(b"\n")
        if header.strip() != HEADER:
            shown = header.decode(errors="replace").strip()
            raise DataError(f"{path}:1: the header is {shown!r}; a student's file has {HEADER.decode()}.")
        body = body.rstrip()
        bodies.append(body + b"\n" if body else b"")
    schema = dict(zip(COLUMNS, (pl.Int64, pl.String, pl.String, pl.String, pl.Int64), strict=True))
    counts = np.array([body.count(b"\n") for body in bodies])
    if not counts.any():
        return pl.DataFrame(schema=schema), np.zeros(0, dtype=np.int64)
    text = b"".join(bodies)
    if text.count(b",") != (len(COLUMNS) - 1) * counts.sum():
        raise DataError(_fault(files) or f"{files[0].parent}: a line has too many or too few fields.")
    try:
        frame = pl.read_csv(text, has_header=False, schema=schema)
    except pl.exceptions.PolarsError as error:
        raise DataError(_fault(files) or f"{files[0].parent}: {error}") from error
    empty = frame["timestamp"].is_null() | frame["question_id"].is_null()
    if len(frame) != counts.sum() or empty.any():
        raise DataError(_fault(files) or f"{files[0].parent}: a row could not be read.")
    return frame, np.repeat(np.arange(len(files)), counts)


def _fault(files: list[Path]) -> str | None:
    """The first line that breaks the format; this slow walk happens only when something is wrong."""
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").rstrip().splitlines(), start=1):
            fields = line.split(",")
            if len(fields) != len(COLUMNS):
                return f"{path}:{number}: {len(fields)} fields where the header has {len(COLUMNS)}."
            row = dict(zip(COLUMNS, fields, strict=True))
            if number > 1 and not re.fullmatch(r"-?\d+", row["timestamp"]):
                return f"{path}:{number}: timestamp is {row['timestamp']!r}; milliseconds since 1970 are expected."
            if number > 1 and not re.fullmatch(r"-?\d*", row["elapsed_time"]):
                return f"{path}:{number}: elapsed_time is {row['elapsed_time']!r}; milliseconds are expected."
            if number > 1 and not row["question_id"]:
                return f"{path}:{number}: question_id is empty."
    return None


def _place(files: list[Path], student: Ints, row: int) -> str:
    return f"{files[student[row]]}:{row - int(np.searchsorted(student, student[row])) + 2}"


def _read_bank(path: Path) -> _Bank:
    import polars as pl

    absent = [name for name in QUESTION_COLUMNS if name not in header_of(path)]
    if absent:
        raise DataError(f"{path}: column {', '.join(absent)} is missing; it has {', '.join(header_of(path))}.")
    frame = pl.read_csv(path, columns=list(QUESTION_COLUMNS), infer_schema=False)
    twice = frame["question_id"].is_duplicated()
    if twice.any():
        raise DataError(f"{path}: question {frame['question_id'].filter(twice)[0]} is there more than once.")
    for name in ("question_id", "correct_answer"):
        empty = frame[name].is_null()
        if empty.any():
            raise DataError(f"{path}:{int(empty.arg_max() or 0) + 2}: {name} is empty.")
    tags = frame["tags"].fill_null(NO_TAG)
    names, skill, offsets = encode_sets(tags, ";")
    if NO_TAG in names:
        none = names.index(NO_TAG)
        lengths = np.diff(offsets) * (skill[offsets[:-1]] != none)
        skill, offsets = skill[skill != none], cumulated(lengths)
        names = [*names[:none], *names[none + 1 :]]
        skill = skill - (skill > none)
    return _Bank(frame["question_id"].to_list(), frame["correct_answer"], names, skill, offsets)


def _student_folder(path: Path) -> Path | None:
    for folder in (path, path / "KT1", path / "EdNet-KT1"):
        if folder.is_dir() and next(folder.glob("u[0-9]*.csv"), None) is not None:
            return folder
    return None


def _questions_file(folder: Path, students: Path) -> Path:
    places = [
        base / name
        for base in dict.fromkeys((folder, students, students.parent))
        for name in ("contents/questions.csv", "questions.csv")
    ]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        "EdNet's questions.csv, which holds the right answers, was looked for at " + ", ".join(map(str, places)) + "."
    )
