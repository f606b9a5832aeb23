"""Every net of sequences: only the past speaks, skill sets have no order, the net learns."""

from __future__ import annotations

import pytest
import torch

from dkt.models import akt
from dkt.models.nets import NETS

B, T, F = 2, 7, 3


def inputs(seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    skill = torch.randint(1, 6, (B, T, 2), generator=draw)
    answer = torch.randint(0, 2, (B, T), generator=draw)
    question = torch.randint(1, 9, (B, T), generator=draw)
    return [skill, answer, question, torch.randn(B, T, F, generator=draw)]


@pytest.fixture(params=NETS)
def net(request):
    torch.manual_seed(0)
    net = NETS[request.param](5, 8, dim=8, n_features=F).eval()
    for name, p in net.named_parameters():  # what begins at zero hides its path
        if not p.any():
            torch.nn.init.normal_(p)
    return net


def test_what_comes_at_and_after_a_step_does_not_move_its_prediction(net):
    given, other = inputs(), inputs(1)
    before = net(*given)
    for t in range(T):
        changed = [x.clone() for x in given]
        changed[1][:, t:] = 1 - changed[1][:, t:]
        for x, y in zip(changed, other):
            if x is not changed[1]:
                x[:, t + 1 :] = y[:, t + 1 :]
        after = net(*changed)
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1], rtol=0, atol=1e-6)
        assert t == T - 1 or not torch.allclose(after[:, t + 1 :], before[:, t + 1 :])


def test_each_past_answer_moves_the_last_prediction(net):
    given = inputs()
    before = net(*given)[:, -1]
    for t in range(T - 1):
        changed = [x.clone() for x in given]
        changed[1][:, t] = 1 - changed[1][:, t]
        assert not torch.equal(net(*changed)[:, -1], before)


def test_a_sequence_may_be_longer_than_a_chunk_of_any_protocol(net):
    given = [torch.cat([x] * 40, dim=1) for x in inputs()]
    assert net(*given).shape == (B, 40 * T)
    short = [x[:, :T] for x in given]
    torch.testing.assert_close(net(*given)[:, :T], net(*short))


@pytest.mark.parametrize("part", [0, 2, 3], ids=["skill", "question", "features"])
def test_what_is_asked_moves_its_own_prediction(net, part):
    given, other = inputs(), inputs(1)
    changed = [x.clone() for x in given]
    changed[part][:, -1] = other[part][:, -1] if part else 6 - given[part][:, -1]
    if part == 2:
        changed[part][:, -1] = given[part][:, -1] % 8 + 1
    if part == 0:
        changed[part][:, -1] = given[part][:, -1] % 5 + 1
    assert not torch.equal(net(*changed)[:, -1], net(*given)[:, -1])


def test_the_order_of_a_skill_set_does_not_matter(net):
    skill, *rest = inputs()
    torch.testing.assert_close(net(skill.flip(-1), *rest), net(skill, *rest))


def test_filling_after_the_end_changes_nothing(net):
    given = inputs()
    filled = [torch.cat([x, torch.zeros_like(x[:, :3])], dim=1) for x in given]
    torch.testing.assert_close(net(*filled)[:, :T], net(*given))


@pytest.mark.gpu
def test_a_net_says_the_same_on_a_gpu(net):
    given = inputs()
    expected = net(*given)
    found = net.cuda()(*(x.cuda() for x in given))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)


def test_every_parameter_learns(net):
    net.train()
    loss = net(*inputs()).square().sum()
    if hasattr(net, "penalty"):
        loss = loss + net.penalty(*inputs(), torch.ones(B, T, dtype=torch.bool))
    loss.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def papers_attention(q, k, v, gamma, strict):
    """The decay as AKT's paper writes it, one step after the other."""
    read = torch.zeros_like(v)
    for i in range(int(strict), len(q)):
        score = q[i] @ k[: i + 1 - strict].T / q.shape[1] ** 0.5
        with torch.no_grad():
            near = torch.softmax(score, 0)
            distance = torch.stack([(near[j + 1 :].sum() * (i - j)).sqrt() for j in range(len(score))])
        read[i] = torch.softmax(score * torch.exp(-gamma.squeeze() * distance), 0) @ v[: len(score)]
    return read


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("steps", [1, 5, akt.ROWS + 3], ids=["one", "few", "several blocks"])
def test_decaying_attention_and_its_gradient_are_the_papers_formula(strict, steps, monkeypatch):
    monkeypatch.setattr(akt, "BLOCK", steps * steps)  # a sequence at a time
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(2, steps, 4, generator=draw, dtype=torch.float64) for _ in range(3)]
    given.append(torch.tensor([0.3, 1.2], dtype=torch.float64).view(2, 1, 1))
    ours, theirs = ([x.clone().requires_grad_() for x in given] for _ in range(2))
    read = akt._Read.apply(*ours, strict)
    expected = torch.stack([papers_attention(*(x[n] for x in theirs), strict) for n in range(2)])
    torch.testing.assert_close(read, expected, rtol=0, atol=1e-6)  # roots of what is nearly zero
    of_read = torch.randn(read.shape, generator=draw, dtype=torch.float64)
    read.backward(of_read)
    if expected.requires_grad:
        expected.backward(of_read)
    for x, y in zip(ours, theirs):
        torch.testing.assert_close(x.grad, torch.zeros_like(x) if y.grad is None else y.grad, rtol=0, atol=1e-5)


def test_the_first_step_reads_nothing_when_its_own_answer_is_hidden():
    attention = akt.DecayingAttention(dim=4, heads=2, dropout=0.0, strict=True)
    assert not attention.read(*torch.randn(3, 2, 3, 2))[:, 0].any()


def test_dim_must_fit_the_heads():
    with pytest.raises(ValueError, match="dim=6 cannot be divided among heads=4"):
        NETS["sakt"](5, dim=6)
