"""What a student knows, skill by skill and answer by answer: the table and the heat map that teachers ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dkt.data.protocols import protocol_named
from dkt.data.table import TO_PREDICT, Answers, DataError, Ints, cumulated
from dkt.evaluate import Floats
from dkt.models.base import Model
from dkt.utils import write_rows

ANY_QUESTION = "(any question)"  # of the skill: no model knows it, so none adds its difficulty


@dataclass(frozen=True)
class Mastery:
    """Of one student: rows are steps (0: nothing known yet), columns are skills."""

    student: str
    skills: list[str]
    probability: Floats  # [steps + 1, skills] of a right answer to a question of the skill
    attempts: Ints  # [steps + 1, skills] answers to the skill so far
    right: list[bool]  # [steps]

    def interval(self) -> tuple[Floats, Floats]:
        """What a share of so few attempts is worth: 95% of a proportion seen in `attempts + 1` draws."""
        half = 1.96 * np.sqrt(self.probability * (1 - self.probability) / (self.attempts + 1))
        return np.clip(self.probability - half, 0, 1), np.clip(self.probability + half, 0, 1)


def mastery(model: Model, answers: Answers, student: str, skills: Sequence[str] | None = None) -> Mastery:
    """How likely `student` is to answer each of `skills` (left out: their own) right, after each of their answers."""
    if student not in answers.student_names:
        raise DataError(
            f"student {student!r} is not in the file; it has {answers.n_students:,}, such as "
            f"{', '.join(answers.student_names[:3])}."
        )
    own = answers.students(np.array([answers.student_names.index(student)])).answered()
    if not len(own):
        raise DataError(f"student {student!r} has no known answer yet.")
    asked = np.repeat(np.arange(len(own)), own.skills_per_row)
    if skills is None:
        skills = [own.skill_names[k] for k in dict.fromkeys(own.skill.tolist())]
    unknown = [name for name in skills if name not in own.skill_names]
    names = [*own.skill_names, *unknown]
    columns = np.array([names.index(name) for name in skills])
    shown = _every_step(own, names, columns, protocol_named(model.protocol).chunk)
    probability = np.asarray(model.predict(shown))[shown.offsets[1:] - 1].reshape(len(own) + 1, len(skills))
    attempts = np.zeros((len(own) + 1, len(skills)), dtype=np.int64)
    for j, skill in enumerate(columns.tolist()):
        attempts[1:, j] = np.cumsum(np.bincount(asked[own.skill == skill], minlength=len(own)) > 0)
    return Mastery(student, list(skills), probability, attempts, own.answer.astype(bool).tolist())


def _every_step(own: Answers, skill_names: list[str], columns: Ints, longest: int) -> Answers:
    """A table of one student for each step and skill: the answers until then, and a row that asks the skill."""
    n, k = len(own), len(columns)
    step = np.repeat(np.arange(n + 1), k)
    begin = np.maximum(0, step - longest + 1)
    lengths = step - begin + 1
    offsets = cumulated(lengths)
    row = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1] - begin, lengths)
    probe = offsets[1:] - 1
    row[probe] = n + np.tile(np.arange(k), n + 1)  # the probes stand behind the student's rows
    counts = np.append(own.skills_per_row, np.ones(k, dtype=np.int64))
    first = cumulated(counts)
    place = np.repeat(first[row] - cumulated(counts[row])[:-1], counts[row]) + np.arange(int(counts[row].sum()))
    time = None
    if own.time is not None:
        time = np.append(own.time, np.zeros(k, dtype=np.int64))[row]
        time[probe] = own.time[np.maximum(step - 1, 0)]
    question = None
    if own.question is not None:
        question = np.append(own.question, np.full(k, len(own.question_names)))[row]
    return replace(
        own,
        student_names=[str(i) for i in range(len(step))],
        offsets=offsets,
        answer=np.append(own.answer, np.full(k, TO_PREDICT, dtype=np.int8))[row],
        skill_names=skill_names,
        skill=np.append(own.skill, columns)[place],
        skill_offsets=cumulated(counts[row]),
        question_names=[*own.question_names, ANY_QUESTION] if own.question is not None else own.question_names,
        question=question,
        time=time,
        extra={},
    )


def write_csv(found: Mastery, path: Path) -> None:
    """One line for each step and skill: student,step,skill,probability,attempts,low,high."""
    low, high = found.interval()
    rows = []
    for step in range(len(found.probability)):
        for j, skill in enumerate(found.skills):
            p, n = found.probability[step, j], found.attempts[step, j]
            rows.append((found.student, step, skill, f"{p:.6f}", n, f"{low[step, j]:.4f}", f"{high[step, j]:.4f}"))
    write_rows(path, ("student", "step", "skill", "probability", "attempts", "low", "high"), rows)


def draw(found: Mastery, path: Path) -> None:
    """Skills down, steps along, right and wrong answers below."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plots need matplotlib: pip install 'fulgurite[dkt]'", name="matplotlib") from error
    steps, skills = found.probability.shape
    figure = Figure(figsize=(min(16, 3 + 0.12 * steps), min(30, 1.6 + 0.28 * skills)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(found.probability.T, aspect="auto", vmin=0, vmax=1, cmap="RdYlGn", interpolation="nearest")
    axes.set_yticks(range(skills), [f"{name} ({n})" for name, n in zip(found.skills, found.attempts[-1], strict=True)])
    marks = ("o", True, "right"), ("x", False, "wrong")
    for marker, right, label in marks:
        at = [i + 1 for i, answer in enumerate(found.right) if answer is right]
        axes.plot(at, [skills - 0.4] * len(at), marker, color="black", markersize=3, clip_on=False, label=label)
    axes.set_xlabel("answers so far")
    axes.set_ylabel("skill (attempts)")
    axes.set_title(f"student {found.student}")
    figure.colorbar(image, label="probability of a right answer")
    figure.savefig(path)
