"""Gradients beyond the range of float64, against arithmetic with 1600 digits."""

import pytest
import torch
from mpmath import mp, mpf

from reproductions.kernels.token_descent import token_descent, token_gradient


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problems(*lead, n=3, T=4, d=5, seed=0):
    """Tokens, labels, queries and heads on the unit sphere."""
    tokens, queries, head = (
        torch.nn.functional.normalize(normal(*lead, *shape, seed=seed + k), dim=-1)
        for k, shape in enumerate([(n, T, d), (n, d), (d,)])
    )
    return tokens, normal(*lead, n, seed=seed + 3).sign(), queries, head


def causal(n, T):
    """Row i sees its first 1 + i mod T tokens."""
    return torch.arange(T) <= torch.arange(n)[:, None] % T


def reference(tokens, labels, queries, v, W, mask=None):
    """Direction and logarithm of the norm of G with 1600 digits."""
    mp.dps = 1600
    x, z, w = tokens.tolist(), queries.tolist(), W.tolist()
    n, T, d = tokens.shape
    G = mp.zeros(d)
    for i in range(n):
        keys = [sum(mpf(a) * mpf(b) for a, b in zip(row, z[i], strict=True)) for row in w]
        seen = [t for t in range(T) if mask is None or mask[i, t]]
        e = {t: mp.exp(sum(mpf(a) * b for a, b in zip(x[i][t], keys, strict=True))) for t in seen}
        s = {t: e[t] / sum(e.values()) for t in seen}
        score = {t: labels[i].item() * mp.fdot(x[i][t], v.tolist()) for t in seen}
        mean = sum(s[t] * score[t] for t in seen)
        for t in seen:
            r = -s[t] * (score[t] - mean) / (1 + mp.exp(mean)) / n
            G += r * mp.matrix(x[i][t]) * mp.matrix(z[i]).T
    norm = mp.sqrt(sum(entry**2 for entry in G))
    rows = [[float(G[p, q] / norm) for q in range(d)] for p in range(d)]
    return torch.tensor(rows, dtype=torch.float64), float(mp.log(norm))


def trained(*data, length, **options):
    """W of a given norm in the direction that 300 steps have taken."""
    d = data[0].shape[-1]
    W = token_descent(*data, torch.zeros(d, d), learning_rate=0.1, n_steps=300, **options).W[-1]
    return length * W / W.norm()


@pytest.mark.parametrize("length", [1.0, 10.0, 60.0, 1000.0, 2500.0])
def test_gradient_at_any_size_of_the_weights(length):
    plain_is_lost = []
    for seed in range(3):
        data = problems(seed=10 * seed)
        for mask in (None, causal(3, 4)):
            W = trained(*data, length=length, mask=mask)
            found = token_gradient(*data, W, mask=mask)
            direction, log_norm = reference(*data, W, mask)
            assert (found.direction - direction).norm() < 1e-11
            assert abs(found.log_norm.item() - log_norm) < 1e-10
            how = {"learning_rate": 1.0, "n_steps": 1, "mask": mask}
            step = token_descent(*data, W, **how).W[-1] - W
            assert (step + direction).norm() < 1e-9
            step = token_descent(*data, W, **how, gradient="plain").W[-1] - W
            plain_is_lost.append((step + direction).norm().item() > 0.5)
    # Control: sizes within the range of float64 and sizes beyond are both among those above.
    if length != 60:
        assert set(plain_is_lost) == {length > 60}


@pytest.mark.parametrize("copies", [1, 2, 4, 5, 6])
def test_copies_of_the_best_token_hide_nothing(copies):
    # Their score difference is 0: it must neither set the scale, or the rest would underflow, nor
    # be lost in the rounding of a mean.
    tokens, labels, queries, v = problems()
    W = trained(tokens, labels, queries, v, length=2500.0)
    top = (tokens @ (queries @ W.T)[..., None])[..., 0].argmax(-1)
    best = tokens[torch.arange(3), top][:, None].expand(-1, copies, -1)
    more = torch.cat([tokens, best], 1)
    found = token_gradient(more, labels, queries, v, W)
    direction, log_norm = reference(more, labels, queries, v, W)
    assert log_norm < -750
    assert (found.direction - direction).norm() < 1e-10
    assert abs(found.log_norm.item() - log_norm) < 1e-9


def test_scores_so_large_that_the_loss_underflows():
    tokens, labels, queries, v = problems()
    W = trained(tokens, labels, queries, v, length=500.0)
    found = token_gradient(tokens, labels, queries, 3e3 * v, W)
    direction, log_norm = reference(tokens, labels, queries, 3e3 * v, W)
    assert log_norm < -900
    assert (found.direction - direction).norm() < 1e-10
    assert abs(found.log_norm.item() / log_norm - 1) < 1e-13


def test_steps_keep_their_length_where_the_gradient_underflows():
    data = problems(4)
    W = torch.stack([trained(*(t[b] for t in data), length=2500.0) for b in range(4)])
    run = token_descent(*data, W, learning_rate=0.1, n_steps=200, record=range(201))
    lengths = (run.W[1:] - run.W[:-1]).flatten(2).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.1), rtol=1e-10, atol=0)
    best = run.logits.topk(2, -1).values
    assert (best[..., 0] - best[..., 1]).min() > 745
    stalled = token_descent(*data, W, learning_rate=0.1, n_steps=200, gradient="plain")
    assert (stalled.W[-1] - W).abs().max() < 1e-10


@pytest.mark.parametrize("balance", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_penalty_beside_a_tiny_gradient(balance):
    # a loss whose gradient is e^-200 or less, and a penalty that is less, as much and more
    data = problems(3)
    W = torch.stack([trained(*(t[b] for t in data), length=1000.0) for b in range(3)])
    u, s, vt = torch.linalg.svd(W)
    factors = u * s.sqrt()[:, None, :], vt.mT * s.sqrt()[:, None, :]
    found = token_gradient(*data, factors[0] @ factors[1].mT)
    for b in range(3):
        one = tuple(t[b] for t in data)
        K, Q = (t[b] for t in factors)
        scale = found.log_norm[b].exp().item()
        assert scale < 1e-80
        run = token_descent(*one, (K, Q), learning_rate=1.0, n_steps=1, penalty=balance * scale)
        G = found.direction[b]
        for new, old, slope in zip(run.factors, (K, Q), (G @ Q, G.T @ K), strict=True):
            slope = slope + 2 * balance * old
            torch.testing.assert_close(old - new[-1], slope / slope.norm(), rtol=0, atol=1e-11)


def test_unnormalized_exact_descent_of_a_pair_keeps_the_true_scale():
    data, pair = problems(), (normal(5, 3, seed=5), normal(5, 3, seed=6))
    found = token_gradient(*data, pair[0] @ pair[1].T)
    G = found.direction * found.log_norm.exp()
    run = token_descent(*data, pair, learning_rate=2.0, n_steps=1, normalized=False)
    torch.testing.assert_close(run.factors[0][-1], pair[0] - 2 * G @ pair[1], rtol=0, atol=1e-14)
    torch.testing.assert_close(run.factors[1][-1], pair[1] - 2 * G.T @ pair[0], rtol=0, atol=1e-14)
