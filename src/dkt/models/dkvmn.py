"""DKVMN: a memory with one slot per hidden concept, read before and written after each answer (Zhang et al., 2017).

B sequences, T steps, N slots, D width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dkt.models.parts import Head, Inputs


class DKVMNNet(nn.Module):
    """Everything that does not depend on the memory is computed for all steps at once; the scan only adds."""

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        dropout: float = 0.1,
        slots: int = 20,
        n_features: int = 0,
        scalar_column: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = Inputs(n_skills, n_questions, dim, n_features, scalar_column)
        self.keys = nn.Linear(dim, slots, bias=False)
        self.memory = nn.Parameter(0.1 * torch.randn(slots, dim))
        self.erase, self.add = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.head = Head(2 * dim, dim, dropout)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        asked_BTD, answered_BTD = self.inputs(skill, answer, question, features)
        weight_BTN1 = torch.softmax(self.keys(asked_BTD), dim=-1).unsqueeze(-1)
        erase_BT1D = torch.sigmoid(self.erase(answered_BTD)).unsqueeze(2)
        add_BT1D = torch.tanh(self.add(answered_BTD)).unsqueeze(2)
        memory_BND = self.memory.expand(len(skill), -1, -1)
        read = []
        for w, e, a in zip(weight_BTN1.unbind(1), erase_BT1D.unbind(1), add_BT1D.unbind(1), strict=True):
            read.append((w * memory_BND).sum(1))
            memory_BND = memory_BND + w * (a - e * memory_BND)
        return cast(Tensor, self.head(torch.stack(read, dim=1), asked_BTD) + self.inputs.ease(question, features))
