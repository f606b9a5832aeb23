"""simpleKT: plain attention over Rasch embeddings, where questions are the keys and answers the values (Liu, 2023)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dkt.models.parts import Attention, Block, Head, Inputs, Positions, shifted


class SimpleKTNet(nn.Module):
    """`blocks` times: the question finds the alike among the past ones and reads how they were answered."""

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        dropout: float = 0.1,
        heads: int = 4,
        blocks: int = 2,
        n_features: int = 0,
        scalar_column: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(n_skills, n_questions, dim, n_features, scalar_column)
        self.positions = Positions(dim)
        self.beginning = nn.Parameter(torch.zeros(2, dim))
        self.blocks = nn.ModuleList(Block(Attention(dim, heads, dropout), dim, 2 * dim, dropout) for _ in range(blocks))
        self.head = Head(2 * dim, 2 * dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        x_BTD = self.positions(asked_BTD)
        past_BTD = shifted(self.positions(answered_BTD), self.beginning[1])
        for block in self.blocks:
            x_BTD = block(x_BTD, shifted(x_BTD, self.beginning[0]), past_BTD)
        return cast(Tensor, self.head(x_BTD, asked_BTD) + self.inputs.ease(question, features))
