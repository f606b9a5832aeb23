"""Batches: every row once, similar lengths together, the same order from the same random state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dkt.data.batches import LengthBuckets, Sequences, sequence_loader
from dkt.data.protocols import PROTOCOLS
from dkt.data.simulate import simulate
from dkt.data.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def answers():
    return simulate(students=60, questions=400, skills=12, concepts=4, answers_per_student=120)[0]


@pytest.fixture
def sequences(answers):
    return Sequences(answers, Vocabulary.of(answers), *PROTOCOLS["akt"].sequences(answers))


def test_akt_cuts_students_into_chunks_of_200_and_keeps_short_tails(answers):
    starts, lengths = PROTOCOLS["akt"].sequences(answers)
    assert lengths.max() == 200
    assert sorted(zip(starts.tolist(), lengths.tolist())) == [
        (begin, min(200, end - begin))
        for first, end in zip(answers.offsets[:-1].tolist(), answers.offsets[1:].tolist())
        for begin in range(first, end, 200)
    ]


def test_every_row_is_in_exactly_one_batch_with_its_own_values(answers, sequences):
    rows = []
    for batch in sequence_loader(sequences, cells=1000, shuffle=True):
        row = batch["row"][batch["mask"]]
        assert batch["n"] == len(row)
        assert batch["answer"][batch["mask"]].tolist() == answers.answer[row].tolist()
        assert (batch["question"][batch["mask"]] - 1).tolist() == answers.question[row].tolist()
        assert (batch["skill"][batch["mask"]] - 1).tolist() == answers.skill_matrix()[row].tolist()
        assert not batch["skill"][~batch["mask"]].any()
        rows += row.tolist()
    assert sorted(rows) == list(range(len(answers)))


def test_batches_stay_within_their_cells_and_waste_little(sequences):
    batches = [b["mask"] for b in sequence_loader(sequences, cells=1000, shuffle=True)]
    assert max(mask.numel() for mask in batches) <= 1000
    assert sum(int(mask.sum()) for mask in batches) / sum(mask.numel() for mask in batches) > 0.9


def test_only_the_batch_of_the_shortest_may_be_small(sequences):
    """A batch of few rows would weigh as much in training as a full one."""
    shapes = sorted((b["mask"].shape for b in sequence_loader(sequences, 1000, shuffle=True)), key=lambda s: s[1])
    assert len(shapes) > 5
    for n, width in shapes[1:]:
        assert (n + 1) * (width + 3) > 1000, "there was room for one more sequence, 3 steps longer at most"


def test_the_number_of_batches_is_known_and_the_order_changes_with_the_epoch(sequences):
    sampler = LengthBuckets(sequences.lengths, cells=1000, shuffle=True)
    first, second = list(sampler), list(sampler)
    assert len(first) == len(second) == len(sampler)
    assert first != second


def test_the_same_random_state_gives_the_same_order(sequences):
    sampler = LengthBuckets(sequences.lengths, cells=1000, shuffle=True)
    state = torch.get_rng_state()
    first = list(sampler)
    torch.set_rng_state(state)
    assert list(sampler) == first


def test_without_shuffling_nothing_is_drawn(sequences):
    state = torch.get_rng_state()
    sampler = LengthBuckets(sequences.lengths, cells=1000, shuffle=False)
    assert list(sampler) == list(sampler)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_too_small_for_the_longest_sequence_is_refused(sequences):
    with pytest.raises(ValueError, match=r"cells=100 is less than the longest sequence \(200\)"):
        sequence_loader(sequences, cells=100)


def test_ids_not_seen_in_training_have_the_number_of_the_unknown(answers):
    vocabulary = Vocabulary(skills=answers.skill_names[1:], questions=answers.question_names[1:])
    assert (vocabulary.questions_of(answers) == 0).tolist() == (answers.question == 0).tolist()
    assert ((vocabulary.skills_of(answers) == 0) == np.isin(answers.skill_matrix(), [-1, 0])).all()
