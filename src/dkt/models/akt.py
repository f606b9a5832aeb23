"""AKT: attention whose weights decay with the distance walked among relevant questions (Ghosh et al., 2020).

With one scalar per question it is AKT-R. B sequences, H heads, T steps, d width of a head.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dkt.models.parts import Block, Head, Inputs

NO_LESS, NO_MORE = 1e-5, 1e5  # the paper's code keeps the decay within these


class DecayingAttention(nn.Module):
    """Scores times exp(-gamma x distance): the distance of a past step counts the attention that lies after it.

    `strict` leaves out the step itself; the first step then reads nothing.
    """

    def __init__(self, dim: int, heads: int, dropout: float, strict: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} cannot be divided among heads={heads}; take a multiple of it.")
        self.heads = heads
        self.strict = strict
        self.query_and_key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.gamma = nn.Parameter(torch.empty(heads, 1, 1))
        nn.init.xavier_uniform_(self.gamma)

    def forward(self, query_BTD: Tensor, key_BTD: Tensor, value_BTD: Tensor) -> Tensor:
        q, k = self._split(self.query_and_key(query_BTD)), self._split(self.query_and_key(key_BTD))
        weight_BHTT = self.weights(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
        read_BHTd = self.dropout(weight_BHTT) @ self._split(self.value(value_BTD))
        return cast(Tensor, self.out(read_BHTd.transpose(1, 2).flatten(2)))

    def weights(self, score_BHTT: Tensor) -> Tensor:
        """Softmax of the decayed scores over the steps that may be read."""
        step = torch.arange(score_BHTT.shape[-1], device=score_BHTT.device)
        apart_TT = step[:, None] - step
        hidden_TT = apart_TT <= 0 if self.strict else apart_TT < 0
        with torch.no_grad():  # as in the paper's code: the distance is measured, not learned through
            near = torch.softmax(score_BHTT.masked_fill(hidden_TT, -1e32), -1).masked_fill_(hidden_TT, 0)
            later = (near.sum(-1, keepdim=True) - near.cumsum(-1)).clamp_(min=0)
            distance = later.mul_(apart_TT.abs()).sqrt_()
        decay = torch.exp(-softplus(self.gamma) * distance).clamp(NO_LESS, NO_MORE)
        weight = torch.softmax((score_BHTT * decay).masked_fill(hidden_TT, -1e32), -1)
        return weight.masked_fill(hidden_TT, 0) if self.strict else weight

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], self.heads, -1).transpose(1, 2)


class AKTNet(nn.Module):
    """Questions and answers each read their own past; then the question reads the answers to questions like it."""

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        dropout: float = 0.1,
        heads: int = 4,
        blocks: int = 1,
        n_features: int = 0,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(n_skills, n_questions, dim, n_features)

        def block(wide: int, strict: bool) -> Block:
            return Block(DecayingAttention(dim, heads, dropout, strict), dim, wide, dropout)

        self.of_answers = nn.ModuleList(block(2 * dim, strict=False) for _ in range(blocks))
        self.of_questions = nn.ModuleList(block(0, strict=False) for _ in range(blocks))
        self.retrievers = nn.ModuleList(block(2 * dim, strict=True) for _ in range(blocks))
        self.head = Head(2 * dim, 2 * dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        x_BTD, y_BTD = asked_BTD, answered_BTD
        for block in self.of_answers:
            y_BTD = block(y_BTD, y_BTD, y_BTD)
        for block, retriever in zip(self.of_questions, self.retrievers, strict=True):
            x_BTD = block(x_BTD, x_BTD, x_BTD)
            x_BTD = retriever(x_BTD, x_BTD, y_BTD)
        return cast(Tensor, self.head(x_BTD, asked_BTD))
