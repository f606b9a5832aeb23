"""Causal features of an answer: what was known the moment before it was given.

Each is declared once, in `FEATURES`, for n students at once: a table of many histories is walked one step at a time,
and a live student is the same walk with n = 1. What is known of questions and skills comes from other students: a
`Bank`, which for training rows is made without their own student's fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dkt.data.table import TO_PREDICT, Answers, Bools, Ints
from dkt.data.vocabulary import Vocabulary
from dkt.rasch import fit_rasch, sigmoid

Floats = npt.NDArray[np.float64]

RECENT = 8  # answers whose mean is a feature
PRIOR = 4.0  # invented answers that pull a rate towards what is more widely known
NEVER = -1


@dataclass(frozen=True)
class Items:
    """What other students tell of the question and the skills of each row."""

    skill: Floats  # number of its (first) skill
    rate: Floats  # share of right answers of the question, pulled towards its skills'
    count: Floats  # answers behind it
    skill_rate: Floats
    ease: Floats  # log-odds of a right answer of an average student
    question_ease: Floats  # what the question itself adds to that: the Rasch scalar; 0 where it was not seen

    def __getitem__(self, rows: Any) -> Items:
        return Items(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True)
class Bank:
    """Rates and difficulties of the training data's questions and skills; place 0 is what training has not seen."""

    vocabulary: Vocabulary
    skill_rate: Floats
    skill_ease: Floats
    question_rate: Floats  # NaN where the question was not seen
    question_count: Floats
    question_ease: Floats  # over the ease of its skills
    mean: float  # log-odds of a right answer

    @classmethod
    def of(cls, answers: Answers) -> Bank:
        """Learn from all rows of `answers`."""
        rasch = fit_rasch(answers)
        mean = float(answers.answer.mean())
        per_row = answers.skills_per_row
        n = np.bincount(answers.skill, minlength=len(answers.skill_names))
        right = np.bincount(answers.skill, np.repeat(answers.answer, per_row), minlength=len(answers.skill_names))
        skill_rate = (right + PRIOR * mean) / (n + PRIOR)
        questions = len(answers.question_names)
        rate, count = np.zeros(questions), np.zeros(questions)
        if answers.question is not None:
            of_row = np.add.reduceat(skill_rate[answers.skill], answers.skill_offsets[:-1]) / per_row
            count = np.bincount(answers.question, minlength=questions).astype(np.float64)
            expected = np.bincount(answers.question, of_row, minlength=questions) / np.maximum(count, 1)
            rate = (np.bincount(answers.question, answers.answer, minlength=questions) + PRIOR * expected) / (
                count + PRIOR
            )
        return cls(
            Vocabulary.of(answers),
            np.concatenate([[mean], skill_rate]),
            np.concatenate([[0.0], rasch.skill]),
            np.concatenate([[np.nan], np.where(count > 0, rate, np.nan)]),
            np.concatenate([[0.0], count]),
            np.concatenate([[0.0], rasch.question[:questions]]),
            rasch.mean,
        )

    def state(self) -> dict[str, Any]:
        """What a file keeps: plain lists."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        ids = columns.pop("vocabulary")
        mean = columns.pop("mean")
        kept = {name: column.tolist() for name, column in columns.items()}
        return {"skills": ids.skills, "questions": ids.questions, "log_odds": mean, "bank": kept}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Bank:
        columns = {name: np.array(column) for name, column in state["bank"].items()}
        return cls(Vocabulary(state["skills"], state["questions"]), mean=state["log_odds"], **columns)

    def items(self, answers: Answers) -> Items:
        """What this bank knows of each row's question and skills."""
        skills = self.vocabulary.skills_of(answers)
        question = self.vocabulary.questions_of(answers)
        real = answers.skill_matrix() >= 0
        share = real / real.sum(1, keepdims=True)
        skill_rate = (self.skill_rate[skills] * share).sum(1)
        rate = self.question_rate[question]
        return Items(
            skills[:, 0].astype(np.float64),
            np.where(np.isnan(rate), skill_rate, rate),
            self.question_count[question],
            skill_rate,
            self.mean + (self.skill_ease[skills] * share).sum(1) + self.question_ease[question],
            self.question_ease[question],
        )


