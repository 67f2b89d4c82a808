import pytest
import torch
from mpmath import mp, mpf

from reproductions.papers.attention_svm.descent import (
    gradient_direction,
    loss_and_gradient,
    normalised_gd,
)
from reproductions.papers.attention_svm.problems import draw

PROBLEMS = draw(range(4), n=3, n_tokens=4, d=5)


def weights(length):
    """One W (4, 5, 5) of a given norm a problem, in the direction that 200 steps have taken."""
    W = normalised_gd(*PROBLEMS, torch.zeros(5, 5), 0.1, 200)
    return length * W / W.norm(dim=(-2, -1), keepdim=True)


def loss(W, tokens, labels, queries, head):
    """L (B,), as the model is written down."""
    attention = torch.einsum("bntd,bde,bne->bnt", tokens, W, queries).softmax(-1)
    outputs = torch.einsum("bnt,bntd,bd->bn", attention, tokens, head)
    return torch.log(1 + torch.exp(-labels * outputs)).mean(-1)


def test_gradient_against_finite_differences():
    W = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    value, G = loss_and_gradient(W, *PROBLEMS)
    torch.testing.assert_close(value, loss(W, *PROBLEMS), rtol=1e-14, atol=0)
    h = 1e-5
    for p in range(5):
        for q in range(5):
            step = torch.zeros(5, 5, dtype=torch.float64)
            step[p, q] = h
            slope = (loss(W + step, *PROBLEMS) - loss(W - step, *PROBLEMS)) / (2 * h)
            torch.testing.assert_close(G[:, p, q], slope, rtol=1e-6, atol=1e-10)
    # W is not symmetric in its two sides: the transpose would not pass.
    assert (G - G.mT).abs().max() > 1e-3


def test_gradient_of_a_head_given_as_a_function():
    tokens, labels, queries, head = PROBLEMS
    W = weights(3.0)

    def as_function(o):
        return torch.einsum("bnd,bd->bn", o, head), head[:, None].expand_as(o)

    for one, two in zip(
        loss_and_gradient(W, *PROBLEMS),
        loss_and_gradient(W, tokens, labels, queries, as_function),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def test_direction_is_that_of_the_gradient():
    W = weights(5.0)
    _, G = loss_and_gradient(W, *PROBLEMS)
    direction = gradient_direction(W, *PROBLEMS)
    torch.testing.assert_close(
        direction, G / G.norm(dim=(-2, -1), keepdim=True), rtol=1e-12, atol=1e-14
    )
    # Uphill, not downhill.
    step = 1e-4 * direction
    assert (loss(W + step, *PROBLEMS) > loss(W, *PROBLEMS)).all()


def reference(W, tokens, labels, queries, head):
    """G/||G|| of one problem with 800 digits, from the definition."""
    mp.dps = 800
    d = len(W)
    W, head, G = mp.matrix(W.tolist()), head.tolist(), mp.zeros(d)
    for x, y, z in zip(tokens.tolist(), labels.tolist(), queries.tolist(), strict=True):
        keys = W * mp.matrix(z)
        e = [mp.exp(mp.fdot(row, keys)) for row in x]
        s = [weight / sum(e) for weight in e]
        score = [mpf(y) * mp.fdot(row, head) for row in x]
        mean = mp.fdot(s, score)
        for row, weight, value in zip(x, s, score, strict=True):
            G -= weight * (value - mean) / (1 + mp.exp(mean)) * mp.matrix(row) * mp.matrix(z).T
    norm = mp.sqrt(sum(entry**2 for entry in G))
    rows = [[float(G[p, q] / norm) for q in range(d)] for p in range(d)]
    return torch.tensor(rows, dtype=torch.float64)


def test_direction_at_a_norm_of_1000():
    W = weights(1000.0).requires_grad_()
    direction = gradient_direction(W, *PROBLEMS)
    loss(W, *PROBLEMS).sum().backward()
    for b, one in enumerate(zip(*PROBLEMS, strict=True)):
        wanted = reference(W[b].detach(), *one)
        assert (direction[b] - wanted).norm() < 1e-11
        # Control: what autograd has left of it, normalized as the authors do, points nowhere.
        G = W.grad[b] / (W.grad[b].norm() + 2.220446049250313e-16)
        assert (G - wanted).norm() > 0.5


@pytest.mark.parametrize("rate", [0.1, [0.3 / (k + 1) for k in range(40)]])
def test_normalized_descent_is_a_loop_over_directions(rate):
    W0 = torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = normalised_gd(*PROBLEMS, W0, rate, 40)
    W = W0.expand(4, 5, 5).clone().requires_grad_()
    for k in range(40):
        (G,) = torch.autograd.grad(loss(W, *PROBLEMS).sum(), W)
        with torch.no_grad():
            step = rate if isinstance(rate, float) else rate[k]
            W -= step * G / G.norm(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(found, W.detach(), rtol=1e-10, atol=1e-10)
    assert (found - W0).norm(dim=(-2, -1)).min() > 0.5


def test_errors_name_the_argument_of_these_functions():
    tokens, labels, queries, head = PROBLEMS
    for call in (loss_and_gradient, gradient_direction):
        with pytest.raises(ValueError, match=r"W must have shape \(..., 5, 5\), got \(5, 4\)"):
            call(torch.zeros(5, 4), *PROBLEMS)
        with pytest.raises(ValueError, match=r"labels must be \+1 or -1, got 0"):
            call(torch.zeros(5, 5), tokens, labels.abs() - 1, queries, head)
    with pytest.raises(ValueError, match="n_steps must be an integer of at least 0, got -1"):
        normalised_gd(*PROBLEMS, torch.zeros(5, 5), 0.1, -1)
