"""SAINT+: an encoder reads the questions, a decoder the answers given before (Shin et al., 2021).

Its lag time comes with the causal features (`features=True`), where the data has times.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dkt.models.parts import Attention, Block, Head, Inputs, Positions, shifted


class SAINTNet(nn.Module):
    """`blocks` of encoder and decoder; every attention is causal, and the decoder's answers are one step late."""

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        dropout: float = 0.1,
        heads: int = 4,
        blocks: int = 1,
        n_features: int = 0,
        scalar_column: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(n_skills, n_questions, dim, n_features, scalar_column)
        self.positions = Positions(dim)
        self.beginning = nn.Parameter(torch.zeros(dim))

        def block(wide: int) -> Block:
            return Block(Attention(dim, heads, dropout), dim, wide, dropout)

        self.encoder = nn.ModuleList(block(2 * dim) for _ in range(blocks))
        self.of_answers = nn.ModuleList(block(0) for _ in range(blocks))
        self.of_questions = nn.ModuleList(block(2 * dim) for _ in range(blocks))
        self.head = Head(2 * dim, dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        x_BTD = self.positions(asked_BTD)
        y_BTD = self.positions(shifted(answered_BTD, self.beginning))
        for block in self.encoder:
            x_BTD = block(x_BTD, x_BTD, x_BTD)
        for of_answers, of_questions in zip(self.of_answers, self.of_questions, strict=True):
            y_BTD = of_answers(y_BTD, y_BTD, y_BTD)
            y_BTD = of_questions(y_BTD, x_BTD, x_BTD)
        return cast(Tensor, self.head(y_BTD, asked_BTD) + self.inputs.ease(question, features))
