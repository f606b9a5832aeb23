"""How an order of samples is shared out, without processes: what process 0 tells is handed on here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import BatchSampler, Sampler

from fulgurite.shards import EvalShare


class WithoutLength(Sampler[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


@pytest.mark.parametrize("count", [1, 6, 7])
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_evaluation_takes_the_samples_that_one_process_would_without_asking_for_a_length(
    count: int, drop_last: bool
) -> None:
    sampler, told = WithoutLength(count), list[Any]()

    def share(rank: int) -> list[list[int]]:
        def tell(chunk: Any) -> Any:
            if rank > 0:
                return told.pop(0)
            told.append(chunk)
            return chunk

        return list(EvalShare(sampler, 2, drop_last, rank, 2, tell))

    taken = sorted(i for rank in (0, 1) for batch in share(rank) for i in batch)
    assert taken == [i for batch in BatchSampler(sampler, 2, drop_last) for i in batch]
