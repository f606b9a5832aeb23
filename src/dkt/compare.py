"""Several models on the same rows: one table, both AUCs, and whether a difference is more than chance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dkt.data.protocols import protocol_named
from dkt.data.table import TO_PREDICT, Answers
from dkt.evaluate import Floats, Report, paired_difference, report
from dkt.models.base import Model
from dkt.models.hybrid import Stack

WIDTHS = (8, 8, 11, 8, 10, 10, 8, 9, 12)
Part = tuple[Answers, Answers, Answers]  # to learn from, to choose by, to score


@dataclass
class Line:
    """One model over the folds."""

    name: str
    reports: list[Report] = field(default_factory=list)
    predictions: list[Floats] = field(default_factory=list)
    cpu_seconds: float = 0.0
    parameters: int = 0

    def aucs(self, leak_free: bool) -> list[float]:
        values = [r.score.auc_leakfree if leak_free else r.score.auc for r in self.reports]
        return [value for value in values if value is not None]


def compare(
    names: Sequence[str],
    make: Callable[[str], Model],
    parts: Iterable[Part],
    protocol: str,
    seed: int = 0,
    told: Callable[[Line], None] = lambda line: None,
) -> list[Line]:
    """Fit each model on each part's training answers and score it on its test answers; `told` hears of each.

    A stack (`trees,dkt-r`) takes the models that were fitted before it under the same names; their seconds count.
    """
    lines = [Line(name) for name in names]
    for train, valid, test in parts:
        scored = protocol_named(protocol).scored(test) & (test.answer != TO_PREDICT)
        fitted: dict[str, tuple[Model, float]] = {}
        for line in lines:
            since = time.process_time()
            model = make(line.name)
            names = line.name.split(",")
            if isinstance(model, Stack) and len(names) > 1 and all(name in fitted for name in names):
                model.models = [fitted[name][0] for name in names]
                model.weigh(valid)
                since -= sum(fitted[name][1] for name in names)
            else:
                model.fit(train, valid)
            predicted = model.predict(test)
            fitted[line.name] = (model, time.process_time() - since)
            line.cpu_seconds += fitted[line.name][1]
            line.parameters = model.n_parameters
            line.predictions.append(predicted[scored])
            line.reports.append(report(test, predicted, protocol_named(protocol), seed))
            told(line)
    return lines


def against_best(lines: Sequence[Line], tests: Sequence[Answers], protocol: str) -> dict[str, tuple[float, float]]:
    """Each model's (AUC minus that of the best, its deviation): the mean over the test sets.

    The deviation is of samples of each set's students, the same samples for both models.
    """
    best = max(lines, key=lambda line: np.mean(line.aucs(leak_free=False)))
    found = {}
    for line in lines:
        pairs = []
        for k, test in enumerate(tests):
            scored = protocol_named(protocol).scored(test) & (test.answer != TO_PREDICT)
            right, student = test.answer[scored].astype(bool), test.student[scored]
            pairs.append(paired_difference(right, line.predictions[k], best.predictions[k], student))
        known = [pair for pair in pairs if pair is not None]
        if line is not best and len(known) == len(pairs):
            difference, deviation = np.array(known).T
            found[line.name] = float(difference.mean()), float(np.sqrt(np.square(deviation).sum()) / len(known))
    return found


def table(lines: Sequence[Line], difference: dict[str, tuple[float, float]]) -> str:
    """The comparison as text, best model first."""
    titles = ("AUC", "sd", "leak-free", "sd", "accuracy", "log loss", "ECE", "CPU s", "parameters")
    head = "".join(f"{title:>{width}}" for title, width in zip(titles, WIDTHS, strict=True))
    shown = [f"{'model':<20}{head}   against the best (± sd)"]
    for line in sorted(lines, key=lambda line: -float(np.mean(line.aucs(leak_free=False)))):
        scores = [r.score for r in line.reports]
        cells = []
        for leak_free in (False, True):
            values = line.aucs(leak_free)
            cells.append(f"{np.mean(values):.4f}" if values else "-")
            cells.append(f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "-")
        cells.append(f"{np.mean([s.accuracy for s in scores]):.4f}")
        cells.append(f"{np.mean([s.log_loss for s in scores]):.4f}")
        cells.append(f"{np.mean([s.ece for s in scores]):.4f}")
        cells.append(f"{line.cpu_seconds / len(scores):.1f}")
        cells.append(f"{line.parameters:,}")
        text = f"{line.name:<20}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        if line.name in difference:
            text += "   {:+.4f} ± {:.4f}".format(*difference[line.name])
        shown.append(text)
    return "\n".join(shown)


def plot(lines: Sequence[Line], path: Path) -> None:
    """Both AUCs of each model as bars with the deviation over folds."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plots need matplotlib: pip install 'fulgurite[dkt]'", name="matplotlib") from error
    ordered = sorted(lines, key=lambda line: float(np.mean(line.aucs(leak_free=False))))
    figure = Figure(figsize=(7, 1 + 0.4 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for leak_free, marker in ((False, "o"), (True, "s")):
        known = [(i, line.aucs(leak_free)) for i, line in enumerate(ordered) if line.aucs(leak_free)]
        axes.errorbar(
            [float(np.mean(values)) for _, values in known],
            [i for i, _ in known],
            xerr=[float(np.std(values)) for _, values in known],
            fmt=marker,
            label="leak-free rows" if leak_free else "all rows",
        )
    axes.set_yticks(range(len(ordered)), [line.name for line in ordered])
    axes.set_xlabel("AUC")
    axes.legend()
    figure.savefig(path)