class Past:
    """What n students did so far: a place for each, for each skill a student met, and for each question."""

    def __init__(self, students: int, skills: int, questions: int) -> None:
        self.count = np.zeros(students)
        self.right = np.zeros(students)
        self.surplus = np.zeros(students)  # right answers beyond what the questions' ease let expect
        self.elo = np.zeros(students)
        self.streak = np.zeros(students)  # equal answers in a row: right ones positive, wrong ones negative
        self.recent = np.zeros((students, RECENT))
        self.question = np.full(students, NEVER)
        self.skills = np.full(students, NEVER)
        self.time = np.full(students, np.nan)
        self.skill_count = np.zeros(skills)
        self.skill_right = np.zeros(skills)
        self.skill_elo = np.zeros(skills)
        self.skill_last = np.full(skills, np.nan)
        self.skill_step = np.full(skills, np.nan)
        self.question_count = np.zeros(questions)
        self.question_last = np.full(questions, np.nan)

    def grow(self, skills: int, questions: int) -> None:
        """Room for at least so many skills and questions; what is there stays."""
        fresh = Past(1, skills, questions)
        for name, column in vars(self).items():
            if name.startswith(("skill_", "question_")) and len(column) < len(getattr(fresh, name)):
                getattr(fresh, name)[: len(column)] = column
                setattr(self, name, getattr(fresh, name))


@dataclass(frozen=True)
class Now:
    """n students, each about to answer one question."""

    past: Past
    who: Ints  # [n] the place of each in `past`
    skill: Ints  # [n, K] the places of the skills asked
    share: Floats  # [n, K] weight of each; 0 for what fills short sets
    skills: Ints  # [n] an id of the whole set
    question: Ints  # [n] the place of the question
    item: Items
    time: Floats  # [n] seconds, NaN where unknown

    def of_student(self, column: npt.NDArray[Any]) -> Floats:
        return np.asarray(column[self.who], dtype=np.float64)

    def of_skills(self, column: Floats) -> Floats:
        """The mean over the skills asked."""
        if self.skill.shape[1] == 1:
            return np.asarray(column[self.skill[:, 0]], dtype=np.float64)
        return np.asarray(np.where(self.share > 0, column[self.skill] * self.share, 0.0).sum(1), dtype=np.float64)

    @property
    def began(self) -> Bools:
        return np.asarray(self.past.count[self.who] > 0)

    @property
    def same_question(self) -> Bools:
        return np.asarray(self.past.question[self.who] == self.question)

    @property
    def last_answer(self) -> Floats:
        return np.where(self.began, self.past.recent[self.who, 0], np.nan)

    def mean_of_last(self, n: int) -> Floats:
        known = np.minimum(self.past.count[self.who], n)
        total = self.past.recent[self.who, :n].sum(1)
        return np.where(known > 0, total / np.maximum(known, 1), np.nan)


FEATURES: dict[str, Callable[[Now], npt.NDArray[Any]]] = {
    # what is asked
    "skill": lambda now: now.item.skill,
    "item_rate": lambda now: now.item.rate,
    "item_count": lambda now: now.item.count,
    "skill_rate": lambda now: now.item.skill_rate,
    "item_ease": lambda now: now.item.ease,
    "question_ease": lambda now: now.item.question_ease,
    # who is asked
    "student_count": lambda now: now.of_student(now.past.count),
    "student_rate": lambda now: (
        (now.of_student(now.past.right) + PRIOR * 0.65) / (now.of_student(now.past.count) + PRIOR)
    ),
    "student_surplus": lambda now: now.of_student(now.past.surplus) / (now.of_student(now.past.count) + PRIOR),
    "student_skill_count": lambda now: now.of_skills(now.past.skill_count),
    "student_skill_rate": lambda now: (
        (now.of_skills(now.past.skill_right) + 2 * now.item.skill_rate) / (now.of_skills(now.past.skill_count) + 2)
    ),
    "last_on_skill": lambda now: now.of_skills(now.past.skill_last),
    "steps_since_skill": lambda now: now.of_student(now.past.count) - now.of_skills(now.past.skill_step),
    "elo_student": lambda now: now.of_student(now.past.elo),
    "elo_student_skill": lambda now: now.of_skills(now.past.skill_elo),
    "elo_student_and_item": lambda now: now.of_student(now.past.elo) + now.item.ease,
    "elo_student_skill_and_item": lambda now: now.of_skills(now.past.skill_elo) + now.item.ease,
    # what just happened
    "last_answer": lambda now: now.last_answer,
    "same_question": lambda now: now.same_question,
    "last_answer_if_same_question": lambda now: np.where(now.same_question, now.last_answer, np.nan),
    "mean_of_last_3": lambda now: now.mean_of_last(3),
    "mean_of_last_8": lambda now: now.mean_of_last(RECENT),
    "streak": lambda now: now.of_student(now.past.streak),
    "same_skills": lambda now: now.past.skills[now.who] == now.skills,
    # the same question before, and time
    "attempts": lambda now: now.past.question_count[now.question],
    "last_on_question": lambda now: now.past.question_last[now.question],
    "log_seconds_since_last": lambda now: np.log1p(np.maximum(now.time - now.of_student(now.past.time), 0)),
}
NAMES = tuple(FEATURES)


