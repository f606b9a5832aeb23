"""What nets of sequences share: embeddings of skill sets, attention to the past, the way features enter.

B sequences, T steps, K skills of a row, D width, F features.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def shares(skill_BTK: Tensor) -> Tensor | None:
    """The weight of each skill in its row's mean; None where every row has one place, and so no mean to take."""
    if skill_BTK.shape[2] == 1:
        return None
    known = skill_BTK > 0
    return (known / known.sum(-1, keepdim=True).clamp(min=1)).unsqueeze(-1)


def mean_of_skills(of_skills_BTKD: Tensor, share_BTK1: Tensor | None) -> Tensor:
    return of_skills_BTKD.squeeze(2) if share_BTK1 is None else (of_skills_BTKD * share_BTK1).sum(2)


def small_embedding(n: int, dim: int, zero_rows: tuple[int, ...] = (), scale: float = 0.1) -> nn.Embedding:
    table = nn.Embedding(n, dim)
    with torch.no_grad():
        table.weight.mul_(scale)
        table.weight[list(zero_rows)] = 0  # never seen in training, so it stays zero
    return table


def shifted(x_BTD: Tensor, beginning_D: Tensor) -> Tensor:
    """What happened one step before each; `beginning_D` at the first."""
    return torch.cat([beginning_D.expand(len(x_BTD), 1, -1), x_BTD[:, :-1]], dim=1)


class FeatureHead(nn.Module):
    """A correction of the logit from the causal features and the state."""

    def __init__(self, n_features: int, hidden: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_features + hidden, 2 * dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
            nn.ReLU(),
            nn.Linear(dim, 1),
        )

    def forward(self, features_BTF: Tensor, h_BTH: Tensor) -> Tensor:
        return cast(Tensor, self.net(torch.cat([features_BTF, h_BTH], dim=-1)).squeeze(-1))


class Scalar(nn.Module):
    """One number of each question, the R of DKT-R and AKT-R: the ease that the Rasch model gives it.

    Learned with the net (`n_questions`), or read from a column of the features, where it was estimated from other
    students' answers: a net that learns it trusts it too much, since it has seen the very answers it is to predict.
    """

    def __init__(self, n_questions: int, column: int | None) -> None:
        super().__init__()
        self.column = column
        self.question_ease = nn.Embedding(n_questions + 1, 1, padding_idx=0) if column is None else None
        if self.question_ease is not None:
            nn.init.zeros_(self.question_ease.weight)
        self.weight = nn.Parameter(torch.ones(())) if column is not None else None

    def forward(self, question: Tensor, features_BTF: Tensor) -> Tensor:
        """[B, T, 1]"""
        if self.question_ease is not None:
            return cast(Tensor, self.question_ease(question))
        return features_BTF[..., self.column : cast(int, self.column) + 1] * cast(Tensor, self.weight)


class Inputs(nn.Module):
    """The asked question and the given answer as vectors.

    Skills, the question's scalar along the skills' direction of variation (as in AKT), and the causal features where
    there are any. `ease` is the same scalar as the Rasch model has it: a part of the logit. AKT's code has it in the
    vectors only; in the logit it is used from the first step on.
    """

    def __init__(
        self,
        n_skills: int,
        n_questions: int,
        dim: int,
        n_features: int = 0,
        scalar_column: int | None = None,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.asked = small_embedding(n_skills + 1, dim, zero_rows=(0,), scale=scale)
        self.answered = small_embedding(2, dim, scale=scale)
        self.asked_variation = small_embedding(n_skills + 1, dim, zero_rows=(0,), scale=scale)
        self.answered_variation = small_embedding(2, dim, scale=scale)
        has_scalar = n_questions or scalar_column is not None
        self.scalar = Scalar(n_questions, scalar_column) if has_scalar else None
        self.features = nn.Linear(n_features, dim) if n_features > (scalar_column is not None) else None

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(asked [B, T, D], answered [B, T, D]); the first knows nothing of the answer."""
        share_BTK1 = shares(skill)
        asked_BTD = mean_of_skills(self.asked(skill), share_BTK1)
        answered_BTD = asked_BTD + self.answered(answer)
        if self.scalar is not None:
            ease_BT1 = self.scalar(question, features)
            variation_BTD = mean_of_skills(self.asked_variation(skill), share_BTK1)
            asked_BTD = asked_BTD + ease_BT1 * variation_BTD
            answered_BTD = answered_BTD + ease_BT1 * (variation_BTD + self.answered_variation(answer))
        if self.features is not None:
            asked_BTD = asked_BTD + self.features(features)
        return asked_BTD, answered_BTD

    def ease(self, question: Tensor, features: Tensor) -> Tensor | float:
        """[B, T] what the question adds to the logit; 0.0 without questions."""
        return 0.0 if self.scalar is None else cast(Tensor, self.scalar(question, features).squeeze(-1))


class Attention(nn.Module):
    """Causal attention: step t reads steps up to t. Give keys and values one step late to read only what is past.

    Dropout takes whole steps of a head, so that torch's fused attention, which drops single weights on a GPU only,
    serves training too.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} cannot be divided among heads={heads}; take a multiple of it.")
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, query_BTD: Tensor, key_BTD: Tensor, value_BTD: Tensor) -> Tensor:
        q, k, v = (self._split(x) for x in (self.query(query_BTD), self.key(key_BTD), self.value(value_BTD)))
        v = v * self.dropout(torch.ones_like(v[..., :1]))
        read = scaled_dot_product_attention(q, k, v, is_causal=True)
        return cast(Tensor, self.out(read.transpose(1, 2).flatten(2)))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention, then (unless `wide=0`) a feed-forward net, each added to its input and normalised."""

    def __init__(self, attention: nn.Module, dim: int, wide: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.wide = feed_forward(dim, wide, dropout) if wide else None
        self.wide_norm = nn.LayerNorm(dim) if wide else None

    def forward(self, query_BTD: Tensor, key_BTD: Tensor, value_BTD: Tensor) -> Tensor:
        x_BTD: Tensor = self.norm(query_BTD + self.dropout(self.attention(query_BTD, key_BTD, value_BTD)))
        if self.wide is not None and self.wide_norm is not None:
            x_BTD = self.wide_norm(x_BTD + self.dropout(self.wide(x_BTD)))
        return x_BTD


class Head(nn.Module):
    """The logit from what was read of the past and what is asked."""

    def __init__(self, inputs: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, 1))

    def forward(self, *parts_BTD: Tensor) -> Tensor:
        return cast(Tensor, self.net(torch.cat(parts_BTD, dim=-1)).squeeze(-1))


class Positions(nn.Module):
    """Sine and cosine of the step, added: fixed, so that no step needs training examples of its own."""

    table: Tensor

    def __init__(self, dim: int, longest: int = 200) -> None:
        super().__init__()
        self.register_buffer("table", _waves(longest, dim), persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        steps = x_BTD.shape[1]
        if steps > len(self.table):  # windows may be longer than any protocol's chunks
            self.table = _waves(steps, x_BTD.shape[2]).to(self.table)
        return x_BTD + self.table[:steps]


def _waves(longest: int, dim: int) -> Tensor:
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angle = torch.arange(longest).unsqueeze(1) * rate
    return 0.1 * torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]


def feed_forward(dim: int, wide: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, wide), nn.ReLU(), nn.Dropout(dropout), nn.Linear(wide, dim))
