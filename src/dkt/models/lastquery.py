"""Last-Query Transformer: the asked question is the query to everything before, then an LSTM (Jeon, 2021).

The original trains on one target per window, its last row. Here each step is the last query of its own prefix, so that
every answer is learned from.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dkt.models.parts import Attention, Block, Head, Inputs, shifted


class LastQueryNet(nn.Module):
    """Attention without positions, then an LSTM that knows the order."""

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        dropout: float = 0.1,
        heads: int = 4,
        n_features: int = 0,
        scalar_column: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(n_skills, n_questions, dim, n_features, scalar_column)
        self.beginning = nn.Parameter(torch.zeros(dim))
        self.join = nn.Linear(2 * dim, dim)
        self.block = Block(Attention(dim, heads, dropout), dim, 2 * dim, dropout)
        self.rnn = nn.LSTM(dim, dim, batch_first=True)
        self.head = Head(2 * dim, dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        x_BTD = self.join(torch.cat([asked_BTD, shifted(answered_BTD, self.beginning)], dim=-1))
        read_BTD = self.rnn(self.block(x_BTD, x_BTD, x_BTD))[0]
        return cast(Tensor, self.head(read_BTD, asked_BTD) + self.inputs.ease(question, features))