def remember(now: Now, right: Floats) -> None:
    """Move the past on by the answers just given."""
    past, who, skill, question = now.past, now.who, now.skill, now.question
    real = now.share > 0
    n, n_skill = past.count[who], past.skill_count[skill]
    elo, ease = past.elo[who], now.item.ease
    past.elo[who] = elo + (0.15 + 0.6 / (1 + 0.3 * n)) * (right - sigmoid(elo + ease))
    level = past.skill_elo[skill]
    past.surplus[who] += right - sigmoid(ease)
    step = (0.3 + 0.7 / (1 + 0.3 * n_skill)) * (right[:, None] - sigmoid(level + ease[:, None]))
    same = np.sign(past.streak[who]) == 2 * right - 1
    past.streak[who] = np.where(same, past.streak[who], 0) + 2 * right - 1
    past.count[who] += 1
    past.right[who] += right
    recent = past.recent[who]
    recent[:, 1:] = recent[:, :-1].copy()
    recent[:, 0] = right
    past.recent[who] = recent
    past.question[who], past.skills[who], past.time[who] = question, now.skills, now.time
    past.question_count[question] += 1
    past.question_last[question] = right
    met = skill[real]
    answer = np.broadcast_to(right[:, None], skill.shape)[real]
    past.skill_elo[met] = (level + step)[real]
    past.skill_count[met] += 1
    past.skill_right[met] += answer
    past.skill_last[met] = answer
    past.skill_step[met] = np.broadcast_to(n[:, None], skill.shape)[real]


def compute(answers: Answers, starts: Ints, lengths: Ints, items: Items) -> npt.NDArray[np.float32]:
    """[rows, features] of the sequences `starts[i]:starts[i] + lengths[i]`, each begun without memory; else NaN."""
    table = np.full((len(answers), len(NAMES)), np.nan, dtype=np.float32)
    sequence = np.zeros(len(answers), dtype=np.int64)
    rows = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    sequence[rows] = np.repeat(np.arange(len(starts)), lengths)
    matrix = answers.skill_matrix()
    real = matrix >= 0
    share = real / real.sum(1, keepdims=True)
    skill, n_skills = _places(sequence[:, None] * (len(answers.skill_names) + 1) + matrix + 1)
    _, sets = np.unique(np.sort(matrix, axis=1), axis=0, return_inverse=True)
    if answers.question is None:
        question, n_questions = np.arange(len(answers)), len(answers)  # every row a question of its own
    else:
        question, n_questions = _places(sequence * len(answers.question_names) + answers.question)
    time = np.full(len(answers), np.nan) if answers.time is None else answers.time.astype(np.float64)
    longest_first = np.argsort(-lengths, kind="stable")
    first = starts[longest_first]
    still_there = len(starts) - np.searchsorted(np.sort(lengths), np.arange(int(lengths.max(initial=0))), side="right")
    past = Past(len(starts), n_skills, n_questions)
    for step, n in enumerate(still_there.tolist()):
        row = first[:n] + step
        now = Now(past, np.arange(n), skill[row], share[row], sets.ravel()[row], question[row], items[row], time[row])
        for column, value in enumerate(FEATURES.values()):
            table[row, column] = value(now)
        known = answers.answer[row] != TO_PREDICT
        if not known.all():
            now = _only(now, known)
        remember(now, answers.answer[row][known].astype(np.float64))
    return table


