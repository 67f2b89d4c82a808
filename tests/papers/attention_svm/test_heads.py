import math

import pytest
import torch
from scipy.optimize import brentq

from reproductions.papers.attention_svm.heads import (
    keeps_local_optimum,
    lambda_experiment,
    orthonormal_problems,
    quadratic_head,
    relu_head,
    sparsemax,
)
from reproductions.papers.attention_svm.optimality import is_locally_optimal, scores
from reproductions.papers.attention_svm.problems import draw

PENALTIES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sparsemax_is_the_threshold_that_a_root_finder_finds():
    z = random(50, 7) * torch.logspace(-2, 2, 50, dtype=torch.float64)[:, None]
    for row, found in zip(z.tolist(), sparsemax(z).tolist(), strict=True):
        tau = brentq(
            lambda tau, row=row: sum(max(x - tau, 0.0) for x in row) - 1.0,
            min(row) - 1.0, max(row), xtol=1e-15, rtol=1e-15,
        )  # fmt: skip
        assert found == pytest.approx([max(x - tau, 0.0) for x in row], abs=1e-12)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    z = random(20, 5)
    s = sparsemax(z)
    # the projection's angle to every corner is obtuse, which characterizes it on a convex set
    corners = torch.eye(5, dtype=torch.float64)
    angles = ((z - s)[:, None] * (corners - s[:, None])).sum(-1)
    assert angles.max() < 1e-14
    softmax = z.softmax(-1)
    assert ((z - softmax)[:, None] * (corners - softmax[:, None])).sum(-1).amax(-1).min() > 1e-3
    torch.testing.assert_close(s.sum(-1), torch.ones(20).double())
    assert (s >= 0).all()
    torch.testing.assert_close(sparsemax(s), s)


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], [0.25] * 4),
        ([2.0, 1.0, 0.9], [1.0, 0.0, 0.0]),
        ([2.0, 1.5, 1.5], [2 / 3, 1 / 6, 1 / 6]),
        ([1.0, 1.0, 0.5], [0.5, 0.5, 0.0]),
        ([-7.0], [1.0]),
        ([1e300, -1e300], [1.0, 0.0]),
        ([1e17 + 64, 1e17 + 64, 0.0], [0.5, 0.5, 0.0]),
        ([-1e17, -1e17], [0.5, 0.5]),
    ],
)
def test_sparsemax_of_ties_and_of_large_numbers(z, expected):
    assert sparsemax(torch.tensor(z, dtype=torch.float64)).tolist() == pytest.approx(expected)


def test_sparsemax_axes_and_symmetries():
    z = random(2, 3, 6)
    s = sparsemax(z)
    assert s.shape == (2, 3, 6)
    torch.testing.assert_close(sparsemax(z[1, 2]), s[1, 2])
    torch.testing.assert_close(sparsemax(z + 5.0), s)
    torch.testing.assert_close(sparsemax(z.flip(-1)), s.flip(-1))
    assert sparsemax(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        ([1.0, math.nan], "z must be finite, got nan"),
        ([1.0, math.inf], "z must be finite, got inf"),
        ([], r"z must have an entry along its last axis, got shape \(0,\)"),
        (3.0, r"z must have an entry along its last axis, got shape \(\)"),
    ],
)
def test_sparsemax_refuses(z, message):
    with pytest.raises(ValueError, match=message):
        sparsemax(torch.tensor(z))


@pytest.mark.parametrize(
    ("head", "h"),
    [
        (relu_head(random(4, 5, 3)), lambda o: (o @ random(4, 5, 3)).relu().sum(-1)),
        (
            quadratic_head(random(4, 5), torch.tensor([0.0, 0.1, 1.0, 3.0])),
            lambda o: (
                torch.einsum("bid,bd->bi", o, random(4, 5))
                - torch.tensor([0.0, 0.1, 1.0, 3.0])[:, None] * o.square().sum(-1)
            ),
        ),
        (
            quadratic_head(random(5), 0.7),
            lambda o: o @ random(5) - 0.7 * o.square().sum(-1),
        ),
    ],
)
def test_heads_and_their_gradients(head, h):
    o = random(4, 6, 5, seed=1).requires_grad_()
    expected = h(o)
    value, gradient = head(o.detach())
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), o)[0])


def test_a_relu_head_without_active_units_has_no_gradient():
    V = torch.tensor([[1.0, 0.0], [0.0, -1.0]]).double()
    value, gradient = relu_head(V)(torch.tensor([[-1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]).double())
    assert value.tolist() == [0.0, 0.0, 1.0]
    assert gradient.tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]


