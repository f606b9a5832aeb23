"""A simulated school whose truth is known: who knows what, how hard each question is, and so how well one can predict.

Skills (the tags a file shows) belong to fewer hidden concepts. A student is better at some concepts than at others,
learns a concept by practising it and forgets what was learned while time passes. Questions come in tests, ask one or
two skills, and differ in difficulty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dkt.data.course import write_course_csv
from dkt.data.table import TO_PREDICT, Answers, DataError, Ints, cumulated

Floats = npt.NDArray[np.float64]

QUESTIONS_PER_TEST = 8
MINUTE, DAY = 60, 86_400
START = 1_577_836_800  # 2020-01-01 00:00:00
TRUTH = "truth"  # the extra column that holds each row's true probability


@dataclass(frozen=True)
class Truth:
    """What a model may try to recover, and a file never shows."""

    concept_of_skill: Ints  # [skills]
    difficulty: Floats  # [questions]


@dataclass(frozen=True)
class Questions:
    """The question bank; concepts are given twice (the same one twice for a question of one skill)."""

    skills: Ints  # [questions, 2]: the second is -1 where only one is asked
    concepts: Ints  # [questions, 2]
    difficulty: Floats
    discrimination: Floats


def simulate(
    students: int = 3000,
    questions: int = 400,
    skills: int = 40,
    concepts: int = 8,
    answers_per_student: int = 80,
    seed: int = 0,
) -> tuple[Answers, Truth]:
    """A school's answers and its truth; the same arguments always give the same school.

    `answers.extra["truth"]` is the probability with which each answer was drawn.
    """
    _check(students, questions, skills, concepts, answers_per_student)
    rng = np.random.default_rng(seed)
    concept_of_skill = rng.permutation(np.arange(skills) % concepts)
    bank = _question_bank(questions, concept_of_skill, concepts, rng)
    lengths = np.clip(rng.lognormal(np.log(answers_per_student) - 0.18, 0.6, students), 5, questions).astype(np.int64)
    question = _curriculum(lengths, questions, rng)
    time = _timetable(lengths, rng)
    probability, right = _live(lengths, question, time, bank, concepts, rng)
    asked = bank.skills[question]
    per_row = (asked >= 0).sum(axis=1)
    answers = Answers(
        student_names=[str(s) for s in range(students)],
        offsets=cumulated(lengths),
        answer=right.astype(np.int8),
        skill_names=[str(k) for k in range(1, skills + 1)],
        skill=asked[asked >= 0],
        skill_offsets=cumulated(per_row),
        question_names=[
            f"{_test_name(i // QUESTIONS_PER_TEST, 3)}{i % QUESTIONS_PER_TEST + 1:03d}" for i in range(questions)
        ],
        question=question,
        time=time,
        extra={
            "test": np.array([_test_name(i, 6) for i in range(-(-questions // QUESTIONS_PER_TEST))])[
                question // QUESTIONS_PER_TEST
            ],
            TRUTH: probability,
        },
    )
    return answers, Truth(concept_of_skill, bank.difficulty)


def write_school(answers: Answers, truth: Truth, directory: Path, test_share: float = 0.1) -> dict[str, Path]:
    """Write the course's files, the truth beside each: test students are those whose last answer is to be predicted."""
    import polars as pl

    directory.mkdir(parents=True, exist_ok=True)
    is_test = np.zeros(answers.n_students, dtype=bool)
    is_test[:: max(1, round(1 / test_share))] = True
    paths = {}
    for name, which in (("train", ~is_test), ("test", is_test)):
        part = answers.students(np.flatnonzero(which))
        shown = part.answer.copy()
        if name == "test":
            shown[part.offsets[1:] - 1] = TO_PREDICT
        paths[name] = directory / f"{name}_data.csv"
        write_course_csv(replace(part, answer=shown), paths[name])
        pl.DataFrame(
            {
                "userID": np.array(part.student_names)[part.student],
                "answerCode": part.answer,
                "probability": part.extra[TRUTH],
            }
        ).write_csv(truth_path(paths[name]))
    pl.DataFrame({"KnowledgeTag": answers.skill_names, "concept": truth.concept_of_skill}).write_csv(
        directory / "concepts.csv"
    )
    return paths


def truth_path(data: Path) -> Path:
    """Where the truth of a simulated data file lies."""
    return data.with_name(f"{data.stem}_truth.csv")


def with_truth(answers: Answers, path: Path) -> Answers:
    """Join the truth file of a simulated school to its answers."""
    import polars as pl

    truth = pl.read_csv(path, schema_overrides={"userID": pl.String})
    if truth["userID"].to_list() != np.array(answers.student_names)[answers.student].tolist():
        raise DataError(f"{path} does not belong to its data file: it has other rows. Delete it, or simulate again.")
    return replace(answers, extra={**answers.extra, TRUTH: truth["probability"].to_numpy()})


