"""Bayesian knowledge tracing (Corbett and Anderson, 1994): a skill is known or not, and is learned by practice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dkt.data.protocols import protocol_named
from dkt.data.table import TO_PREDICT, Answers, Bools, Ints
from dkt.data.vocabulary import Vocabulary
from dkt.evaluate import Floats
from dkt.models.base import Model

MOST = 0.4  # guess and slip stay below it: above one half, knowing would mean answering wrong


class BKT(Model):
    """Four numbers a skill (known at first, learned, guess, slip), by expectation maximisation.

    A row of several skills is answered by the mean of them, and each of them learns from the answer.
    """

    title = "BKT"
    needs_valid = False
    learned = ("vocabulary", "first", "learn", "guess", "slip")

    def __init__(self, rounds: int = 15, protocol: str = "akt", seed: int = 0) -> None:
        super().__init__(protocol, seed)
        self.rounds = rounds

    def _fit(self, train: Answers, valid: Answers) -> None:
        self.vocabulary = Vocabulary.of(train)
        n = len(self.vocabulary.skills) + 1  # place 0: a skill not seen keeps the beginning values
        self.first, self.learn = np.full(n, 0.4), np.full(n, 0.1)
        self.guess, self.slip = np.full(n, 0.2), np.full(n, 0.1)
        _, skill, right, at = self._chains(train)
        for _ in range(self.rounds):
            self._improve(skill, right, at)

    def predict(self, answers: Answers) -> Floats:
        row, skill, right, at = self._chains(answers)
        known = self._forward(skill, right)[0]
        p = np.where(at, known * (1 - self.slip[skill])[:, None] + (1 - known) * self.guess[skill][:, None], 0.0)
        total = np.bincount(row[at], p[at], minlength=len(answers))
        return np.asarray(total / np.maximum(np.bincount(row[at], minlength=len(answers)), 1))

    def state(self) -> dict[str, Any]:
        numbers = {name: torch.from_numpy(getattr(self, name)) for name in self.learned[1:]}
        return {"skills": self.vocabulary.skills, **numbers}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(state["skills"], [])
        self.first, self.learn, self.guess, self.slip = (state[name].numpy() for name in self.learned[1:])

    @property
    def n_parameters(self) -> int:
        return 4 * (len(self.first) - 1)

    def _chains(self, answers: Answers) -> tuple[Ints, Ints, Floats, Bools]:
        """One line per (sequence, skill): rows [C, T], skills [C], answers [C, T] (NaN to predict), filled cells."""
        starts, lengths = protocol_named(self.protocol).sequences(answers)
        sequence = np.full(len(answers), -1)
        rows = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        sequence[rows] = np.repeat(np.arange(len(starts)), lengths)
        matrix = self.vocabulary.skills_of(answers)
        row, place = np.nonzero((answers.skill_matrix() >= 0) & (sequence >= 0)[:, None])
        own = answers.skill_matrix()[row, place]  # by the table's own ids: two skills not seen are still two
        order = np.lexsort((row, own, sequence[row]))
        row, number, own = row[order], matrix[row, place][order], own[order]
        new = np.ones(len(row), dtype=bool)
        new[1:] = (sequence[row][1:] != sequence[row][:-1]) | (own[1:] != own[:-1])
        chain = np.cumsum(new) - 1
        begin = np.flatnonzero(new)
        step = np.arange(len(row)) - begin[chain]
        shape = len(begin), int(step.max(initial=0)) + 1
        rows_CT, right, at = np.zeros(shape, dtype=np.int64), np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        rows_CT[chain, step], at[chain, step] = row, True
        answer = answers.answer[row].astype(np.float64)
        right[chain, step] = np.where(answer == TO_PREDICT, np.nan, answer)
        return rows_CT, number[begin], right, at

    def _seen(self, skill: Ints, right: Floats) -> tuple[Floats, Floats]:
        """Likelihood of an answer where the skill is known, and where it is not; 1 where nothing was seen."""
        slip, guess = self.slip[skill], self.guess[skill]
        if_known = np.where(right == 1, 1 - slip, slip)
        if_not = np.where(right == 1, guess, 1 - guess)
        nothing = np.isnan(right)
        return np.where(nothing, 1, if_known), np.where(nothing, 1, if_not)

    def _forward(self, skill: Ints, right: Floats) -> tuple[Floats, Floats]:
        """[C, T] probability that the skill is known before each answer, and after having seen it."""
        before, after = np.zeros(right.shape), np.zeros(right.shape)
        known = self.first[skill]
        for t in range(right.shape[1]):
            before[:, t] = known
            if_known, if_not = self._seen(skill, right[:, t])
            after[:, t] = known * if_known / np.maximum(known * if_known + (1 - known) * if_not, 1e-12)
            known = after[:, t] + (1 - after[:, t]) * self.learn[skill]
        return before, after

    def _improve(self, skill: Ints, right: Floats, at: Bools) -> None:
        """One round: how likely each state was, given the whole life of the skill, then the shares it explains."""
        _, after = self._forward(skill, right)
        learn = self.learn[skill]
        smooth, learned, unknown = after.copy(), np.zeros(right.shape), np.zeros(right.shape)
        for t in range(right.shape[1] - 2, -1, -1):  # knowledge is not lost, so unknown later was unknown before
            inside = at[:, t + 1]
            ahead = after[:, t] + (1 - after[:, t]) * learn
            not_later = 1 - smooth[:, t + 1]
            stayed = not_later  # unknown at t and at t + 1
            came = smooth[:, t + 1] * (1 - after[:, t]) * learn / np.maximum(ahead, 1e-12)
            smooth[:, t] = np.where(inside, np.clip(1 - stayed - came, 0, 1), after[:, t])
            learned[:, t], unknown[:, t] = np.where(inside, came, 0), np.where(inside, came + stayed, 0)

        def per_skill(values: Floats) -> Floats:
            return np.bincount(skill, values, minlength=len(self.first)).astype(np.float64)

        def share(part: Floats, whole: Floats, prior: float, weight: float = 10.0) -> Floats:
            return np.asarray((per_skill(part) + weight * prior) / (per_skill(whole) + weight))

        weight = np.where(at & ~np.isnan(right), 1.0, 0.0)
        wrong, ok = weight * (right == 0), weight * (right == 1)
        self.first = share(smooth[:, 0], np.ones(len(skill)), 0.4)
        self.learn = share(learned.sum(1), unknown.sum(1), 0.1)
        self.slip = np.clip(share((smooth * wrong).sum(1), (smooth * weight).sum(1), 0.1), 0.01, MOST)
        self.guess = np.clip(share(((1 - smooth) * ok).sum(1), ((1 - smooth) * weight).sum(1), 0.2), 0.01, MOST)