def test_orthonormal_problems():
    tokens, labels, queries, head = orthonormal_problems(range(5), n=2, d=6, n_tokens=4)
    assert tokens.shape == (5, 2, 4, 6)
    torch.testing.assert_close(tokens @ tokens.mT, torch.eye(4).double().expand(5, 2, 4, 4))
    assert (labels == 1).all()
    assert labels.shape == (5, 2)
    for t in (queries, head):
        torch.testing.assert_close(t.norm(dim=-1), torch.ones(t.shape[:-1]).double())
    assert len({t[0].sum().item() for t in tokens}) == 5
    # a problem belongs to its seed alone
    again = orthonormal_problems([3], n=2, d=6, n_tokens=4)
    assert torch.equal(again.tokens[0], tokens[3])
    assert torch.equal(again.queries[0], queries[3])


@pytest.fixture(scope="module", params=[4, 8])
def run(request):
    return lambda_experiment(range(20), PENALTIES, d=request.param, n_steps=3000)


def test_attention_tends_to_sparsemax(run):
    assert run.attention.shape == run.target.shape == (6, 20, 3, 4)
    assert run.penalties.tolist() == list(PENALTIES)
    assert run.errors.median(1).values.max() < 2e-3
    # other laws of the same kind are far off, from a penalty that leaves one a choice
    gamma = scores(run.problems.tokens, run.problems.labels, run.problems.head)
    scale = run.penalties[2:5, None, None, None]
    for other in (sparsemax(gamma / scale), sparsemax(gamma), (gamma / (2 * scale)).softmax(-1)):
        worst = (run.attention[2:5] - other).abs().amax((-2, -1))
        assert worst.median(1).values.min() > 0.05


def test_more_tokens_are_kept_for_a_larger_penalty(run):
    assert (run.target_kept.diff(dim=0) >= 0).all()
    assert (run.kept.mean(1).diff() > 0).all()
    assert run.kept.mean(1)[0] < 1.5
    assert run.kept.mean(1)[-1] > 3.9
    assert (run.kept - run.target_kept).abs().mean() < 0.1


def test_the_runs_that_miss_keep_tokens_that_are_locally_optimal():
    run = lambda_experiment(range(20), PENALTIES[:3], d=4, n_steps=3000)
    missed = run.errors > 0.05
    assert 3 < missed.sum() < 15
    assert run.locally_optimal[missed].double().mean() > 0.9
    # not for want of steps: they miss as much after more of them
    longer = lambda_experiment(range(20), PENALTIES[:3], d=4, n_steps=9000)
    assert (longer.errors[missed] > 0.05).double().mean() > 0.9
    # while the others' errors fall like one over the number of steps
    hit = ~missed & (run.errors > 1e-5)
    assert 2 < (run.errors[hit] / longer.errors[hit]).median() < 5
    # tokens exchanged at random are not locally optimal
    tokens, labels, queries, v = run.problems
    head = quadratic_head(v, run.penalties[:, None])
    rolled = run.attention.roll(1, -1)
    assert keeps_local_optimum(tokens, labels, queries, head, rolled).double().mean() < 0.3


def test_local_optimality_of_kept_tokens_is_the_known_one_for_one_token():
    problems = draw(range(60), n=3, n_tokens=4, d=4)
    g = torch.Generator().manual_seed(0)
    ranked = scores(*(problems[i] for i in (0, 1, 3))).argsort(-1, descending=True)
    selected = ranked.gather(-1, torch.randint(2, (60, 3, 1), generator=g))[..., 0]
    attention = torch.nn.functional.one_hot(selected, 4).double()
    expected = is_locally_optimal(*problems, selected)
    assert 5 < expected.sum() < 55
    found = keeps_local_optimum(*problems[:3], quadratic_head(problems.head, 0.0), attention)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relu_head(torch.ones(3)), r"V must be \(\.\.\., d, m\), got shape \(3,\)"),
        (lambda: relu_head(torch.full((2, 2), math.nan)), "V must be finite, got nan"),
        (lambda: quadratic_head(torch.ones(3), -1.0), "penalty must be at least 0, got -1"),
        (lambda: quadratic_head(torch.tensor([math.inf]), 1.0), "v must be finite, got inf"),
        (
            lambda: orthonormal_problems([0], n=2, d=3, n_tokens=4),
            "n_tokens must be at most d = 3, or they cannot be orthonormal; got 4",
        ),
        (lambda: orthonormal_problems([], n=2, d=3, n_tokens=2), "seeds must name at least one"),
        (
            lambda: orthonormal_problems([0], n=2, d=3, n_tokens=1),
            "n_tokens must be an integer of at least 2, got 1",
        ),
        (lambda: lambda_experiment([0], [0.0], d=4), "penalties must be greater than 0, got 0"),
        (
            lambda: lambda_experiment([0], [0.1], d=4, n_steps=0),
            "n_steps must be an integer of at least 1, got 0",
        ),
        (
            lambda: lambda_experiment([0], [0.1], d=4, learning_rate=-1.0),
            "learning_rate must be greater than 0, got -1",
        ),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
