import itertools

import pytest
import torch

from reproductions.kernels.token_descent import token_descent
from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.optimality import optimal
from reproductions.papers.attention_svm.problems import (
    causal,
    default_start,
    draw,
    factor_start,
    plane,
    seeds_from,
)


def as_the_authors_draw(seed, n, n_tokens, d):
    """One problem by their recipe: float32, head, labels, tokens, queries."""
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(d, generator=g)
    y = torch.randn(n, generator=g)
    x = torch.randn(n, n_tokens, d, generator=g)
    z = torch.randn(n, d, generator=g)
    y = torch.tensor([1.0 if value > 0 else -1.0 for value in y])
    return x / x.norm(dim=2, keepdim=True), y, z / z.norm(dim=1, keepdim=True), v / v.norm()


@pytest.mark.parametrize(("n", "n_tokens", "d"), [(6, 8, 10), (3, 4, 2), (1, 2, 1), (20, 2, 40)])
def test_problems_are_those_of_the_authors_number_by_number(n, n_tokens, d):
    seeds = [0, 7, 123_456]
    drawn = draw(seeds, n=n, n_tokens=n_tokens, d=d)
    for b, seed in enumerate(seeds):
        for ours, theirs in zip(drawn, as_the_authors_draw(seed, n, n_tokens, d), strict=True):
            assert ours.dtype is torch.float64
            assert torch.equal(ours[b], theirs.double())


def test_labels_are_a_fair_coin_and_all_else_has_length_one():
    drawn = draw(range(2000), n=3, n_tokens=2, d=4)
    assert drawn.labels.abs().eq(1).all()
    assert drawn.labels.mean().abs() < 4 / 6000**0.5
    for t in (drawn.tokens, drawn.queries, drawn.head):
        assert (t.norm(dim=-1) - 1).abs().max() < 1e-6
        # no direction is preferred: each coordinate has mean 0 and mean square 1/d
        rows = t.flatten(0, -2)
        assert rows.mean(0).abs().max() < 4 / (4 * len(rows)) ** 0.5
        assert (rows.square().mean(0) - 1 / 4).abs().max() < 4 * 0.25 / len(rows) ** 0.5


def test_a_part_of_the_problems():
    drawn = draw(range(5), n=3, n_tokens=2, d=4)
    mask = torch.tensor([False, True, False, True, False])
    for which in (slice(1, 4, 2), torch.tensor([1, 3]), mask):
        found = drawn.part(which)
        for some, same in zip(found, draw([1, 3], n=3, n_tokens=2, d=4), strict=True):
            assert torch.equal(some, same)


def test_seeds_are_those_of_the_authors_first_and_never_shared():
    assert list(seeds_from(0, 4)) == [0, 1, 2, 3]
    assert seeds_from(2, 3)[0] == 2 * seeds_from(1, 3)[0]
    for one, other in itertools.combinations(range(4), 2):
        # at their longest they still do not meet
        assert not set(seeds_from(one, 100_000)) & set(seeds_from(other, 100_000))


def test_three_tokens_in_the_plane():
    found = plane("three tokens")
    g = torch.Generator().manual_seed(1)
    v = torch.randn(2, generator=g)
    x = 0.3 * torch.randn(2, 3, 2, generator=g)
    x[0, :, 0] -= 1
    x[1, :, 0] += 1
    z = torch.randn(2, 2, generator=g)
    check_plane(found, x, z, v)
    # known from the authors' figure
    svm = att_svm(found.tokens, found.queries, optimal(found.tokens, found.labels, found.head))
    assert svm.W.norm().item() == pytest.approx(8.6857, abs=1e-4)


def test_five_tokens_in_the_plane():
    found = plane("five tokens")
    g = torch.Generator().manual_seed(3)
    v = torch.randn(2, generator=g)
    x = 0.5 * torch.randn(2, 5, 2, generator=g)
    x[:, :, 0] -= 1
    x[0, 0], x[1, 0] = torch.tensor([1.0, 0.5]), torch.tensor([1.0, -0.5])
    z = torch.randn(2, 2, generator=g)
    check_plane(found, x, z, v)
    best = optimal(found.tokens, found.labels, found.head)
    assert best.tolist() == [[0, 0]]
    assert att_svm(found.tokens, found.queries, best).W.norm().item() == pytest.approx(
        1.52636, abs=1e-5
    )