class FeatureSet:
    """Causal features for a protocol's sequences: out of fold for the training data, then for any other.

    >>> features = FeatureSet()
    >>> X = features.fit_transform(train, *protocol.sequences(train))
    >>> X_test = features.transform(test, *protocol.sequences(test))
    """

    def __init__(self, folds: int = 10, seed: int = 0) -> None:
        self.folds = folds
        self.seed = seed
        self.bank: Bank | None = None

    def fit_transform(self, answers: Answers, starts: Ints, lengths: Ints) -> npt.NDArray[np.float32]:
        """Features of the training rows: what they know of questions comes from the students of other folds."""
        self.bank = Bank.of(answers)
        folds = max(2, min(self.folds, answers.n_students))
        fold = np.random.default_rng(self.seed).permutation(answers.n_students) % folds
        items = self.bank.items(answers)
        if answers.n_students > 1:
            for k in range(folds):
                others = answers.students(np.flatnonzero(fold != k))
                mine = (fold == k)[answers.student]
                known = Bank.of(others).items(answers)
                for column in fields(items):
                    getattr(items, column.name)[mine] = getattr(known, column.name)[mine]
                items.count[mine] *= answers.n_students / others.n_students  # as large as a new student will see it
        return self._table(answers, starts, lengths, items)

    def transform(self, answers: Answers, starts: Ints, lengths: Ints) -> npt.NDArray[np.float32]:
        """Features of rows of students who were not in the training data."""
        return self._table(answers, starts, lengths, self.known().items(answers))

    def _table(self, answers: Answers, starts: Ints, lengths: Ints, items: Items) -> npt.NDArray[np.float32]:
        return compute(answers, starts, lengths, items)

    def known(self) -> Bank:
        """What the training data told of questions and skills."""
        if self.bank is None:
            raise ValueError("the features know no question yet; call fit_transform with the training data first.")
        return self.bank

    def state(self) -> dict[str, Any]:
        """What a file keeps: plain lists."""
        return {"names": list(NAMES), **self.known().state()}

    def load(self, state: dict[str, Any]) -> None:
        kept = state.get("names", list(NAMES))
        if kept != list(NAMES):
            other = sorted(set(kept) ^ set(NAMES))
            raise ValueError(
                f"the file was written with other causal features than this version of dkt declares ({', '.join(other)}"
                " differ); fit the model again, or read it with the version that wrote it."
            )
        self.bank = Bank.of_state(state)


