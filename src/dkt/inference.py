"""Probabilities of every answer of a table from a trained task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dkt.data.batches import Sequences, sequence_loader
from dkt.data.table import Answers
from dkt.task import DktTask

INPUTS = ("skill", "answer", "question", "features")
CELLS_TO_SCORE = 25_600  # cells of a batch; nothing is kept for a backward pass, so more than in training


def predict_rows(task: DktTask, answers: Answers) -> npt.NDArray[np.float32]:
    """[rows] probability of a right answer, each from the rows before it in its sequence of the task's protocol.

    NaN for rows that are in no sequence.
    """
    return _run(task, task.sequences(answers), len(answers))


def _run(task: DktTask, sequences: Sequences, rows: int) -> npt.NDArray[np.float32]:
    device = next(task.parameters()).device
    probability = np.full(rows, np.nan, dtype=np.float32)
    was_training = task.training
    task.eval()
    with torch.inference_mode():
        for batch in sequence_loader(sequences, CELLS_TO_SCORE):
            inputs = (batch[name].to(device) for name in INPUTS)  # type: ignore[literal-required]
            logits = task.model(*inputs).cpu()
            probability[batch["row"][batch["mask"]].numpy()] = torch.sigmoid(logits[batch["mask"]]).numpy()
    task.train(was_training)
    return probability
