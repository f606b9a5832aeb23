"""Protocols: which rows are scored, and with which history."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data import Answers, DataError
from dkt.data.protocols import PROTOCOLS, protocol_named

N = 450
ANSWERS = Answers(
    student_names=["a", "b"],
    offsets=np.array([0, 440, N]),
    answer=np.ones(N, dtype=np.int8),
    skill_names=["x"],
    skill=np.zeros(N, dtype=np.int64),
    skill_offsets=np.arange(N + 1),
    question_names=["p", "q"],
    question=np.arange(N) // 3 % 2,
)


@pytest.mark.parametrize(
    ("name", "scored"), [("akt", N), ("dkvmn", N), ("pykt", N - 4), ("last", 2), ("leakfree", 151)]
)
def test_each_protocol_scores_its_sources_positions(name, scored):
    assert PROTOCOLS[name].scored(ANSWERS).sum() == scored


def test_chunks_keep_their_short_tails():
    starts, lengths = PROTOCOLS["akt"].sequences(ANSWERS)
    assert (starts.tolist(), lengths.tolist()) == ([0, 200, 400, 440], [200, 200, 40, 10])


def test_the_last_answer_is_predicted_from_a_full_chunk():
    starts, lengths = PROTOCOLS["last"].sequences(ANSWERS)
    assert (starts.tolist(), lengths.tolist()) == ([240, 440], [200, 10])


def test_leakfree_needs_question_ids():
    without = Answers(**{**vars(ANSWERS), "question": None})
    with pytest.raises(DataError, match="protocol leakfree needs question ids"):
        PROTOCOLS["leakfree"].scored(without)


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match="protocol='x' is unknown; choose one of akt, dkvmn, pykt"):
        protocol_named("x")
