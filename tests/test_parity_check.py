"""trainer.check_parity: the user's own model and data, several processes against one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import fulgurite as pl
from fulgurite.parity import _close, fingerprints
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.cases import QUIET, Buckets, Net, Stream, samples

pytestmark = [pytest.mark.multi]
VAL = DataLoader(samples(4), 2)
INF, NAN = float("inf"), float("nan")


class Leaning(Net):
    """Its loss depends on which process it is on: the mistake that the check is for."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss * (1 + (batch_idx == 2 and self.global_rank))


@pytest.mark.needs("cloudpickle")  # to send a class of a test file to the processes
def test_a_sound_model_is_equal_and_left_as_it_was() -> None:
    model, before = Net(metrics=False), torch.get_rng_state()
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    trainer = pl.Trainer(**QUIET, accumulate_grad_batches=2, gradient_clip_val=0.1)
    report = trainer.check_parity(model, DataLoader(samples(31), 4, shuffle=True), DataLoader(samples(7), 2))
    assert report.equal, str(report)
    assert report.samples > 31 and "the same samples, metrics and weights" in str(report)
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_the_first_difference_is_named() -> None:
    report = pl.Trainer(**QUIET).check_parity(Leaning(metrics=False), DataLoader(samples(40), 4), VAL)
    assert not report.equal
    assert report.first_difference is not None and report.first_difference.startswith("the weights after batch 2: net.")


@pytest.mark.slow
def test_a_bucketed_sampler_is_compared_in_groups() -> None:
    loader = DataLoader(samples(31), batch_sampler=Buckets([4, 3, 5, 2, 6, 1, 7, 3]))
    report = pl.Trainer(**QUIET).check_parity(Net(metrics=False), loader, VAL, devices=3)
    assert report.equal, str(report)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64])
def test_samples_of_every_type_are_told_apart(dtype: torch.dtype) -> None:
    batch = {"x": torch.tensor([[0, 1], [0, 0], [0, 1]]).to(dtype), "y": torch.zeros(3, dtype=dtype)}
    first, other, again = fingerprints(batch)
    assert first == again != other


@pytest.mark.parametrize(
    ("a", "b", "close"),
    [(1.0, 1.00009, True), (1.0, 1.001, False), (1e-9, 0.0, True), (INF, INF, True), (NAN, NAN, True)]
    + [(INF, 1.0, False), (INF, -INF, False), (INF, NAN, False), (NAN, 1.0, False)],
)
def test_what_counts_as_equal(a: float, b: float, close: bool) -> None:
    assert _close(a, b, 1e-4) is _close(b, a, 1e-4) is close


def test_a_stream_cannot_be_put_together() -> None:
    with pytest.raises(MisconfigurationException, match="DataLoader of a data set with a length"):
        pl.Trainer(**QUIET).check_parity(Net(), DataLoader(Stream(samples(8), 0, 1), 2))
