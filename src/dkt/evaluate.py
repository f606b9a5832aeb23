"""How good predictions are: over all rows, and over the rows whose answer could not be copied from the row before.

Both are always reported together: files that expand multi-skill problems reward a model for repeating what it
just read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from dkt.data.protocols import Protocol
from dkt.data.table import TO_PREDICT, Answers, Bools, Ints

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
    brier: float
    brier_leakfree: float | None
    ece: float
    ece_leakfree: float | None
    n: int
    n_leakfree: int | None

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)

    def __str__(self) -> str:
        free = "-" if self.n_leakfree is None else f"{self.n_leakfree:,}"
        return (
            f"AUC {_shown(self.auc)} (leak-free {_shown(self.auc_leakfree)})  "
            f"accuracy {_shown(self.accuracy)} ({_shown(self.accuracy_leakfree)})  "
            f"log loss {_shown(self.log_loss)} ({_shown(self.log_loss_leakfree)})  "
            f"Brier {_shown(self.brier)} ({_shown(self.brier_leakfree)})  "
            f"ECE {_shown(self.ece)} ({_shown(self.ece_leakfree)})  rows {self.n:,} ({free})"
        )


Interval = tuple[float, float]
ByHistory = dict[str, tuple[float | None, int]]  # the answer's place in the history -> (AUC, rows)


@dataclass(frozen=True)
class Report:
    """A score, how sure it is, and whether it holds for students of whom little is known."""

    score: Score
    auc_interval: Interval | None  # 95% of bootstrap samples of students
    auc_leakfree_interval: Interval | None
    auc_by_history: ByHistory
    auc_leakfree_by_history: ByHistory | None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        s = self.score
        titles = ("AUC", "95% by student", "accuracy", "log loss", "Brier", "ECE", "rows")
        lines = [
            " " * 10 + "".join(f"{title:>{w}}" for title, w in zip(titles, (8, 18, 10, 10, 8, 8, 11), strict=True))
        ]
        all_rows = (s.auc, self.auc_interval, s.accuracy, s.log_loss, s.brier, s.ece, s.n)
        leak_free = (
            s.auc_leakfree,
            self.auc_leakfree_interval,
            s.accuracy_leakfree,
            s.log_loss_leakfree,
            s.brier_leakfree,
            s.ece_leakfree,
            s.n_leakfree,
        )
        for name, (found, pair, *figures, n) in (("all rows", all_rows), ("leak-free", leak_free)):
            sure = "-" if pair is None else f"{pair[0]:.4f}..{pair[1]:.4f}"
            cells = "".join(f"{_shown(f):>{w}}" for f, w in zip(figures, (10, 10, 8, 8), strict=True))
            lines.append(f"{name:<10}{_shown(found):>8}{sure:>18}{cells}{'-' if n is None else f'{n:,}':>11}")
        lines.append("AUC by the answer's place in the history that the model sees:")
        for name, groups in (("all rows", self.auc_by_history), ("leak-free", self.auc_leakfree_by_history)):
            if groups is not None:
                lines.append(f"{name:<10}" + "  ".join(f"{g}: {_shown(v)} ({n:,})" for g, (v, n) in groups.items()))
        return "\n".join(lines)


# The first answer has nothing before it; 21 to 100 and 101+ are apart, for chunks of 200 restart the history.
HISTORY = {"1": (1, 1), "2-5": (2, 5), "6-20": (6, 20), "21-100": (21, 100), "101+": (101, None)}


def report(answers: Answers, probability: Floats, protocol: Protocol, seed: int = 0, samples: int = 100) -> Report:
    """All figures of predictions for a table's rows, over the known answers that the protocol scores."""
    scored = protocol.scored(answers) & (answers.answer != TO_PREDICT)
    place = _place_in_history(answers, protocol)[scored]
    right, p, student = answers.answer[scored].astype(bool), probability[scored], answers.student[scored]
    fresh = None if answers.leak_free is None else answers.leak_free[scored]
    return Report(
        score(answers.answer[scored], p, fresh),
        interval(right, p, student, seed, samples),
        None if fresh is None else interval(right[fresh], p[fresh], student[fresh], seed, samples),
        _by_history(right, p, place),
        None if fresh is None else _by_history(right[fresh], p[fresh], place[fresh]),
    )


def _place_in_history(answers: Answers, protocol: Protocol) -> Ints:
    """[rows] 1 for the first row of a sequence of the protocol, 2 for the next."""
    starts = protocol.sequences(answers)[0]
    begin = np.zeros(len(answers), dtype=np.int64)
    begin[starts] = starts
    return np.arange(1, len(answers) + 1) - np.maximum.accumulate(begin)


def _by_history(right: Bools, p: Floats, place: Ints) -> ByHistory:
    found = {}
    for name, (low, high) in HISTORY.items():
        here = (place >= low) & (place <= (place.max(initial=0) if high is None else high))
        found[name] = (auc(right[here], p[here]), int(here.sum()))
    return found


def interval(
    right: Bools, value: Floats, student: Ints, seed: int = 0, samples: int = 100
) -> tuple[float, float] | None:
    """The middle 95% of the AUC over samples of whole students, drawn with replacement: rows of one student agree."""
    found = _bootstrap_aucs([value], right, student, seed, samples)
    return None if found is None else (float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975)))


