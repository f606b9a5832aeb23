"""AKT: attention whose weights decay with the distance walked among relevant questions (Ghosh et al., 2020).

With one scalar per question it is AKT-R. B sequences, H heads, T steps, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from dkt.models.parts import Block, Head, Inputs, shifted

ROWS = 64  # a block of rows reads the steps up to its last one, so that most of the hidden half is never computed
BLOCK = 1 << 17  # numbers of a block: the dozen passes over it stay in a core's cache
HIDDEN = -1e30


class DecayingAttention(nn.Module):
    """Softmax of scores times exp(-gamma x distance); the distance of a past step counts what is read after it.

    distance(t, s) = sqrt((t - s) x sum of softmax(scores)(t, s') over s < s' <= t), measured and not learned through,
    as in the paper's code. That code also keeps the decay above 1e-5, which is left out: it would move a score by no
    more than that share of itself. Dropout takes whole past steps of a head instead of single weights: as many
    random numbers as steps, not as pairs of them. `strict` leaves out the step itself; the first then reads nothing.
    """

    def __init__(self, dim: int, heads: int, dropout: float, strict: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} cannot be divided among heads={heads}; take a multiple of it.")
        self.heads = heads
        self.strict = strict
        self.query_and_key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(3))
        for layer in (self.query_and_key, self.value, self.out):  # as in the paper's code: like attends to like at once
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(dropout)
        self.gamma = nn.Parameter(torch.zeros(heads))

    def forward(self, query_BTD: Tensor, key_BTD: Tensor, value_BTD: Tensor) -> Tensor:
        q = self._split(self.query_and_key(query_BTD))
        k = q if key_BTD is query_BTD else self._split(self.query_and_key(key_BTD))
        v = self._split(self.value(value_BTD))
        v = v * self.dropout(torch.ones_like(v[..., :1]))
        read_NTd = self.read(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
        read_BHTd = read_NTd.view(-1, self.heads, *read_NTd.shape[1:])
        return cast(Tensor, self.out(read_BHTd.transpose(1, 2).flatten(2)))

    def read(self, q_NTd: Tensor, k_NTd: Tensor, v_NTd: Tensor) -> Tensor:
        """What each step of each head reads; N sequences x heads."""
        gamma_N11 = softplus(self.gamma).repeat(len(q_NTd) // self.heads).view(-1, 1, 1)
        with torch.autocast(q_NTd.device.type, enabled=False):  # a sum over many steps needs the precision
            return _decaying_read(q_NTd.float(), k_NTd.float(), v_NTd.float(), gamma_N11, self.strict)

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], self.heads, -1).transpose(1, 2)


class _Read(torch.autograd.Function):
    """The attention and its gradient by hand: half the passes over the T x T scores that autograd would make."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, strict: bool) -> Tensor:
        n, t, d = q.shape
        q = q * d**-0.5
        step = torch.arange(t, device=q.device)
        apart = (step[:, None] - step).clamp_(min=0).to(q.dtype)  # 0 where hidden, and so is the distance there
        hidden = torch.full((t, t), HIDDEN, dtype=q.dtype, device=q.device).triu_(0 if strict else 1)
        read, kept = torch.empty_like(v), []
        for i, r, c in _blocks(n, t, q.is_cuda):
            score = torch.baddbmm(hidden[r, c], q[i, r], k[i, c].transpose(1, 2))
            distance = torch.softmax(score, -1).cumsum_(-1)
            distance = torch.addcmul(apart[r, c], distance, apart[r, c], value=-1).clamp_(min=0).sqrt_()
            decay = torch.mul(distance, -gamma[i]).exp_()
            score *= decay
            weight = torch.softmax(score, -1)
            if strict and r.start == 0:
                weight[:, 0] = 0
            read[i, r] = weight @ v[i, c]
            if any(ctx.needs_input_grad):
                kept.append((i, r, c, weight, decay, score.mul_(distance)))
        ctx.save_for_backward(q, k, v)
        ctx.kept = kept
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_read: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        of_gamma = torch.zeros(len(q), 1, 1, dtype=q.dtype, device=q.device)
        for i, r, c, weight, decay, score_x_distance in ctx.kept:
            of_v[i, c] += weight.transpose(1, 2) @ of_read[i, r]
            of_score = torch.bmm(of_read[i, r], v[i, c].transpose(1, 2)).mul_(weight)
            of_score.addcmul_(weight, of_score.sum(-1, keepdim=True), value=-1)
            of_gamma[i] -= torch.einsum("nrc,nrc->n", of_score, score_x_distance).view(-1, 1, 1)
            of_score *= decay
            of_q[i, r] = of_score @ k[i, c]
            of_k[i, c] += of_score.transpose(1, 2) @ q[i, r]
        return of_q.mul_(q.shape[-1] ** -0.5), of_k, of_v, of_gamma, None


_decaying_read = cast(Callable[[Tensor, Tensor, Tensor, Tensor, bool], Tensor], _Read.apply)


def _blocks(n: int, t: int, whole: bool) -> Iterator[tuple[slice, slice, slice]]:
    """(sequences, rows, columns) of the parts that are computed together; one for a GPU, which has no use for less."""
    if whole:
        yield slice(0, n), slice(0, t), slice(0, t)
        return
    rows = -(-t // -(-t // ROWS))  # of equal height
    for first in range(0, t, rows):
        last = min(first + rows, t)
        size = max(1, BLOCK // ((last - first) * last))
        for i in range(0, n, size):
            yield slice(i, min(i + size, n)), slice(first, last), slice(0, last)


class AKTNet(nn.Module):
    """Questions and answers each read their own past; then the question reads the answers to questions like it."""

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        dropout: float = 0.05,
        heads: int = 4,
        blocks: int = 1,
        n_features: int = 0,
        scalar_column: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(n_skills, n_questions, dim, n_features, scalar_column, scale=0.5)

        def block(wide: int, strict: bool) -> Block:
            return Block(DecayingAttention(dim, heads, dropout, strict), dim, wide, dropout)

        self.of_answers = nn.ModuleList(block(2 * dim, strict=False) for _ in range(blocks))
        self.of_questions = nn.ModuleList(block(0, strict=False) for _ in range(blocks))
        self.retrievers = nn.ModuleList(block(2 * dim, strict=True) for _ in range(blocks))
        self.beginning = nn.Parameter(torch.zeros(dim))
        self.head = Head(3 * dim, 2 * dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        x_BTD, y_BTD = asked_BTD, answered_BTD
        for block in self.of_answers:
            y_BTD = block(y_BTD, y_BTD, y_BTD)
        for block, retriever in zip(self.of_questions, self.retrievers, strict=True):
            x_BTD = block(x_BTD, x_BTD, x_BTD)
            x_BTD = retriever(x_BTD, x_BTD, y_BTD)
        return cast(
            Tensor,
            self.head(x_BTD, asked_BTD, shifted(answered_BTD, self.beginning)) + self.inputs.ease(question, features),
        )
