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
        ordered = bits ^ np.where(
            value < 0, np.uint32(0xFFFFFFFF), np.uint32(1 << 31)
        )  # as unsigned: order of the floats
        key = ordered.astype(np.uint64)
        key <<= np.uint64(1)
        key |= right
        key.sort()
        label = (key & np.uint64(1)).astype(bool)
        is_new = (key[1:] ^ key[:-1]) > 1
    else:
        order = np.lexsort((right, value))
        label = right[order]
        is_new = np.diff(value[order]) != 0
    # Among equal values the wrong answers come first, so that what stands before a right one counts ties as won.
    place = np.flatnonzero(label)
    won_or_tied = int(place.sum()) - n_right * (n_right - 1) // 2
    tied = 0
    if not is_new.all():
        begins, ends = np.append(True, is_new), np.append(is_new, True)
        in_tie = ~(begins & ends)
        first = np.flatnonzero(begins[in_tie])
        right_here = np.add.reduceat(label[in_tie].astype(np.int64), first)
        wrong_here = np.diff(first, append=np.count_nonzero(in_tie)) - right_here
        tied = int(np.sum(right_here * wrong_here))
    return (2 * won_or_tied - tied) / (2 * n_right * n_wrong)  # whole numbers up to here: nothing was rounded


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
