"""Which skills belong together, as a fitted model sees it: an answer to one moves the prediction of its own kind.

The DKT paper's influence J_ij, measured on real histories and for any model: the answer to skill i is turned from wrong
to right, and the log-odds of a later row of skill j move.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dkt.data.protocols import protocol_named
from dkt.data.table import Answers, Ints, cumulated
from dkt.models.base import Model

Floats = npt.NDArray[np.floating]


def influence(model: Model, answers: Answers, students: int = 60, seed: int = 0) -> npt.NDArray[np.float64]:
    """[skills, skills] by how much a right answer to i instead of a wrong one raises the log-odds of j, later on.

    The mean over the histories of some students (their first chunk); NaN where i is never followed by j. Rows of
    several skills count for each of them.
    """
    chosen = np.random.default_rng(seed).permutation(answers.n_students)[:students]
    total, count = (np.zeros((len(answers.skill_names), len(answers.skill_names))) for _ in range(2))
    for student in chosen:
        history = _first_chunk(answers.students(np.array([student])), protocol_named(model.protocol).chunk)
        change = _changes(model, history)
        matrix = history.skill_matrix()
        for one in matrix.T:
            for other in matrix.T:
                i, j = np.nonzero((one[:, None] >= 0) & (other >= 0) & np.triu(np.ones_like(change, dtype=bool), 1))
                np.add.at(total, (one[i], other[j]), change[i, j])
                np.add.at(count, (one[i], other[j]), 1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _first_chunk(history: Answers, chunk: int) -> Answers:
    return history.rows(np.arange(len(history)) < chunk)


def _changes(model: Model, history: Answers) -> npt.NDArray[np.float64]:
    """[n, n] change of the log-odds of row j when the answer of row i turns from wrong to right."""
    n = len(history)
    log_odds = []
    for right in (0, 1):
        copies = np.tile(history.answer, (n, 1))
        np.fill_diagonal(copies, right)
        p = np.clip(model.predict(_copies(history, copies)).astype(np.float64), 1e-6, 1 - 1e-6).reshape(n, n)
        log_odds.append(np.log(p / (1 - p)))
    return np.asarray(log_odds[1] - log_odds[0])


def _copies(history: Answers, answer: npt.NDArray[np.int8]) -> Answers:
    """A student for each line of `answer`, all asked what `history` was."""
    n = len(answer)
    return replace(
        history,
        student_names=[str(i) for i in range(n)],
        offsets=np.arange(n + 1) * len(history),
        answer=answer.ravel(),
        skill=np.tile(history.skill, n),
        skill_offsets=cumulated(np.tile(history.skills_per_row, n)),
        question=None if history.question is None else np.tile(history.question, n),
        time=None if history.time is None else np.tile(history.time, n),
        extra={},
    )


def hidden_concepts(influence: Floats, concepts: int, seed: int = 0) -> Ints:
    """[skills] group of each skill: those that influence each other, by spectral clustering."""
    n = len(influence)
    if not 1 <= concepts <= n:
        raise ValueError(f"concepts={concepts} must be between 1 and the {n} skills.")
    both = np.nanmean(np.where(np.isnan([influence, influence.T]).all(0), 0.0, [influence, influence.T]), axis=0)
    both = np.clip(both, 0, None)
    np.fill_diagonal(both, 0)
    root = np.sqrt(np.maximum(both.sum(1), 1e-12))
    _, vectors = np.linalg.eigh(both / root[:, None] / root)
    place = vectors[:, -concepts:]
    place = place / np.maximum(np.linalg.norm(place, axis=1, keepdims=True), 1e-12)
    return _k_means(place, concepts, np.random.default_rng(seed))


def _k_means(x: Floats, k: int, rng: np.random.Generator, starts: int = 20, rounds: int = 50) -> Ints:
    best, best_cost = np.zeros(len(x), dtype=np.int64), np.inf
    for _ in range(starts):
        centre = x[rng.choice(len(x), 1)]
        while len(centre) < k:  # each next centre far from those before (k-means++)
            away = np.square(x[:, None] - centre).sum(-1).min(1) + 1e-12
            centre = np.concatenate([centre, x[rng.choice(len(x), 1, p=away / away.sum())]])
        for _ in range(rounds):
            far = np.square(x[:, None] - centre).sum(-1)
            group = far.argmin(1)
            fresh = np.stack([x[group == g].mean(0) if (group == g).any() else centre[g] for g in range(k)])
            if np.allclose(fresh, centre):
                break
            centre = fresh
        cost = far.min(1).sum()
        if cost < best_cost:
            best, best_cost = group, cost
    return best


def adjusted_rand_index(one: Ints, other: Ints) -> float:
    """How far two groupings agree: 1 where they are the same, 0 on average where they are unrelated."""
    if len(one) != len(other):
        raise ValueError(f"two groupings of the same things are compared; these are of {len(one)} and {len(other)}.")
    _, a = np.unique(one, return_inverse=True)
    _, b = np.unique(other, return_inverse=True)
    table = np.zeros((a.max(initial=0) + 1, b.max(initial=0) + 1), dtype=np.int64)
    np.add.at(table, (a, b), 1)

    def pairs(counts: npt.NDArray[np.int64]) -> float:
        return float((counts * (counts - 1) // 2).sum())

    both, first, second = pairs(table.ravel()), pairs(table.sum(1)), pairs(table.sum(0))
    by_chance = first * second / max(pairs(np.array([len(one)])), 1.0)
    most = (first + second) / 2
    return 1.0 if most == by_chance else (both - by_chance) / (most - by_chance)
