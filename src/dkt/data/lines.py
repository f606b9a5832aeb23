"""Readers of the line formats: a student is a record of three lines (DKVMN's and AKT's files) or four (AKT's, with problem ids).

    3 lines                    4 lines
    count  or  index,student   index,student
    skills                     problems
    answers                    skills
                               answers
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dkt.data.table import Answers, DataError, Ints, encode_numbers, one_skill_each

FIELDS = {3: ("skills", "answers"), 4: ("problems", "skills", "answers")}


def read_lines(path: Path, lines_per_student: int) -> Answers:
    """The answers in a file of 3-line or 4-line records."""
    fields = FIELDS[lines_per_student]
    lines = _stripped(path)
    if not lines:
        raise DataError(f"{path} is empty; a file of students in records of {lines_per_student} lines is expected.")
    if len(lines) % lines_per_student:
        _find_broken(path, lines, lines_per_student)
        raise DataError(
            f"{path}:{len(lines)}: the last record is incomplete: {len(lines)} lines are not a multiple of "
            f"{lines_per_student} ({', '.join(('header', *fields))})."
        )
    columns = {name: lines[i::lines_per_student] for i, name in enumerate(fields, start=1)}
    lengths = {name: _counts(column) for name, column in columns.items()}
    n_answers = lengths["answers"]
    whole = all(np.array_equal(n_answers, other) for other in lengths.values()) and bool((n_answers > 0).all())
    headers = lines[::lines_per_student]
    counted = headers_are_counts(headers, n_answers)
    if not whole or (counted and [int(h) if h.isdigit() else -1 for h in headers] != n_answers.tolist()):
        _find_broken(path, lines, lines_per_student)
    try:
        values = {name: _numbers(column) for name, column in columns.items()}
    except ValueError:
        _find_broken(path, lines, lines_per_student)
        raise
    answer = values["answers"]
    if not ((answer == 0) | (answer == 1)).all():
        _find_broken(path, lines, lines_per_student)
    skill_names, skill = encode_numbers(values["skills"])
    question_names, question = encode_numbers(values["problems"]) if "problems" in values else ([], None)
    return Answers(
        student_names=[str(i) for i in range(len(headers))] if counted else [h.split(",")[-1] for h in headers],
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(n_answers)]),
        answer=answer.astype(np.int8),
        skill_names=skill_names,
        skill=skill,
        skill_offsets=one_skill_each(len(answer)),
        question_names=question_names,
        question=question,
    )


def consistent_lines(lines: list[str], lines_per_student: int) -> int:
    """How many of these lines lie in well-formed records of this size: what tells the two formats apart."""
    good = 0
    for start in range(0, len(lines) - lines_per_student + 1, lines_per_student):
        header, *rest = lines[start : start + lines_per_student]
        counts = {line.count(",") for line in rest}
        good += lines_per_student * (len(counts) == 1 and header.count(",") <= 1 and set(rest[-1]) <= set("01,"))
    return good


def headers_are_counts(headers: list[str], n_answers: Ints) -> bool:
    """True where the single number that opens each record is its number of answers (DKVMN) and not an index (AKT)."""
    agree = sum(h.isdigit() and int(h) == n for h, n in zip(headers, n_answers.tolist(), strict=True))
    return agree * 2 > len(headers)


def _stripped(path: Path) -> list[str]:
    """The lines without spaces, trailing commas, and the empty lines at the end."""
    text = path.read_text(encoding="utf-8-sig")
    return [line.strip().rstrip(",") for line in text.rstrip().splitlines()]


def _counts(lines: list[str]) -> Ints:
    return np.array([line.count(",") + 1 if line else 0 for line in lines], dtype=np.int64)


def _numbers(lines: list[str]) -> Ints:
    return np.array(list(map(int, ",".join(lines).split(","))), dtype=np.int64)


def _find_broken(path: Path, lines: list[str], size: int) -> None:
    """Raise for the first record that breaks the format; this slow walk happens only when something is wrong."""
    fields = FIELDS[size]
    headers = lines[::size]
    counted = headers_are_counts(headers, np.resize(_counts(lines[size - 1 :: size]), len(headers)))
    for start in range(0, len(lines), size):
        header, *rest = lines[start : start + size]
        where = f"{path}:{start + 1}: student {header!r} (record {start // size + 1})"
        if not all(part.strip().isdigit() for part in header.split(",")) or header.count(",") > 1:
            raise DataError(
                f"{path}:{start + 1}: record {start // size + 1} should begin with one or two numbers "
                f"(count, or index,student), not {_short(header)}. Is a line missing before it?"
            )
        if len(rest) < len(fields):
            raise DataError(f"{where}: the record ends after {len(rest) + 1} of {size} lines.")
        for i, (name, line) in enumerate(zip(fields, rest, strict=True), start=start + 2):
            if not line:
                raise DataError(f"{path}:{i}: student {header!r} is empty: no {name}. Delete the record.")
            for position, value in enumerate(line.split(","), start=1):
                if name == "answers" and value.strip() not in {"0", "1"}:
                    raise DataError(f"{path}:{i}: answer {position} is {value!r}; an answer is 0 or 1.")
                if not value.strip().isdigit():
                    raise DataError(f"{path}:{i}: value {position} of the {name} is {value!r}; a whole number is expected.")
        counts = {name: line.count(",") + 1 for name, line in zip(fields, rest, strict=True)}
        if len(set(counts.values())) > 1:
            raise DataError(f"{where}: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + "; they must be as many.")
        if counted and int(header) != counts["answers"]:
            raise DataError(f"{where}: it announces {header} answers and has {counts['answers']}.")


def _short(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:37] + "...")
