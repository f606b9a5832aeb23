"""Readers of the line formats: a student is a record of three lines (DKVMN, AKT) or four (AKT, with problem ids).

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

DIGITS = set("0123456789,")
FIELDS = {3: ("skills", "answers"), 4: ("problems", "skills", "answers")}


def read_lines(path: Path, lines_per_student: int) -> Answers:
    """The answers in a file of 3-line or 4-line records."""
    fields = FIELDS[lines_per_student]
    lines = _stripped(path)
    if not lines:
        raise DataError(f"{path} is empty; a file of students in records of {lines_per_student} lines is expected.")
    broken = f"{path}: the records could not be read."
    if len(lines) % lines_per_student:
        raise DataError(_fault(path, lines, lines_per_student) or broken)
    columns = {name: lines[i::lines_per_student] for i, name in enumerate(fields, start=1)}
    lengths = {name: _counts(column) for name, column in columns.items()}
    n_answers = lengths["answers"]
    whole = all(np.array_equal(n_answers, other) for other in lengths.values()) and bool((n_answers > 0).all())
    headers = lines[::lines_per_student]
    counted = headers_are_counts(headers, n_answers)
    if not whole or (counted and [int(h) if h.isdigit() else -1 for h in headers] != n_answers.tolist()):
        raise DataError(_fault(path, lines, lines_per_student) or broken)
    try:
        values = {name: _numbers(column) for name, column in columns.items()}
    except ValueError:
        raise DataError(_fault(path, lines, lines_per_student) or broken) from None
    answer = values["answers"]
    if not ((answer == 0) | (answer == 1)).all():
        raise DataError(_fault(path, lines, lines_per_student) or broken)
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
    """How well these lines fit records of this size, for telling the two formats apart: 0 is not at all."""
    good = 0
    for start in range(0, len(lines) - lines_per_student + 1, lines_per_student):
        header, *rest = lines[start : start + lines_per_student]
        if header.count(",") <= 1 and len({line.count(",") for line in rest}) == 1 and set(header) <= DIGITS:
            good += lines_per_student + (set(rest[-1]) <= set("01,"))  # a wrong answer shall not hide the format
    return good


def headers_are_counts(headers: list[str], n_answers: Ints) -> bool:
    """True where the single number that opens each record is its number of answers (DKVMN) and not an index (AKT)."""
    agree = sum(h.isdigit() and int(h) == n for h, n in zip(headers, n_answers.tolist(), strict=True))
    return bool(agree * 2 > len(headers))


def _stripped(path: Path) -> list[str]:
    """The lines without spaces, trailing commas, and the empty lines at the end."""
    text = path.read_text(encoding="utf-8-sig")
    return [line.strip().rstrip(",") for line in text.rstrip().splitlines()]


def _counts(lines: list[str]) -> Ints:
    return np.array([line.count(",") + 1 if line else 0 for line in lines], dtype=np.int64)


def _numbers(lines: list[str]) -> Ints:
    return np.array(list(map(int, ",".join(lines).split(","))), dtype=np.int64)


def _fault(path: Path, lines: list[str], size: int) -> str | None:
    """What is wrong with the first record that breaks the format: a slow walk, for files known to be broken."""
    fields = FIELDS[size]
    headers = lines[::size]
    counted = headers_are_counts(headers, np.resize(_counts(lines[size - 1 :: size]), len(headers)))
    for start in range(0, len(lines), size):
        header, *rest = lines[start : start + size]
        record = f"{path}:{start + 1}: record {start // size + 1}"
        if not all(part.strip().isdigit() for part in header.split(",")) or header.count(",") > 1:
            return (
                f"{record} should begin with one or two numbers (count, or index,student), not {_short(header)}. "
                "Is a line missing before it?"
            )
        if len(rest) < len(fields):
            return f"{record} ends after {len(rest) + 1} of {size} lines (header, {', '.join(fields)})."
        for number, (name, line) in enumerate(zip(fields, rest, strict=True), start=start + 2):
            fault = _line_fault(name, line)
            if fault:
                return f"{path}:{number}: record {start // size + 1} (student {header!r}): {fault}"
        counts = {name: line.count(",") + 1 for name, line in zip(fields, rest, strict=True)}
        if len(set(counts.values())) > 1:
            return f"{record} has " + ", ".join(f"{n} {name}" for name, n in counts.items()) + "; they must be as many."
        if counted and int(header) != counts["answers"]:
            return f"{record} announces {header} answers and has {counts['answers']}."
    return None


def _line_fault(name: str, line: str) -> str | None:
    if not line:
        return f"an empty student, without {name}. Delete the record."
    for position, value in enumerate(line.split(","), start=1):
        if name == "answers" and value.strip() not in {"0", "1"}:
            return f"answer {position} is {value!r}; an answer is 0 or 1."
        if not value.strip().isdigit():
            return f"value {position} of the {name} is {value!r}; a whole number is expected."
    return None


def _short(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:37] + "...")
