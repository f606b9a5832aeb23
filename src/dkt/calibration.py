"""Whether a predicted 0.7 comes true seven times in ten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dkt.data.table import Bools, Ints
from dkt.evaluate import Floats, ece


@dataclass(frozen=True)
class Reliability:
    """Predictions in groups of equal size, from the lowest to the highest."""

    predicted: Floats  # [groups] mean probability
    happened: Floats  # [groups] share of right answers
    n: Ints  # [groups]

    def interval(self) -> tuple[Floats, Floats]:
        """95% of the shares that so many answers show where the predicted mean is true."""
        half = 1.96 * np.sqrt(self.predicted * (1 - self.predicted) / self.n)
        return self.predicted - half, self.predicted + half


def reliability(right: Bools, probability: Floats, groups: int = 15) -> Reliability:
    """Groups of predictions by size; fewer than `groups` where there are fewer rows."""
    parts = np.array_split(np.argsort(probability, kind="stable"), max(1, min(groups, len(right))))
    return Reliability(
        np.array([probability[part].mean() for part in parts], dtype=np.float64),
        np.array([right[part].mean() for part in parts], dtype=np.float64),
        np.array([len(part) for part in parts]),
    )


def draw(right: Bools, probability: Floats, title: str, path: Path) -> None:
    """Predicted against true shares; on the diagonal a model may be taken at its word."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plots need matplotlib: pip install 'fulgurite[dkt]'", name="matplotlib") from error
    found = reliability(right, probability)
    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    low, high = found.interval()
    axes.fill_between(found.predicted, low, high, color="grey", alpha=0.2, label="95% by chance")
    axes.plot(found.predicted, found.happened, marker="o", label=f"ECE {ece(right, probability):.4f}")
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share of right answers")
    axes.set_title(title)
    axes.legend()
    figure.savefig(path)
