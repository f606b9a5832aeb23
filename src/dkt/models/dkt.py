"""Deep knowledge tracing: a recurrent net reads what a student answered and says how the next question will go.

B sequences, T steps, K skills of a row, H hidden. With one difficulty scalar per question this is DKT-R.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dkt.models.parts import FeatureHead, Scalar, mean_of_skills, shares, shifted, small_embedding

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class DKTNet(nn.Module):
    """Logits of a right answer at every step, computed for the asked skills only and from earlier rows only.

    Number 0 of a skill or a question means "not known" and adds nothing. `n_questions=0` leaves the questions out.
    """

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 64,
        hidden: int = 64,
        dropout: float = 0.2,
        cell: str = "lstm",
        deep: bool = False,
        n_features: int = 0,
        scalar_column: int | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell={cell!r} is unknown; choose one of {', '.join(CELLS)}.")
        self.n_skills = n_skills
        self.practised = small_embedding(
            2 * (n_skills + 1), dim, zero_rows=(0, n_skills + 1)
        )  # answered wrong, and right
        self.answered = small_embedding(2, dim)  # the same without the skill: all there is for an unknown one
        self.beginning = nn.Parameter(torch.zeros(dim))
        self.rnn = CELLS[cell](dim, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.asked = small_embedding(n_skills + 1, hidden, zero_rows=(0,))
        self.ease = nn.Parameter(torch.zeros(()))
        self.skill_ease = nn.Embedding(n_skills + 1, 1, padding_idx=0)
        nn.init.zeros_(self.skill_ease.weight)
        self.deep = FeatureHead(hidden, hidden, dim, dropout) if deep else None
        has_scalar = n_questions or scalar_column is not None
        self.scalar = Scalar(n_questions, scalar_column) if has_scalar else None
        self.answered_variation = small_embedding(2, dim) if has_scalar else None
        others = n_features > (scalar_column is not None)
        self.of_features = FeatureHead(n_features, hidden, dim, dropout) if others else None

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] for `skill` [B, T, K], `question` [B, T], given `answer` [B, T] of the steps before each."""
        return self.logits(self.states(skill, answer, question, features), skill, question, features)

    def states(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """[B, T, H] what is known before each step."""
        before = shifted(self.happened(skill, answer, question, features), self.beginning)
        h_BTH = self.rnn(before)[0]
        # One mask for all steps: one mask a step predicts no better and drawing it takes 10% of the time.
        return cast(Tensor, h_BTH * self.dropout(torch.ones_like(h_BTH[:, :1])))

    def happened(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """[B, T, D] what was practised, how it went, and how easy it was."""
        of_skills = self.practised(skill + answer.unsqueeze(-1) * (self.n_skills + 1))
        x_BTD = mean_of_skills(of_skills, shares(skill)) + self.answered(answer)
        if self.scalar is not None and self.answered_variation is not None:
            x_BTD = x_BTD + self.scalar(question, features) * self.answered_variation(answer)
        return cast(Tensor, x_BTD)

    def logits(self, h_BTH: Tensor, skill: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of the asked skills and questions in these states."""
        share_BTK1 = shares(skill)
        asked_BTH = mean_of_skills(self.asked(skill), share_BTK1)
        logit = (h_BTH * asked_BTH).sum(-1)
        if self.deep is not None:
            logit = logit + self.deep(asked_BTH, h_BTH)
        logit = logit + self.ease + mean_of_skills(self.skill_ease(skill), share_BTK1).squeeze(-1)
        if self.scalar is not None:
            logit = logit + self.scalar(question, features).squeeze(-1)
        if self.of_features is not None:
            logit = logit + self.of_features(features, h_BTH)
        return logit