def check_plane(found, tokens, queries, head):
    assert all(t.dtype is torch.float64 for t in found)
    torch.testing.assert_close(found.tokens, tokens[None].double(), rtol=0, atol=1e-7)
    assert torch.equal(found.labels, torch.ones(1, 2, dtype=torch.float64))
    unit = (queries / queries.norm(dim=1, keepdim=True))[None].double()
    torch.testing.assert_close(found.queries, unit, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.head, (head / head.norm())[None].double(), rtol=0, atol=1e-7)


def starts(seeds, d):
    """W, K and Q of every seed."""
    return default_start(seeds, d), *factor_start(seeds, d)


@pytest.mark.parametrize("d", [1, 4, 10])
def test_starts_are_uniform_as_of_a_layer(d):
    for start in starts(range(1000), d):
        assert start.shape == (1000, d, d)
        assert start.dtype is torch.float64
        # drawn in double precision, not widened from single
        assert (start.float() != start).double().mean() > 0.9
        # PyTorch's own bound, 1/sqrt(d), and the variance of the uniform distribution within it
        assert start.abs().max() < d**-0.5
        assert start.abs().max() > 0.98 * d**-0.5
        error = (3 * d * start.numel()) ** -0.5
        assert start.mean().abs() < 4 * error
        assert start.square().mean().item() == pytest.approx(1 / (3 * d), rel=0.1)


def test_a_start_belongs_to_its_seed():
    for together, alone in zip(starts([2, 9], 6), starts([9], 6), strict=True):
        assert torch.equal(together[1], alone[0])
        assert (together[0] - together[1]).abs().max() > 0.1
    # neighbors in the numbering, and K and Q of one seed, have nothing to do with each other
    W, K, Q = starts(range(2000), 3)
    for a, b in ((W[:-1], W[1:]), (K, Q), (K[:-1], Q[1:])):
        assert largest_correlation(a, b) < 5 / 2000**0.5


def largest_correlation(a, b):
    """Between any entry of a (B, ...) and any of b (B, ...), over the problems."""
    a, b = ((t.flatten(1) - t.flatten(1).mean(0)) / t.flatten(1).std(0) for t in (a, b))
    return (a.mT @ b / len(a)).abs().max()


def test_starts_do_not_repeat_the_numbers_of_their_problem():
    n, n_tokens, d = 3, 4, 5
    drawn = draw(range(2000), n=n, n_tokens=n_tokens, d=d)
    for start in starts(range(2000), d):
        for t in drawn:
            assert largest_correlation(start, t) < 5.5 / 2000**0.5
    for seed in range(20):
        # what the problem's generator holds
        g = torch.Generator().manual_seed(seed)
        stream = torch.rand(5000, generator=g, dtype=torch.float64)
        for start in starts([seed], d):
            uniform = (start[0] * d**0.5 + 1) / 2
            assert not near_any(uniform, stream)
        # such a start would be found out
        assert near_any(stream[100:110], stream)


def near_any(values, stream):
    return bool(((values.flatten()[:, None] - stream).abs() < 1e-12).any())


def test_each_position_is_a_row_that_sees_what_came_before():
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 3, 4, 5, generator=g, dtype=torch.float64)
    labels = torch.where(torch.randn(2, 3, 4, generator=g) > 0, 1.0, -1.0).double()
    x, y, z, mask = causal(tokens, labels)
    everything = causal(tokens, labels, all_positions=True)
    assert x.shape == (2, 12, 4, 5)
    assert mask.shape == (2, 12, 4)
    assert all(torch.equal(a, b) for a, b in zip((x, y, z), everything[:3], strict=True))
    assert everything[3].shape == mask.shape
    assert everything[3].all()
    for b, i, k in itertools.product(range(2), range(3), range(4)):
        row = 4 * i + k
        assert torch.equal(x[b, row], tokens[b, i])
        assert torch.equal(z[b, row], tokens[b, i, k])
        assert y[b, row] == labels[b, i, k]
        assert mask[b, row].tolist() == [t <= k for t in range(4)]


