"""The course's three models, LSTM, LSTMATTN and BERT, under its names and arguments, from torch alone.

Weights of the course's LSTM load as they are. LSTMATTN and BERT were made of `transformers`' BERT, which no longer
takes the arguments the course gave it; here they are torch's encoder with the same sizes. Different on purpose:
BERT's feed-forward net is 4 x hidden_dim wide, as BERT's is (the course left 3,072 beside a hidden_dim of 64), and
`causal=True` lets a position read only what is before it, so that every position can be learned from, not the last
one alone.

Each takes its sizes by name, or the course's `args`; and a batch by name (`model(**batch)`), or as the tuple that
`process_batch` gives (`model(input)`). What comes out are logits in any case.

B students, T positions, D width, H heads.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

FIELDS = ("test", "question", "tag", "correct", "mask", "interaction")  # of a batch
EVERYTHING = 1538, 9455, 913  # tests, questions, tags of the course's data, "unknown" among them


_SIZES = ("hidden_dim", "n_layers", "n_tests", "n_questions", "n_tags", "n_heads", "drop_out", "max_seq_len", "causal")
_OF_2021 = {"n_tests": "n_test", "n_tags": "n_tag"}


def sizes_of(args: Any) -> dict[str, Any]:
    """What a model takes of the course's `args`, in either edition's names."""
    names = {name: name if hasattr(args, name) else _OF_2021.get(name, name) for name in _SIZES}
    if not hasattr(args, "n_questions"):
        raise ValueError("the ids are not counted yet; call Preprocess(args).load_train_data(args.file_name) first.")
    return {name: getattr(args, theirs) for name, theirs in names.items() if hasattr(args, theirs)}


def _takes_args(init: Callable[..., None]) -> Callable[..., None]:
    """`LSTM(args)` as well as `LSTM(hidden_dim=64, ...)`."""
    parameters = inspect.signature(init).parameters
    takes_others = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @functools.wraps(init)
    def made(self: nn.Module, *sizes: Any, **named: Any) -> None:
        args = sizes[0] if sizes and not isinstance(sizes[0], int) else named.pop("args", None)
        if args is not None:
            of_args = {k: v for k, v in sizes_of(args).items() if takes_others or k in parameters}
            sizes, named = (), of_args | named
        init(self, *sizes, **named)
        if args is not None:
            self.args = args

    return made


class ModelBase(nn.Module):
    """What is asked, and what was answered before, as one vector a position."""

    causal = True  # whether the logit of a position depends on nothing behind it

    @_takes_args
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

    def forward(self, *input: Any, **batch: Tensor) -> Tensor:
        """[B, T] logits of a right answer; `correct` is not looked at."""
        first = input[0] if len(input) == 1 and not isinstance(input[0], Tensor) else input
        given = {**(first if isinstance(first, Mapping) else dict(zip(FIELDS, first, strict=False))), **batch}
        if missing := [name for name in FIELDS if name not in given and name != "correct"]:
            raise TypeError(
                f"{type(self).__name__} was called without {', '.join(missing)}. Write model(**batch), or "
                "model(process_batch(batch)); process_batch is in dkt.trainer."
            )
        embedded = [
            self.embedding_interaction(given["interaction"].int()),
            self.embedding_test(given["test"].int()),
            self.embedding_question(given["question"].int()),
            self.embedding_tag(given["tag"].int()),
        ]
        read = self.read(self.comb_proj(torch.cat(embedded, dim=-1)), given["mask"])
        return cast(Tensor, self.fc(read).squeeze(-1))

    def read(self, x_BTD: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] each position in the light of the others."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it reads a sequence.")


class LSTM(ModelBase):
    """Recurrent, and so causal."""

    @_takes_args
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

    @_takes_args
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

    @_takes_args
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
