"""SAKT: each question attends to the answers given before it (Pandey and Karypis, 2019)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dkt.models.parts import Attention, Block, Head, Inputs, Positions, shifted


class SAKTNet(nn.Module):
    """One block of attention from the asked question to the answered ones."""

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
        self.positions = Positions(dim)
        self.beginning = nn.Parameter(torch.zeros(dim))
        self.block = Block(Attention(dim, heads, dropout), dim, dim, dropout)
        self.head = Head(dim, dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        past_BTD = shifted(self.positions(answered_BTD), self.beginning)
        return cast(Tensor, self.head(self.block(asked_BTD, past_BTD, past_BTD)) + self.inputs.ease(question, features))