class NetFeatures(FeatureSet):
    """The features `names` as a net takes them: of mean 0 and deviation 1, 0 where unknown."""

    ALL = tuple(name for name in NAMES if name != "skill")  # nets have embeddings of skills
    SCALAR = "question_ease"
    TIME = "log_seconds_since_last"

    def __init__(self, names: Sequence[str] = ALL, folds: int = 10, seed: int = 0) -> None:
        super().__init__(folds, seed)
        self.names = tuple(names)
        self.mean = np.zeros(len(self.names), dtype=np.float32)
        self.deviation = np.ones(len(self.names), dtype=np.float32)

    def fit_transform(self, answers: Answers, starts: Ints, lengths: Ints) -> npt.NDArray[np.float32]:
        table = _tamed(super().fit_transform(answers, starts, lengths), self.names)
        known = np.where(np.isnan(table), 0, 1).sum(0)
        total = np.nansum(table, axis=0, dtype=np.float64)
        square = np.nansum(np.square(table, dtype=np.float64), axis=0)
        mean = total / np.maximum(known, 1)
        self.mean = mean.astype(np.float32)
        self.deviation = np.sqrt(np.maximum(square / np.maximum(known, 1) - mean**2, 1e-6)).astype(np.float32)
        return self._scaled(table)

    def transform(self, answers: Answers, starts: Ints, lengths: Ints) -> npt.NDArray[np.float32]:
        return self.scaled(super().transform(answers, starts, lengths))

    def scaled(self, table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Rows of causal features as a net takes them."""
        return self._scaled(_tamed(table, self.names))

    def _table(self, answers: Answers, starts: Ints, lengths: Ints, items: Items) -> npt.NDArray[np.float32]:
        if self.names != (self.SCALAR,):
            return super()._table(answers, starts, lengths, items)
        table = np.full((len(answers), len(NAMES)), np.nan, dtype=np.float32)  # no past is asked for: none is walked
        table[:, NAMES.index(self.SCALAR)] = items.question_ease
        return table

    def _scaled(self, table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        scaled = np.clip((table - self.mean) / self.deviation, -5, 5)
        return np.asarray(np.nan_to_num(scaled), dtype=np.float32)

    def scale_of(self, name: str) -> tuple[float, float]:
        """(mean, deviation) that a feature had before it was scaled."""
        column = self.names.index(name)
        return float(self.mean[column]), float(self.deviation[column])

    def state(self) -> dict[str, Any]:
        return {**super().state(), "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.mean = np.array(state["mean"], dtype=np.float32)
        self.deviation = np.array(state["deviation"], dtype=np.float32)


def _tamed(table: npt.NDArray[np.float32], names: Sequence[str]) -> npt.NDArray[np.float32]:
    """The columns `names`, counts as logarithms: a net likes no long tails."""
    table = table[:, [NAMES.index(name) for name in names]]
    for column, name in enumerate(names):
        if name in ("item_count", "student_count", "student_skill_count", "steps_since_skill", "attempts"):
            table[:, column] = np.log1p(table[:, column])
        elif name == "streak":
            table[:, column] = np.sign(table[:, column]) * np.log1p(np.abs(table[:, column]))
    return table


def check_skills(skills: Sequence[str]) -> None:
    """Raise unless these are the names of at least one skill."""
    if isinstance(skills, str):
        raise TypeError(f"skills={skills!r} is one text, which would be read letter by letter; give [{skills!r}].")
    if len(skills) == 0:
        raise ValueError("a question asks no skill; name at least one, if only 'unknown'.")


class LiveFeatures:
    """The features of one student, answer by answer: equal to those of a table that holds the same history."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.past = Past(1, 16, 16)
        self._skill: dict[str, int] = {}
        self._question: dict[str, int] = {}
        self._sets: dict[frozenset[str], int] = {}

    def features(self, question: str | None, skills: Sequence[str], time: float = np.nan) -> npt.NDArray[np.float32]:
        """[features] of a question that may be asked next."""
        now = self._now(question, skills, time)
        return np.array([value(now)[0] for value in FEATURES.values()], dtype=np.float32)

    def answer(self, question: str | None, skills: Sequence[str], right: bool, time: float = np.nan) -> None:
        """Remember what the student answered."""
        remember(self._now(question, skills, time), np.array([float(right)]))

    def _now(self, question: str | None, skills: Sequence[str], time: float) -> Now:
        check_skills(skills)
        skill = [self._skill.setdefault(name, len(self._skill)) for name in skills]
        name = f"row {self.past.count[0]}" if question is None else f"question {question}"
        place = self._question.setdefault(name, len(self._question))
        skill_set = self._sets.setdefault(frozenset(skills), len(self._sets))
        if len(self._skill) > len(self.past.skill_count) or len(self._question) > len(self.past.question_count):
            self.past.grow(2 * len(self._skill), 2 * len(self._question))
        one = np.zeros(1, dtype=np.int64)
        asked = Answers(
            student_names=["live"],
            offsets=np.array([0, 1]),
            answer=np.array([TO_PREDICT], dtype=np.int8),
            skill_names=list(skills),
            skill=np.arange(len(skills)),
            skill_offsets=np.array([0, len(skills)]),
            question_names=[] if question is None else [question],
            question=None if question is None else one,
        )
        return Now(
            self.past,
            one,
            np.array([skill]),
            np.full((1, len(skill)), 1 / len(skill)),
            np.array([skill_set]),
            np.array([place]),
            self.bank.items(asked),
            np.array([time], dtype=np.float64),
        )


def _only(now: Now, which: Bools) -> Now:
    return Now(
        now.past,
        now.who[which],
        now.skill[which],
        now.share[which],
        now.skills[which],
        now.question[which],
        now.item[which],
        now.time[which],
    )


def _places(keys: Ints) -> tuple[Ints, int]:
    distinct, place = np.unique(keys, return_inverse=True)
    return place.reshape(keys.shape).astype(np.int64), len(distinct)
