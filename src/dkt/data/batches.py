"""Ready batches from a table: tensors built once, sequences of similar length together, no collating of samples.

B sequences, T steps, K skills of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dkt.data.table import Answers, Ints
from dkt.data.vocabulary import Vocabulary


class Batch(TypedDict):
    """Sequences filled up to the longest of them; `mask` is true on real rows."""

    skill: Tensor  # [B, T, K] int64
    question: Tensor  # [B, T] int64
    answer: Tensor  # [B, T] int64
    mask: Tensor  # [B, T] bool
    leak_free: Tensor  # [B, T] bool
    features: Tensor  # [B, T, F] float32; F is 0 where a model asks for none
    row: Tensor  # [B, T] int64: the row of the table
    n: int  # real rows: counted here, so that no device has to be asked


class Sequences(Dataset[Batch]):
    """Spans of rows `starts[i]:starts[i] + lengths[i]` of a table, each a sequence that begins without memory.

    Indexing with a list of sequences gives the whole batch, which is how `sequence_loader` asks for it.
    """

    def __init__(
        self,
        answers: Answers,
        vocabulary: Vocabulary,
        starts: Ints,
        lengths: Ints,
        features: npt.NDArray[np.float32] | None = None,
    ) -> None:
        leak_free = answers.leak_free
        if leak_free is None:
            leak_free = np.zeros(len(answers), dtype=bool)
        self.starts = torch.from_numpy(starts)
        self.lengths = torch.from_numpy(lengths)
        # One more row, all zeros, is what short sequences are filled with.
        self.skill = _with_zero_row(vocabulary.skills_of(answers))
        self.question = _with_zero_row(vocabulary.questions_of(answers))
        self.answer = _with_zero_row(np.maximum(answers.answer, 0).astype(np.int64))
        self.leak_free = _with_zero_row(leak_free)
        if features is None:
            features = np.zeros((len(answers), 0), dtype=np.float32)
        self.features = _with_zero_row(features)

    def __len__(self) -> int:
        return len(self.starts)

    def width(self, lengths: Tensor) -> int:
        """How many steps a batch of sequences of these lengths has."""
        return int(lengths.max())

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        chosen = torch.tensor(indices)
        lengths = self.lengths[chosen]
        step = torch.arange(self.width(lengths))
        mask = step < lengths[:, None]
        row = torch.where(mask, self.starts[chosen][:, None] + step, len(self.answer) - 1)
        flat = row.view(-1)
        return {
            "skill": self.skill.index_select(0, flat).view(*row.shape, -1),
            "question": self.question.index_select(0, flat).view(row.shape),
            "answer": self.answer.index_select(0, flat).view(row.shape),
            "mask": mask,
            "leak_free": self.leak_free.index_select(0, flat).view(row.shape),
            "features": self.features.index_select(0, flat).view(*row.shape, self.features.shape[1]),
            "row": row,
            "n": int(lengths.sum()),
        }


class LengthBuckets(Sampler[list[int]]):
    """Batches of sequences of similar length, at most `cells` cells each (sequences x longest), shuffled if asked.

    Sequences stand in order of length, a bucket `width` wide in no order, and a batch ends where it is full: a small
    one would weigh as much in training as any other, and only the first can be small. The members of a bucket are dealt
    anew each epoch; where batches end stays. All randomness comes from one draw of torch's global generator, so that a
    restored random state repeats the epoch.
    """

    def __init__(self, lengths: Tensor, cells: int, shuffle: bool, width: int = 4) -> None:
        if cells < int(lengths.max()):
            raise ValueError(
                f"cells={cells} is less than the longest sequence ({int(lengths.max())}); no batch could hold it."
            )
        self.cells = cells
        self.shuffle = shuffle
        bucket = (lengths - 1) // width
        self.buckets = [torch.nonzero(bucket == b).flatten() for b in torch.unique(bucket).tolist()]
        longest = torch.cat([lengths[members].max().expand(len(members)) for members in self.buckets]).tolist()
        ends = [len(longest)]
        while ends[-1]:  # from the longest down, so that the last of a batch says how wide it is
            ends.append(max(0, ends[-1] - cells // longest[ends[-1] - 1]))
        self.sizes = [end - begin for begin, end in itertools.pairwise(reversed(ends))]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            for part in torch.split(torch.cat(self.buckets), self.sizes):
                yield part.tolist()
            return
        generator = torch.Generator()
        generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
        dealt = [members[torch.randperm(len(members), generator=generator)] for members in self.buckets]
        parts = torch.split(torch.cat(dealt), self.sizes)
        for i in torch.randperm(len(parts), generator=generator).tolist():
            yield parts[i].tolist()


def sequence_loader(sequences: Sequences, cells: int, shuffle: bool = False) -> DataLoader[Batch]:
    """A DataLoader of ready batches of at most `cells` cells."""
    return DataLoader(sequences, batch_sampler=LengthBuckets(sequences.lengths, cells, shuffle), collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:  # a DataLoader believes it is given a list of samples
    return batch


def _with_zero_row(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate([values, np.zeros_like(values[:1])]))
