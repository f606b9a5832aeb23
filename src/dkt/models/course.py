"""The course's three models, LSTM, LSTMATTN and BERT, under its names and arguments, from torch alone.

Weights of the course's LSTM load as they are. LSTMATTN and BERT were made of `transformers`' BERT, which no longer
takes the arguments the course gave it; here they are torch's encoder with the same sizes. Different on purpose:
BERT's feed-forward net is 4 x hidden_dim wide, as BERT's is (the course left 3,072 beside a hidden_dim of 64), and
`causal=True` lets a position read only what is before it, so that every position can be learned from, not the last
one alone.

B students, T positions, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

EVERYTHING = 1538, 9455, 913  # tests, questions, tags of the course's data, "unknown" among them


class ModelBase(nn.Module):
    """What is asked, and what was answered before, as one vector a position."""

    causal = True  # whether the logit of a position depends on nothing behind it

    def __init__(
        self,
        hidden_dim: int = 64,
        n_layers: int = 2,
        n_tests: int = EVERYTHING[0],
        n_questions: int = EVERYTHING[1],
        n_tags: int = EVERYTHING[2],
    ) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.n_layers = n_layers
        third = hidden_dim // 3
        self.embedding_interaction = nn.Embedding(3, third)  # 0 nothing yet, 1 wrong, 2 right
        self.embedding_test = nn.Embedding(n_tests + 1, third)
        self.embedding_question = nn.Embedding(n_questions + 1, third)
        self.embedding_tag = nn.Embedding(n_tags + 1, third)
        self.comb_proj = nn.Linear(4 * third, hidden_dim)
        self.fc = nn.Linear(hidden_dim, 1)

    def forward(
        self, test: Tensor, question: Tensor, tag: Tensor, correct: Tensor, mask: Tensor, interaction: Tensor
    ) -> Tensor:
        """[B, T] logits of a right answer; `correct` is not looked at."""
        embedded = [
            self.embedding_interaction(interaction.int()),
            self.embedding_test(test.int()),
            self.embedding_question(question.int()),
            self.embedding_tag(tag.int()),
        ]
        return cast(Tensor, self.fc(self.read(self.comb_proj(torch.cat(embedded, dim=-1)), mask)).squeeze(-1))

    def read(self, x_BTD: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] each position in the light of the others."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it reads a sequence.")


class LSTM(ModelBase):
    """Recurrent, and so causal."""

    def __init__(
        self,
        hidden_dim: int = 64,
        n_layers: int = 2,
        n_tests: int = EVERYTHING[0],
        n_questions: int = EVERYTHING[1],
        n_tags: int = EVERYTHING[2],
        **others: Any,  # what the course's other models take
    ) -> None:
        super().__init__(hidden_dim, n_layers, n_tests, n_questions, n_tags)
        self.lstm = nn.LSTM(hidden_dim, hidden_dim, n_layers, batch_first=True)

    def read(self, x_BTD: Tensor, mask: Tensor) -> Tensor:
        return cast(Tensor, self.lstm(x_BTD)[0])


class LSTMATTN(ModelBase):
    """An LSTM, and one layer of attention over what it read."""

    def __init__(
        self,
        hidden_dim: int = 64,
        n_layers: int = 2,
        n_tests: int = EVERYTHING[0],
        n_questions: int = EVERYTHING[1],
        n_tags: int = EVERYTHING[2],
        n_heads: int = 2,
        drop_out: float = 0.1,
        causal: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(hidden_dim, n_layers, n_tests, n_questions, n_tags)
        self.causal = causal
        self.lstm = nn.LSTM(hidden_dim, hidden_dim, n_layers, batch_first=True)
        self.attn = _encoder(hidden_dim, n_heads, hidden_dim, drop_out, n_layers=1)

    def read(self, x_BTD: Tensor, mask: Tensor) -> Tensor:
        hidden_BTD = self.lstm(x_BTD)[0]
        return cast(Tensor, self.attn(hidden_BTD, mask=hidden_from(mask, self.attn, self.causal)))


class BERT(ModelBase):
    """Attention alone, with a learned vector for each position."""

    def __init__(
        self,
        hidden_dim: int = 64,
        n_layers: int = 2,
        n_tests: int = EVERYTHING[0],
        n_questions: int = EVERYTHING[1],
        n_tags: int = EVERYTHING[2],
        n_heads: int = 2,
        drop_out: float = 0.1,
        max_seq_len: int = 20,
        causal: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(hidden_dim, n_layers, n_tests, n_questions, n_tags)
        self.causal = causal
        self.position = nn.Parameter(torch.empty(max_seq_len, hidden_dim).normal_(std=0.02))
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(drop_out)
        self.encoder = _encoder(hidden_dim, n_heads, 4 * hidden_dim, drop_out, n_layers)

    def read(self, x_BTD: Tensor, mask: Tensor) -> Tensor:
        x_BTD = self.dropout(self.norm(x_BTD + self.position[-x_BTD.shape[1] :]))
        return cast(Tensor, self.encoder(x_BTD, mask=hidden_from(mask, self.encoder, self.causal)))


MODELS: dict[str, Callable[..., ModelBase]] = {"lstm": LSTM, "lstmattn": LSTMATTN, "bert": BERT}


def hidden_from(mask: Tensor, encoder: nn.TransformerEncoder, causal: bool) -> Tensor:
    """[B * H, T, T] True where a position may not look: at what fills a history up, and, if causal, at what follows.

    Each may look at itself, or those that fill up would have nothing to look at, and NaN would spread from them.
    """
    n, steps = mask.shape
    seen = mask.bool().unsqueeze(1).expand(n, steps, steps)
    if causal:
        seen = seen.tril()
    seen = seen | torch.eye(steps, dtype=torch.bool, device=mask.device)
    heads = cast(nn.TransformerEncoderLayer, encoder.layers[0]).self_attn.num_heads
    return ~seen.repeat_interleave(heads, dim=0)


def _encoder(dim: int, heads: int, wide: int, dropout: float, n_layers: int) -> nn.TransformerEncoder:
    if dim % heads:
        raise ValueError(f"hidden_dim={dim} cannot be divided among n_heads={heads}; take a multiple of it.")
    layer = nn.TransformerEncoderLayer(dim, heads, wide, dropout, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
