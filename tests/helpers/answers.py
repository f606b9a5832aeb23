"""Tables of answers for tests: rows by name, random tables for Hypothesis, and files as other programs write them."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from dkt.data import Answers
from dkt.data.table import cumulated

ID = st.text(string.ascii_letters + string.digits + "-.", min_size=1, max_size=6)
NUMBER = st.integers(0, 99).map(str)


def rows_of(answers: Answers) -> list[tuple]:
    """(student, question, set of skills, answer, seconds) of each row: what must survive writing and reading."""
    skills = [
        frozenset(answers.skill_names[k] for k in answers.skill[a:b].tolist())
        for a, b in zip(answers.skill_offsets[:-1].tolist(), answers.skill_offsets[1:].tolist())
    ]
    question = answers.question
    return [
        (
            answers.student_names[s],
            None if question is None else answers.question_names[question[i]],
            skills[i],
            int(answers.answer[i]),
            None if answers.time is None else int(answers.time[i]),
        )
        for i, s in enumerate(answers.student.tolist())
    ]


@st.composite
def tables(draw, names=ID, most_skills=3, questions=True, times=True, unknown=False):
    """A table of a few students, each with ascending times."""
    students = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    skills = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    items = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    lengths = [draw(st.integers(1, 6)) for _ in students]
    n = sum(lengths)
    answer = draw(st.lists(st.sampled_from([0, 1, -1] if unknown else [0, 1]), min_size=n, max_size=n))
    sets = [
        draw(st.lists(st.integers(0, len(skills) - 1), min_size=1, max_size=most_skills, unique=True)) for _ in range(n)
    ]
    question = draw(st.lists(st.integers(0, len(items) - 1), min_size=n, max_size=n))
    gaps = draw(st.lists(st.integers(0, 9_999_999), min_size=n, max_size=n))
    return Answers(
        student_names=students,
        offsets=cumulated(np.array(lengths)),
        answer=np.array(answer, dtype=np.int8),
        skill_names=skills,
        skill=np.concatenate([np.array(s) for s in sets]).astype(np.int64),
        skill_offsets=cumulated(np.array([len(s) for s in sets])),
        question_names=items if questions else [],
        question=np.array(question) if questions else None,
        time=1_500_000_000 + np.cumsum(gaps) if times else None,
    )


def lines_file(answers: Answers, path: Path, header: str) -> None:
    """3-line or (with questions) 4-line records; `header` is "count", "index" or "index,student"."""
    lines = []
    for s, (a, b) in enumerate(zip(answers.offsets[:-1].tolist(), answers.offsets[1:].tolist())):
        index = {"count": b - a, "index": s, "index,student": f"{s},{answers.student_names[s]}"}[header]
        lines.append(str(index))
        if answers.question is not None:
            lines.append(",".join(answers.question_names[q] for q in answers.question[a:b].tolist()))
        lines.append(",".join(answers.skill_names[k] for k in answers.skill[a:b].tolist()))
        lines.append(",".join(map(str, answers.answer[a:b].tolist())))
    path.write_text("\n".join(lines) + "\n")


def pykt_text(answers: Answers, path: Path) -> None:
    """pyKT's data.txt: six lines a student."""
    rows = rows_of(answers)
    lines = []
    for s, (a, b) in enumerate(zip(answers.offsets[:-1].tolist(), answers.offsets[1:].tolist())):
        part = rows[a:b]
        lines.append(f"{answers.student_names[s]},{b - a}")
        lines.append("NA" if answers.question is None else ",".join(row[1] for row in part))
        lines.append(",".join("_".join(sorted(row[2])) for row in part))
        lines.append(",".join(str(row[3]) for row in part))
        lines.append("NA" if answers.time is None else ",".join(str(row[4] * 1000) for row in part))
        lines.append("NA")
    path.write_text("\n".join(lines) + "\n")


def pykt_sequences(answers: Answers, path: Path, length: int = 5) -> None:
    """pyKT's sequences: one row a concept, cut into padded sequences of `length`."""
    names = ("questions", "concepts", "responses", "timestamps", "selectmasks", "is_repeat")
    lines = ["fold,uid," + ",".join(names)]
    rows = rows_of(answers)
    for s, (a, b) in enumerate(zip(answers.offsets[:-1].tolist(), answers.offsets[1:].tolist())):
        expanded = [
            (row[1], concept, str(row[3]), str(row[4] * 1000), "1", str(int(i > 0)))
            for row in rows[a:b]
            for i, concept in enumerate(sorted(row[2]))
        ]
        for start in range(0, len(expanded), length):
            piece = expanded[start : start + length]
            piece += [("-1",) * len(names)] * (length - len(piece))
            cells = [f'"{",".join(column)}"' for column in zip(*piece)]
            lines.append(f"{s % 5},{answers.student_names[s]}," + ",".join(cells))
    path.write_text("\n".join(lines) + "\n")


def ednet_folder(answers: Answers, folder: Path) -> None:
    """EdNet-KT1 of the table's students; a question has the skills of the first row that asks it."""
    (folder / "KT1").mkdir(parents=True)
    (folder / "contents").mkdir()
    tags: dict[str, str] = {}
    rows = rows_of(answers)
    for _, question, skills, _, _ in rows:
        tags.setdefault(question, ";".join(sorted(skills)))
    bank = ["question_id,bundle_id,explanation_id,correct_answer,part,tags,deployed_at"]
    bank += [f"{name},b1,e1,c,1,{tags.get(name, '-1')},0" for name in answers.question_names]
    (folder / "contents" / "questions.csv").write_text("\n".join(bank) + "\n")
    for s, (a, b) in enumerate(zip(answers.offsets[:-1].tolist(), answers.offsets[1:].tolist())):
        lines = ["timestamp,solving_id,question_id,user_answer,elapsed_time"]
        for i, (_, question, _, answer, time) in enumerate(rows[a:b], start=1):
            lines.append(f"{time * 1000},{i},{question},{'ac'[answer]},{i}000")
        (folder / "KT1" / f"{answers.student_names[s]}.csv").write_text("\n".join(lines) + "\n")


def joined(answers: Answers, more: Answers) -> Answers:
    """Both tables as one; they share their names of questions and skills."""
    return replace(
        answers,
        student_names=[*answers.student_names, *more.student_names],
        offsets=np.concatenate([answers.offsets, answers.offsets[-1] + more.offsets[1:]]),
        skill_offsets=np.concatenate([answers.skill_offsets, answers.skill_offsets[-1] + more.skill_offsets[1:]]),
        extra={name: np.concatenate([column, more.extra[name]]) for name, column in answers.extra.items()},
        **{
            name: np.concatenate([getattr(answers, name), getattr(more, name)])
            for name in ("answer", "skill", "question", "time")
        },
    )