def _question_bank(questions: int, concept_of_skill: Ints, concepts: int, rng: np.random.Generator) -> Questions:
    """Each test is about one concept; a fifth of its questions ask another, and a quarter ask a second skill."""
    skills = len(concept_of_skill)
    tests = -(-questions // QUESTIONS_PER_TEST)
    concept = rng.integers(concepts, size=tests)[np.arange(questions) // QUESTIONS_PER_TEST]
    concept = np.where(rng.random(questions) < 0.2, rng.integers(concepts, size=questions), concept)
    by_concept = np.argsort(concept_of_skill, kind="stable")
    size = np.bincount(concept_of_skill, minlength=concepts)
    first = by_concept[(np.cumsum(size) - size)[concept] + (rng.random(questions) * size[concept]).astype(np.int64)]
    second = (first + rng.integers(1, skills, size=questions)) % skills if skills > 1 else first
    both = (rng.random(questions) < 0.25) & (skills > 1)
    difficulty = rng.normal(0, 0.5, skills)[first] + rng.normal(0, 1.0, questions) + 0.9
    return Questions(
        skills=np.stack([first, np.where(both, second, -1)], axis=1),
        concepts=concept_of_skill[np.stack([first, np.where(both, second, first)], axis=1)],
        difficulty=difficulty,
        discrimination=1.4 * rng.lognormal(0, 0.2, questions),
    )


def _curriculum(lengths: Ints, questions: int, rng: np.random.Generator) -> Ints:
    """Which question each row asks: a student walks through the tests roughly in order, from a place of their own."""
    students, tests = len(lengths), -(-questions // QUESTIONS_PER_TEST)
    order = np.argsort(np.arange(tests) + rng.normal(0, 0.15 * tests, (students, tests)), axis=1)
    order = (order + rng.integers(tests, size=(students, 1))) % tests
    sequence = (order[:, :, None] * QUESTIONS_PER_TEST + np.arange(QUESTIONS_PER_TEST)).reshape(students, -1)
    exists = sequence < questions
    place = np.cumsum(exists, axis=1)
    chosen: Ints = sequence[exists & (place <= lengths[:, None])]
    return chosen


def _timetable(lengths: Ints, rng: np.random.Generator) -> Ints:
    """Seconds since 1970: a question takes a minute, and every second test begins on a later day."""
    n = int(lengths.sum())
    first = np.cumsum(lengths) - lengths
    nth = np.arange(n) - np.repeat(first, lengths)
    gap = rng.lognormal(np.log(MINUTE), 0.5, n) + 1
    later = (nth % QUESTIONS_PER_TEST == 0) & (rng.random(n) < 0.5)
    gap += later * (0.3 + rng.exponential(4, n)) * DAY
    gap[first] = rng.uniform(0, 90 * DAY, len(lengths))
    elapsed = np.cumsum(np.ceil(gap)).astype(np.int64)
    before: Ints = elapsed[first] - np.ceil(gap[first]).astype(np.int64)
    moment: Ints = START + elapsed - np.repeat(before, lengths)
    return moment


def _live(
    lengths: Ints, question: Ints, time: Ints, bank: Questions, concepts: int, rng: np.random.Generator
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Every student's life, all students one step at a time: the probability of each answer, and the answer drawn."""
    students = len(lengths)
    known = rng.normal(0, 0.7, (students, 1)) + rng.normal(0, 0.35, (students, concepts))
    pace = 0.12 * rng.lognormal(0, 0.2, students)
    learned = np.zeros((students, concepts))
    practised = np.full((students, concepts), -1.0)  # when; nothing is forgotten before it was learned
    guess, slip, most, lasting = 0.05, 0.03, 3.0, 20 * DAY
    longest_first = np.argsort(-lengths, kind="stable")
    first_row = (np.cumsum(lengths) - lengths)[longest_first]
    still_there = students - np.searchsorted(np.sort(lengths), np.arange(int(lengths.max())), side="right")
    chance = rng.random(len(question))
    probability = np.empty(len(question))
    for step, n in enumerate(still_there.tolist()):
        who, row = longest_first[:n], first_row[:n] + step
        asked, now = question[row], time[row]
        level = np.zeros(n)
        for concept in bank.concepts[asked].T:
            last = practised[who, concept]
            away = np.where(last < 0, 0, now - last)
            kept = learned[who, concept] * np.exp(-away / lasting)
            level += 0.5 * (known[who, concept] + kept)
            learned[who, concept] = kept + pace[who] * (most - kept)
            practised[who, concept] = now
        knows = 1 / (1 + np.exp(-bank.discrimination[asked] * (level - bank.difficulty[asked])))
        probability[row] = guess + (1 - guess - slip) * knows
    return probability, chance < probability


def _test_name(i: int, digits: int) -> str:
    return f"A{i % 9 + 1:02d}0{i + 1:0{digits}d}"


def _check(students: int, questions: int, skills: int, concepts: int, answers_per_student: int) -> None:
    for name, value in {"students": students, "answers_per_student": answers_per_student, "concepts": concepts}.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if not QUESTIONS_PER_TEST <= questions <= 999 * QUESTIONS_PER_TEST:
        raise ValueError(
            f"questions={questions} must be between {QUESTIONS_PER_TEST} (one test) and {999 * QUESTIONS_PER_TEST}."
        )
    if skills < concepts:
        raise ValueError(f"skills={skills} is less than concepts={concepts}: each concept needs a skill that shows it.")
