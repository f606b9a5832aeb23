"""The course's `dkt.metric`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dkt.data.table import DataError
from dkt.evaluate import accuracy, auc


def get_metric(targets: npt.ArrayLike, preds: npt.ArrayLike) -> tuple[float, float]:
    """(AUC, accuracy) of probabilities, or of logits: what lies outside of 0 to 1 is taken for logits."""
    right, p = np.asarray(targets) > 0, np.asarray(preds, dtype=np.float64)
    if len(p) and (p.min() < 0 or p.max() > 1):
        p = 1 / (1 + np.exp(-p))
    value = auc(right, p)
    if value is None:
        raise DataError(f"the {len(right)} answers are all the same, so they have no AUC.")
    return value, accuracy(right, p)
