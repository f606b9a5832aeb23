"""Dynamic multidimensional item response theory: abilities that are learned, forgotten and known with an uncertainty.

B sequences, T steps, K skills of a row, D hidden concepts, N nodes of a quadrature, F features.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from dkt.models.parts import Scalar, mean_of_skills, shares, small_embedding

NODES = 9  # of the Gauss-Hermite quadrature over a row's ability
LEAST_VARIANCE = 1e-6
DAY = 86_400
NEARLY = 1e-5  # no answer is surer than this
PULL = 1e-3, 0.02  # towards 0: a question's ease beyond its skills', and its log discrimination beyond that of all


class MIRTNet(nn.Module):
    """A Gaussian filter: what is known of a student is a mean and a covariance of D abilities, moved by each answer.

    Every number of the model, from which concepts a skill asks to how fast they are forgotten, is learned by gradients
    through the filter.
    """

    reads_time = True  # the time since the last answer is a feature that it is always given

    def __init__(
        self,
        n_skills: int,
        n_questions: int = 0,
        dim: int = 8,
        n_features: int = 0,
        scalar_column: int | None = None,
        time_column: int | None = None,
    ) -> None:
        super().__init__()
        self.time_column = time_column
        self.concepts = nn.Embedding(n_skills + 1, dim, padding_idx=0)  # softmax: which concepts a skill asks
        nn.init.normal_(self.concepts.weight, std=0.5)
        self.skill_ease = small_embedding(n_skills + 1, 1, zero_rows=(0,))
        self.ease = nn.Parameter(torch.zeros(()))
        self.slope = nn.Parameter(torch.tensor(0.3))  # log of the discrimination
        learned = n_questions and scalar_column is None
        self.of_question = small_embedding(n_questions + 1, 2, zero_rows=(0,)) if learned else None  # ease, slope
        self.scalar = None if scalar_column is None else Scalar(n_questions, scalar_column)
        self.guess, self.slip = nn.Parameter(torch.tensor(-3.0)), nn.Parameter(torch.tensor(-3.0))  # log-odds
        self.spread = nn.Parameter(torch.tensor([-0.3, -0.7]))  # log deviation of a student, and of each concept
        self.pace, self.most = nn.Parameter(torch.tensor(-2.0)), nn.Parameter(torch.tensor(0.5))
        self.fading = nn.Parameter(torch.tensor(-8.0))  # log rate of forgetting in a step
        self.forgetting = nn.Parameter(torch.tensor(-3.0)) if time_column is not None else None  # and in a day
        if time_column is not None:
            self.register_buffer("time_scale", torch.tensor([0.0, 1.0]))  # its mean and deviation, in log seconds
        others = n_features > (scalar_column is not None) + (time_column is not None)
        self.of_features = nn.Linear(n_features, 1, bias=False) if others else None  # more ease
        if self.of_features is not None:
            nn.init.zeros_(self.of_features.weight)
        node, weight = np.polynomial.hermite_e.hermegauss(NODES)
        self.register_buffer("node", torch.tensor(node, dtype=torch.float32), persistent=False)
        self.register_buffer("weight", torch.tensor(weight / weight.sum(), dtype=torch.float32), persistent=False)

    def forward(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor) -> Tensor:
        """Logits [B, T] of a right answer, each from the rows before it."""
        share_BTK1 = shares(skill)
        asked_BTD = mean_of_skills(torch.softmax(self.concepts(skill), -1) * (skill > 0).unsqueeze(-1), share_BTK1)
        ease_BT, slope_BT = self._of_rows(skill, question, features, share_BTK1)
        kept_BT1 = self._kept(ease_BT, features).unsqueeze(-1)
        right_BT1 = answer.unsqueeze(-1) > 0
        guess, slip = torch.sigmoid(self.guess), torch.sigmoid(self.slip)
        pace, most = torch.sigmoid(self.pace), self.most.exp()
        node_N, weight_N = cast(Tensor, self.node), cast(Tensor, self.weight)
        of_all, of_each = self.spread.mul(2).exp()
        n, dim = len(skill), asked_BTD.shape[-1]
        mean_BD = learned_BD = torch.zeros(n, dim, device=skill.device)
        cov_BDD = (of_all + of_each * torch.eye(dim, device=skill.device)).expand(n, dim, dim)
        steps = zip(*(x.unbind(1) for x in (asked_BTD, ease_BT, slope_BT, kept_BT1, right_BT1)), strict=True)
        likely = []
        for asked_BD, ease_B, slope_B, kept_B1, right_B1 in steps:
            learned_BD = learned_BD * kept_B1
            level_B = ((mean_BD + learned_BD) * asked_BD).sum(-1)
            gain_BD = (cov_BDD * asked_BD.unsqueeze(1)).sum(-1)
            var_B1 = (gain_BD * asked_BD).sum(-1, keepdim=True).clamp(min=LEAST_VARIANCE)
            deviation_B1 = var_B1.sqrt()
            ability_BN = level_B.unsqueeze(-1) + deviation_B1 * node_N
            knows_BN = torch.sigmoid(slope_B.exp().unsqueeze(-1) * ability_BN + ease_B.unsqueeze(-1))
            right_BN = guess + (1 - guess - slip) * knows_BN
            likely.append((right_BN * weight_N).sum(-1))
            # The posterior over the nodes, and the Gaussian of the same mean and variance.
            seen_BN = torch.where(right_B1, right_BN, 1 - right_BN) * weight_N
            seen_BN = seen_BN / seen_BN.sum(-1, keepdim=True)
            moved_B1 = (seen_BN * node_N).sum(-1, keepdim=True)
            narrowed_B1 = (seen_BN * node_N.square()).sum(-1, keepdim=True) - moved_B1.square() - 1
            mean_BD = mean_BD + gain_BD * (moved_B1 / deviation_B1)
            cov_BDD = cov_BDD + gain_BD.unsqueeze(2) * gain_BD.unsqueeze(1) * (narrowed_B1 / var_B1).unsqueeze(-1)
            learned_BD = learned_BD + pace * asked_BD * (most - learned_BD)
        return torch.logit(torch.stack(likely, dim=1), eps=NEARLY)

    def _of_rows(
        self, skill: Tensor, question: Tensor, features: Tensor, share_BTK1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[B, T] each: the ease of a row, and the log of its discrimination."""
        ease = self.ease + mean_of_skills(self.skill_ease(skill), share_BTK1).squeeze(-1)
        slope = self.slope.expand_as(ease)
        if self.of_question is not None:
            more_ease, more_slope = self.of_question(question).unbind(-1)
            ease, slope = ease + more_ease, slope + more_slope
        if self.scalar is not None:
            ease = ease + self.scalar(question, features).squeeze(-1)
        if self.of_features is not None:
            ease = ease + self.of_features(features).squeeze(-1)
        return ease, slope

    def _kept(self, like_BT: Tensor, features: Tensor) -> Tensor:
        """[B, T] the share of what was learned that is left when a row begins."""
        rate = self.fading.exp().expand_as(like_BT)
        if self.forgetting is not None:
            mean, deviation = cast(Tensor, self.time_scale)
            seconds = torch.expm1(features[..., cast(int, self.time_column)] * deviation + mean)
            rate = rate + self.forgetting.exp() * seconds / DAY
        return torch.exp(-rate)

    def penalty(self, skill: Tensor, answer: Tensor, question: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """What pulls the ease and the discrimination of each question towards those of its skills and of all."""
        if self.of_question is None:
            return self.ease.new_zeros(())
        ease, slope = (self.of_question(question) * mask.unsqueeze(-1)).square().sum((0, 1)) / mask.sum()
        return cast(Tensor, PULL[0] * ease + PULL[1] * slope)
