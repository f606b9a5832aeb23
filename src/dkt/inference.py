"""Probabilities from a trained task: of every answer of a table, or of the one per student that is to be predicted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dkt.data.batches import Sequences, sequence_loader
from dkt.data.protocols import protocol_named
from dkt.data.table import TO_PREDICT, Answers, DataError, Ints
from dkt.task import DktTask

INPUTS = ("skill", "answer", "question", "features")
CELLS_TO_SCORE = 25_600  # cells of a batch; nothing is kept for a backward pass, so more than in training


def predict_rows(task: DktTask, answers: Answers) -> npt.NDArray[np.float32]:
    """[rows] probability of a right answer, each from the rows before it in its sequence of the task's protocol."""
    return _run(task, task.sequences(answers), len(answers))


def predict_asked(task: DktTask, answers: Answers) -> npt.NDArray[np.float32]:
    """[students] probability of a right answer in each student's row to be predicted, from the rows before it."""
    row = asked_rows(answers)
    starts = np.maximum(answers.offsets[:-1], row + 1 - protocol_named(task.protocol).chunk)
    return _run(task, task.sequences(answers, (starts, row + 1 - starts)), len(answers))[row]


def asked_rows(answers: Answers) -> Ints:
    """[students] each student's row to be predicted; exactly one, or the submission's ids would be ambiguous."""
    asked = answers.answer == TO_PREDICT
    if not asked.any():
        raise DataError(
            f"no row has answerCode {TO_PREDICT}, so there is nothing to predict; `dkt evaluate` scores known answers."
        )
    per_student = np.bincount(answers.student[asked], minlength=answers.n_students)
    wrong = np.flatnonzero(per_student != 1)
    if len(wrong):
        name, n = answers.student_names[wrong[0]], per_student[wrong[0]]
        raise DataError(
            f"student {name} has {n} rows with answerCode {TO_PREDICT} ({len(wrong)} such students); "
            "the course's submission has one line a student, so exactly one row of each is to be predicted."
        )
    return np.flatnonzero(asked)


def _run(task: DktTask, sequences: Sequences, rows: int) -> npt.NDArray[np.float32]:
    device = next(task.parameters()).device
    probability = np.zeros(rows, dtype=np.float32)
    was_training = task.training
    task.eval()
    with torch.inference_mode():
        for batch in sequence_loader(sequences, CELLS_TO_SCORE):
            inputs = (batch[name].to(device) for name in INPUTS)  # type: ignore[literal-required]
            logits = task.model(*inputs).cpu()
            probability[batch["row"][batch["mask"]].numpy()] = torch.sigmoid(logits[batch["mask"]]).numpy()
    task.train(was_training)
    return probability
