"""Prediction: every row from the rows before it, and the asked row of each student."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dkt.data import TO_PREDICT, DataError
from dkt.data.simulate import simulate
from dkt.inference import predict_rows
from dkt.models.sequence import DKT
from dkt.task import DktTask


@pytest.fixture(scope="module")
def answers():
    return simulate(students=12, questions=400, skills=12, concepts=4, answers_per_student=150, seed=5)[0]


@pytest.fixture(scope="module")
def task(answers):
    return DktTask.for_training(answers, dim=8, hidden=8)


def predict_asked(task, answers):
    model = DKT()
    model.task = task
    return model.predict_asked(answers)


def asking(answers, rows):
    answer = answers.answer.copy()
    answer[rows] = TO_PREDICT
    return replace(answers, answer=answer)


def test_every_row_gets_a_probability(answers, task):
    p = predict_rows(task, answers)
    assert p.shape == (len(answers),)
    assert ((p > 0) & (p < 1)).all()


def test_a_row_that_the_protocol_does_not_read_has_no_prediction(answers):
    task = DktTask.for_training(answers, dim=8, hidden=8, protocol="last")
    read = np.arange(len(answers)) >= np.repeat(answers.offsets[1:] - 200, answers.lengths)
    assert not read.all()
    assert np.array_equal(np.isnan(predict_rows(task, answers)), ~read)


def test_the_asked_row_of_a_short_history_is_predicted_as_in_its_chunk(answers, task):
    short = answers.students(np.flatnonzero(answers.lengths <= 200))
    last = short.offsets[1:] - 1
    np.testing.assert_allclose(predict_asked(task, asking(short, last)), predict_rows(task, short)[last], rtol=1e-5)


def test_the_asked_row_of_a_long_history_is_predicted_from_the_latest_rows(answers, task):
    longer = answers.students(np.flatnonzero(answers.lengths > 200))
    last = longer.offsets[1:] - 1
    kept = np.arange(len(longer)) >= np.repeat(last - 199, longer.lengths)
    window = longer.rows(kept)
    expected = predict_rows(task, window)[window.offsets[1:] - 1]
    np.testing.assert_allclose(predict_asked(task, asking(longer, last)), expected, rtol=1e-5)


def test_the_hidden_answer_itself_changes_nothing(answers, task):
    last = answers.offsets[1:] - 1
    flipped = replace(answers, answer=(1 - answers.answer).astype(np.int8))
    mixed = answers.answer.copy()
    mixed[last] = flipped.answer[last]
    first = predict_rows(task, answers)[last]
    assert first.tolist() == predict_rows(task, replace(answers, answer=mixed))[last].tolist()


def test_a_table_without_a_row_to_predict_is_refused(answers, task):
    with pytest.raises(DataError, match="no row has answerCode -1"):
        predict_asked(task, answers)


def test_a_student_with_two_rows_to_predict_is_named(answers, task):
    rows = np.append(answers.offsets[1:] - 1, answers.offsets[0])
    with pytest.raises(DataError, match=r"student 0 has 2 rows with answerCode -1 \(1 such students\)"):
        predict_asked(task, asking(answers, rows))
