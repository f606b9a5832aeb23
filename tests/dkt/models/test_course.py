"""The course's models: its arguments, what fills a history up says nothing, causal where they say so."""

from __future__ import annotations

import pytest
import torch

from dkt.models.course import BERT, LSTM, LSTMATTN, MODELS, hidden_from

SIZES = {"hidden_dim": 12, "n_layers": 2, "n_tests": 4, "n_questions": 6, "n_tags": 3, "n_heads": 2, "max_seq_len": 5}
FIELDS = ("test", "question", "tag", "correct", "mask", "interaction")


def batch(filled=2, seed=0):
    """Two students, the second with `filled` positions at the left that hold nothing."""
    draw = torch.Generator().manual_seed(seed)
    high = {"test": 5, "question": 7, "tag": 4, "correct": 2, "interaction": 3}
    columns = {name: torch.randint(1, high[name], (2, 5), generator=draw) for name in high}
    columns["mask"] = torch.ones(2, 5, dtype=torch.int64)
    for values in columns.values():
        values[1, :filled] = 0
    return {name: columns[name] for name in FIELDS}


@pytest.fixture(
    params=[("lstm", False), ("lstmattn", False), ("lstmattn", True), ("bert", False), ("bert", True)], ids=str
)
def model(request):
    torch.manual_seed(0)
    name, causal = request.param
    return MODELS[name](**SIZES, causal=causal).eval()


def test_a_logit_for_each_position(model):
    assert model(**batch()).shape == (2, 5)
    assert torch.isfinite(model(**batch())).all()


def test_training_and_evaluation_agree_without_dropout(model):
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout | torch.nn.TransformerEncoderLayer | torch.nn.MultiheadAttention):
            setattr(part, "dropout" if isinstance(part, torch.nn.MultiheadAttention) else "p", 0.0)
    with torch.no_grad():  # torch takes another path here, without gradients
        evaluated = model(**batch())
    torch.testing.assert_close(model.train()(**batch()), evaluated)


def test_the_answers_themselves_are_not_read(model):
    given = batch()
    assert torch.equal(model(**given | {"correct": 1 - given["correct"]}), model(**given))


def test_a_causal_model_reads_nothing_behind_a_position_and_another_one_does(model):
    given, other = batch(), batch(seed=1)
    moved = {name: given[name].clone() for name in FIELDS}
    for name in ("test", "question", "tag", "interaction"):
        moved[name][:, 3:] = other[name][:, 3:]
    before, after = model(**given)[:, :3], model(**moved)[:, :3]
    if model.causal:
        torch.testing.assert_close(after, before)
    else:
        assert not torch.allclose(after[0], before[0])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [LSTMATTN, BERT])
def test_attention_does_not_look_at_what_fills_a_history_up(kind, causal):
    torch.manual_seed(0)
    model = kind(**SIZES, causal=causal).eval()
    x = torch.randn(2, 5, 12)
    mask = batch()["mask"]
    attention = model.attn if kind is LSTMATTN else model.encoder
    hidden = hidden_from(mask, attention, causal)
    other = x.clone()
    other[1, :2] = torch.randn(2, 12)
    torch.testing.assert_close(attention(other, mask=hidden)[1, 2:], attention(x, mask=hidden)[1, 2:])


def test_weights_have_the_names_of_the_courses_lstm():
    names = {name.split(".")[0] for name in LSTM(**SIZES).state_dict()}
    embeddings = {f"embedding_{what}" for what in ("interaction", "test", "question", "tag")}
    assert names == {*embeddings, "comb_proj", "lstm", "fc"}
    sizes = [
        LSTM().state_dict()[f"embedding_{what}.weight"].shape for what in ("interaction", "test", "question", "tag")
    ]
    assert sizes == [(3, 21), (1539, 21), (9456, 21), (914, 21)]


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="hidden_dim=64 cannot be divided among n_heads=5"):
        BERT(n_heads=5)
