"""Deep knowledge tracing: a recurrent net reads what a student answered and says how the next question will go.

B sequences, T steps, K skills of a row, H hidden. With one difficulty scalar per question this is DKT-R.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class DKT(nn.Module):
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
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell={cell!r} is unknown; choose one of {', '.join(CELLS)}.")
        self.n_skills = n_skills
        self.practised = _embedding(2 * (n_skills + 1), dim, zero_rows=(0, n_skills + 1))  # answered wrong, and right
        self.answered = _embedding(2, dim)  # the same without the skill: all there is for an unknown one
        self.beginning = nn.Parameter(torch.zeros(dim))
        self.rnn = CELLS[cell](dim, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.asked = _embedding(n_skills + 1, hidden, zero_rows=(0,))
        self.ease = nn.Parameter(torch.zeros(()))
        self.skill_ease = nn.Embedding(n_skills + 1, 1, padding_idx=0)
        nn.init.zeros_(self.skill_ease.weight)
        self.question_ease = nn.Embedding(n_questions + 1, 1, padding_idx=0) if n_questions else None
        if self.question_ease is not None:
            nn.init.zeros_(self.question_ease.weight)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor) -> Tensor:
        """Logits [B, T] for `skill` [B, T, K], `question` [B, T], given `answer` [B, T] of the steps before each."""
        share_BTK1 = _shares(skill)
        happened = skill + answer.unsqueeze(-1) * (self.n_skills + 1)
        x_BTD = _mean(self.practised(happened), share_BTK1) + self.answered(answer)
        before = torch.cat([self.beginning.expand(len(skill), 1, -1), x_BTD[:, :-1]], dim=1)
        h_BTH = self.rnn(before)[0]
        # One mask for all steps: one mask a step predicts no better and drawing it takes 10% of the time.
        h_BTH = h_BTH * self.dropout(torch.ones_like(h_BTH[:, :1]))
        logit = (h_BTH * _mean(self.asked(skill), share_BTK1)).sum(-1)
        logit = logit + self.ease + _mean(self.skill_ease(skill), share_BTK1).squeeze(-1)
        if self.question_ease is not None:
            logit = logit + self.question_ease(question).squeeze(-1)
        return cast(Tensor, logit)


def _shares(skill_BTK: Tensor) -> Tensor | None:
    """The weight of each skill in its row's mean; None where every row has one place, and so no mean to take."""
    if skill_BTK.shape[2] == 1:
        return None
    known = skill_BTK > 0
    return (known / known.sum(-1, keepdim=True).clamp(min=1)).unsqueeze(-1)


def _mean(of_skills_BTKD: Tensor, share_BTK1: Tensor | None) -> Tensor:
    return of_skills_BTKD.squeeze(2) if share_BTK1 is None else (of_skills_BTKD * share_BTK1).sum(2)


def _embedding(n: int, dim: int, zero_rows: tuple[int, ...] = ()) -> nn.Embedding:
    table = nn.Embedding(n, dim)
    with torch.no_grad():
        table.weight.mul_(0.1)
        table.weight[list(zero_rows)] = 0  # never seen in training, so it stays zero
    return table
