"""How good predictions are: over all rows, and over the rows whose answer could not be copied from the row before.

Both are always reported together: files that expand multi-skill problems reward a model for repeating what it
just read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from dkt.data.table import Answers, Bools, Ints

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Score:
    """Figures over one set of rows; `None` where they do not exist (one class only, or a file without question ids)."""

    auc: float | None
    auc_leakfree: float | None
    accuracy: float
    accuracy_leakfree: float | None
    log_loss: float
    log_loss_leakfree: float | None
    n: int
    n_leakfree: int | None

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)

    def __str__(self) -> str:
        free = "-" if self.n_leakfree is None else f"{self.n_leakfree:,}"
        return (
            f"AUC {_shown(self.auc)} (leak-free {_shown(self.auc_leakfree)})  "
            f"accuracy {_shown(self.accuracy)} ({_shown(self.accuracy_leakfree)})  "
            f"log loss {_shown(self.log_loss)} ({_shown(self.log_loss_leakfree)})  rows {self.n:,} ({free})"
        )


def score(answer: npt.NDArray[np.int8], probability: Floats, leak_free: Bools | None) -> Score:
    """All figures of predicted probabilities against answers; pass `leak_free=None` where there are no question ids."""
    right = answer.astype(bool)
    fresh = None if leak_free is None or not leak_free.any() else leak_free
    return Score(
        auc=auc(right, probability),
        auc_leakfree=None if fresh is None else auc(right[fresh], probability[fresh]),
        accuracy=accuracy(right, probability),
        accuracy_leakfree=None if fresh is None else accuracy(right[fresh], probability[fresh]),
        log_loss=log_loss(right, probability),
        log_loss_leakfree=None if fresh is None else log_loss(right[fresh], probability[fresh]),
        n=len(right),
        n_leakfree=None if fresh is None else int(fresh.sum()),
    )


def auc(right: Bools, value: Floats) -> float | None:
    """Exact area under the ROC curve, ties counted half; None if all answers are the same.

    float32 values are sorted as one packed 64-bit key (value bits, label), several times faster than an argsort.
    """
    if np.isnan(value).any():
        raise ValueError(f"{int(np.isnan(value).sum())} of {len(value)} predictions are NaN; no AUC exists.")
    n_right = int(np.count_nonzero(right))
    n_wrong = len(right) - n_right
    if not n_right or not n_wrong:
        return None
    if value.dtype == np.float32:
        bits = (value + np.float32(0)).view(np.uint32)  # + 0: makes -0.0 the same key as 0.0
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))  # unsigned order = order of the floats
        packed = (ordered.astype(np.uint64) << np.uint64(1)) | right.astype(np.uint64)
        packed.sort()
        label = (packed & np.uint64(1)).astype(np.int64)
        key = packed >> np.uint64(1)
        new_value = key[1:] != key[:-1]
    else:
        order = np.argsort(value, kind="stable")
        label = right[order].astype(np.int64)
        new_value = np.diff(value[order]) != 0
    end = np.append(np.flatnonzero(new_value), len(label) - 1)  # the last row of each group of equal values
    right_up_to = np.cumsum(label)[end]
    wrong_up_to = end + 1 - right_up_to
    right_here = np.diff(right_up_to, prepend=0)
    wrong_below = np.concatenate([[0], wrong_up_to[:-1]])
    twice = int(np.sum(right_here * (wrong_below + wrong_up_to)))  # a pair won counts 2, a tie 1: nothing is rounded
    return twice / (2 * n_right * n_wrong)


def accuracy(right: Bools, probability: Floats) -> float:
    return float(np.mean((probability >= 0.5) == right))


def log_loss(right: Bools, probability: Floats) -> float:
    """Mean negative log likelihood; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.log(np.where(right, p, 1 - p))))


def baselines(train: Answers, test: Answers) -> dict[str, Floats]:
    """What needs no model: the same guess for all, and the rate of the skill or the question in the training data."""
    mean = float(train.answer.mean())
    found: dict[str, Floats] = {"majority guess": np.full(len(test), mean)}
    skill_rate = _rates(train.skill_names, train.skill, np.repeat(train.answer, train.skills_per_row), mean)
    of_skill = np.array([skill_rate.get(name, mean) for name in test.skill_names])[test.skill]
    found["rate of the skill"] = np.add.reduceat(of_skill, test.skill_offsets[:-1]) / test.skills_per_row
    if train.question is not None and test.question is not None:
        question_rate = _rates(train.question_names, train.question, train.answer, mean)
        of_question = np.array([question_rate.get(name, mean) for name in test.question_names])
        found["rate of the question"] = of_question[test.question]
    return found


def _rates(
    names: list[str], code: Ints, answer: npt.NDArray[np.int8], mean: float, prior: float = 5.0
) -> dict[str, float]:
    """Share of right answers of each name, pulled towards `mean` by `prior` invented answers."""
    right = np.bincount(code, weights=answer, minlength=len(names))
    count = np.bincount(code, minlength=len(names))
    return dict(zip(names, ((right + prior * mean) / (count + prior)).tolist(), strict=True))


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