def attention_of_sequences(W, tokens, labels, head, seen):
    """The loss of layers whose tokens all ask: softmax of X W X^T, row by row as far as seen."""
    total = 0.0
    for X, y in zip(tokens, labels, strict=True):
        asked = (X @ W @ X.T).T  # a row for each query
        attention = asked.masked_fill(~seen, -torch.inf).softmax(1)
        total = total + torch.log1p(torch.exp(-y * (attention @ X @ head))).sum()
    return total / labels.numel()


def test_causal_descent_is_that_of_causal_attention():
    n, length, d = 3, 4, 5
    drawn = draw(range(2), n=n, n_tokens=length, d=d)
    g = torch.Generator().manual_seed(1)
    labels = torch.where(torch.randn(2, n, length, generator=g) > 0, 1.0, -1.0).double()
    start = default_start(range(2), d)
    triangle = torch.ones(length, length, dtype=torch.bool).tril()
    ends = []
    for all_positions in (False, True):
        x, y, z, mask = causal(drawn.tokens, labels, all_positions=all_positions)
        run = token_descent(
            x, y, z, drawn.head, start, mask=mask, learning_rate=0.7, n_steps=20, normalized=False
        )
        ends.append(run.W[-1])
        seen = triangle | all_positions
        for b in range(2):
            W = start[b]
            for _ in range(20):
                W = W.detach().requires_grad_()
                loss = attention_of_sequences(W, drawn.tokens[b], labels[b], drawn.head[b], seen)
                # not normalized, so that the number of positions in the mean counts as well
                W = W - 0.7 * torch.autograd.grad(loss, W)[0]
            torch.testing.assert_close(run.W[-1, b], W.detach(), rtol=0, atol=1e-13)
    # and the mask is no formality
    assert (ends[0] - ends[1]).norm(dim=(1, 2)).min() > 0.05


X = torch.ones(3, 4, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw([], n=1, n_tokens=2, d=1), "seeds must name at least one problem, got none"),
        (
            lambda: draw([0, -1], n=1, n_tokens=2, d=1),
            "seed must be an integer of at least 0, got -1",
        ),
        (lambda: draw([0.5], n=1, n_tokens=2, d=1), "seed must be an integer .* got 0.5"),
        (lambda: draw([0], n=0, n_tokens=2, d=1), "n must be an integer of at least 1, got 0"),
        (lambda: draw([0], n=1, n_tokens=1, d=1), "n_tokens must be an integer of at least 2, got"),
        (lambda: draw([0], n=1, n_tokens=2, d=0), "d must be an integer of at least 1, got 0"),
        (lambda: seeds_from(-1, 5), "seed must be an integer of at least 0, got -1"),
        (lambda: seeds_from(0, 0), "count must be an integer of at least 1, got 0"),
        (lambda: seeds_from(0, 100_001), "count must be at most 100000, got 100001"),
        (lambda: plane("four tokens"), "name must be one of three tokens, five tokens; got 'four"),
        # the generator itself would take it
        (lambda: default_start([-2], 3), "seed must be an integer of at least 0, got -2"),
        (lambda: default_start([], 3), "seeds must name at least one problem, got none"),
        (lambda: default_start([1], 0), "d must be an integer of at least 1, got 0"),
        (lambda: factor_start([-2], 3), "seed must be an integer of at least 0, got -2"),
        (lambda: causal(X[0], torch.ones(4)), r"tokens must be \(..., n, T, d\), got \(4, 5\)"),
        (
            lambda: causal(X, torch.ones(3)),
            r"labels must have the shape of the positions \(3, 4\), got \(3,\)",
        ),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