def paired_difference(
    right: Bools, one: Floats, other: Floats, student: Ints, seed: int = 0, samples: int = 100
) -> tuple[float, float] | None:
    """(difference of AUC, its standard deviation over the same samples of students): a win is more than two of them."""
    found = _bootstrap_aucs([one, other], right, student, seed, samples)
    whole = auc(right, one), auc(right, other)
    if found is None or whole[0] is None or whole[1] is None:
        return None
    return whole[0] - whole[1], float(np.std(found[:, 0] - found[:, 1], ddof=1))


def _bootstrap_aucs(
    values: list[Floats], right: Bools, student: Ints, seed: int, samples: int
) -> npt.NDArray[np.float64] | None:
    """[samples, values] AUC, each student as often as drawn; None where a sample has answers of one kind."""
    rng = np.random.default_rng(seed)
    names, who = np.unique(student, return_inverse=True)
    ordered = [_ranked(value, right, who) for value in values]
    found = np.empty((samples, len(values)))
    for i in range(samples):
        weight = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)).astype(np.float64)
        for j, ((rank_right, who_right), (rank_wrong, who_wrong), n_ranks) in enumerate(ordered):
            of_right = np.bincount(rank_right, weight[who_right], minlength=n_ranks)
            of_wrong = np.bincount(rank_wrong, weight[who_wrong], minlength=n_ranks)
            pairs = of_right.sum() * of_wrong.sum()
            if not pairs:
                return None
            found[i, j] = of_right @ (np.cumsum(of_wrong) - 0.5 * of_wrong) / pairs
    return found


Ranked = tuple[Ints, Ints]  # of some answers in ascending order of their value: its rank among all values, the student


def _ranked(value: Floats, right: Bools, who: Ints) -> tuple[Ranked, Ranked, int]:
    """The right answers, the wrong ones, and how many different values there are: in this order memory is walked."""
    order = np.argsort(value, kind="stable")
    rank = np.append(0, np.cumsum(np.diff(value[order]) != 0))
    who, right = who[order], right[order]
    return (rank[right], who[right]), (rank[~right], who[~right]), int(rank[-1]) + 1


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
        brier=brier(right, probability),
        brier_leakfree=None if fresh is None else brier(right[fresh], probability[fresh]),
        ece=ece(right, probability),
        ece_leakfree=None if fresh is None else ece(right[fresh], probability[fresh]),
        n=len(right),
        n_leakfree=None if fresh is None else int(fresh.sum()),
    )


def auc(right: Bools, value: Floats) -> float | None:
    """Exact area under the ROC curve, ties counted half; None if all answers are the same.

    Values are sorted as packed keys (value bits, label) where both fit into 64 bits: several times faster than an
    argsort.
    """
    if np.isnan(value).any():
        raise ValueError(f"{int(np.isnan(value).sum())} of {len(value)} predictions are NaN; no AUC exists.")
    n_right = int(np.count_nonzero(right))
    n_wrong = len(right) - n_right
    if not n_right or not n_wrong:
        return None
    key = _sorted_keys(right, value)
    # Among equal values the wrong answers come first, so that what stands before a right one counts ties as won.
    place = np.flatnonzero((key & key.dtype.type(1)).astype(bool))
    won_or_tied = int(place.sum()) - n_right * (n_right - 1) // 2
    last_wrong = np.flatnonzero((key[1:] ^ key[:-1]) == 1)  # of the values that some right and some wrong answers share
    shared = key[last_wrong]
    tied_wrong = last_wrong + 1 - np.searchsorted(key, shared, side="left")
    tied_right = np.searchsorted(key, shared + key.dtype.type(1), side="right") - last_wrong - 1
    tied = int(np.sum(tied_right * tied_wrong))
    return (2 * won_or_tied - tied) / (2 * n_right * n_wrong)  # whole numbers up to here: nothing was rounded


def _sorted_keys(right: Bools, value: Floats) -> npt.NDArray[np.unsignedinteger]:
    """Unsigned numbers in ascending order, one for each value: 2 * (rank of the value, or its bits) + label."""
    import polars as pl

    bits_of = {np.dtype(np.float32): np.uint32, np.dtype(np.float64): np.uint64}.get(value.dtype)
    if bits_of is not None and value.min() >= 0 and value.max() < 2:  # the two highest bits are 0: room for the label
        key: npt.NDArray[np.unsignedinteger] = (value + value.dtype.type(0)).view(bits_of)  # + 0: -0.0 becomes 0.0
        key <<= bits_of(1)
        key |= right
    else:
        key = np.unique(value, return_inverse=True)[1].astype(np.uint64) << np.uint64(1) | right
    # Not numpy's sort: its AVX-512 kernel takes 31 ms for 1e6 keys on an AMD Zen 4 where polars takes 14.
    ordered: npt.NDArray[np.unsignedinteger] = pl.Series(key).sort().to_numpy()
    return ordered


def accuracy(right: Bools, probability: Floats) -> float:
    return float(np.mean((probability >= 0.5) == right))


def log_loss(right: Bools, probability: Floats) -> float:
    """Mean negative log likelihood; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.log(np.where(right, p, 1 - p))))


def brier(right: Bools, probability: Floats) -> float:
    """Mean squared distance between probability and what happened."""
    return float(np.mean((probability.astype(np.float64) - right) ** 2))


def ece(right: Bools, probability: Floats, bins: int = 15) -> float:
    """Expected calibration error: how far predicted and true shares lie apart, in bins of equal width."""
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, probability.astype(np.float64) - right, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


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
