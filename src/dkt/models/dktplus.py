"""DKT+: DKT that also reproduces the answer just given and does not waver between steps (Yeung and Yeung, 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dkt.models.dkt import DKTNet


class DKTPlusNet(DKTNet):
    """DKT and its three penalties; the waviness is measured over all skills."""

    def __init__(
        self, *args: Any, reconstruction: float = 0.1, waviness: float = 0.003, waviness_2: float = 3.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reconstruction = reconstruction
        self.waviness = waviness
        self.waviness_2 = waviness_2
        self._states: Tensor | None = None

    def states(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        self._states = super().states(skill, answer, question, features)
        return self._states

    def penalty(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """What the last forward pass costs besides its loss, over the real rows."""
        if self._states is None:
            raise RuntimeError("a penalty belongs to a forward pass; call the net first.")
        later, real = self._states[:, 1:], mask[:, 1:]  # the state after answering row t is the one before row t + 1
        self._states = None
        n = real.sum().clamp(min=1)
        again = self.logits(later, skill[:, :-1], question[:, :-1], features[:, :-1])
        right = answer[:, :-1].to(again.dtype)
        repeat = binary_cross_entropy_with_logits(again, right, real.to(again.dtype), reduction="sum")
        every = torch.sigmoid(later @ self.asked.weight[1:].T + self.ease + self.skill_ease.weight[1:, 0])
        change = (every[:, 1:] - every[:, :-1]) * real[:, 1:].unsqueeze(-1)
        wave = self.waviness * change.abs().sum() + self.waviness_2 * change.square().sum()
        return (self.reconstruction * repeat + wave / self.n_skills) / n
