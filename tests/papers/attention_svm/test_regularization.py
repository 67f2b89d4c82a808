import math

import mpmath
import pytest
import torch
from scipy.optimize import minimize

from reproductions.papers.attention_svm import regularization
from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.descent import gradient_direction, loss_and_gradient
from reproductions.papers.attention_svm.optimality import optimal, scores
from reproductions.papers.attention_svm.outcomes import correlation
from reproductions.papers.attention_svm.problems import Problems, draw
from reproductions.papers.attention_svm.regularization import (
    ball_minimum,
    excess_loss,
    stationarity,
)

PROBLEMS = draw(range(20), n=6, n_tokens=8, d=10)


def max_margin(problems):
    return att_svm(problems.tokens, problems.queries, optimal(*(problems[i] for i in (0, 1, 3)))).W


def unit(W):
    return W / W.norm(dim=(-2, -1), keepdim=True)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_excess(W, tokens, labels, queries, head):
    """log(L(W) - L_*) of one problem in 400 digits."""
    with mpmath.workdps(400):
        W = mpmath.matrix(W.tolist())
        difference = mpmath.mpf(0)
        for x, y, z in zip(tokens.tolist(), labels.tolist(), queries.tolist(), strict=True):
            logits = [(mpmath.matrix(token).T * W * mpmath.matrix(z))[0] for token in x]
            top = max(logits)
            weights = [mpmath.exp(a - top) for a in logits]
            gamma = [y * mpmath.fdot(token, head.tolist()) for token in x]
            f = mpmath.fdot(weights, gamma) / mpmath.fsum(weights)
            difference += mpmath.log1p(mpmath.exp(-f)) - mpmath.log1p(mpmath.exp(-max(gamma)))
        return float(mpmath.log(difference / len(labels)))


@pytest.mark.parametrize("radius", [0.0, 1.0, 30.0, 300.0, 2000.0])
def test_excess_is_right_to_rounding_at_any_norm(radius):
    W = radius * unit(max_margin(PROBLEMS))
    expected = [
        reference_excess(*one) for one in zip(W[:3], *(t[:3] for t in PROBLEMS), strict=True)
    ]
    found = excess_loss(W, *PROBLEMS)
    assert found[:3].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    # the two losses themselves agree in all digits beyond some 36 nats
    loss = loss_and_gradient(W, *PROBLEMS)[0]
    least = torch.nn.functional.softplus(-scores(*(PROBLEMS[i] for i in (0, 1, 3))).amax(-1))
    difference = (loss - least.mean(-1)).log()
    assert torch.allclose(difference, found, rtol=1e-8) == (radius <= 30.0)


def test_excess_where_other_tokens_are_selected():
    W = 500.0 * random(20, 10, 10)
    expected = [
        reference_excess(*one) for one in zip(W[:3], *(t[:3] for t in PROBLEMS), strict=True)
    ]
    assert excess_loss(W, *PROBLEMS)[:3].tolist() == pytest.approx(expected, rel=1e-12)


def test_excess_along_the_svm_solution_falls_as_the_exponential_of_the_margin():
    W = max_margin(PROBLEMS)
    radii = torch.tensor([10.0, 20.0, 700.0, 701.0], dtype=torch.float64)
    values = excess_loss(radii[:, None, None, None] * W, *PROBLEMS)
    slope = (values[1] - values[0]) / 10
    assert (slope > -1.02).all()
    assert (slope < -1.0).all()
    # tokens behind the support have died out
    assert (values[3] - values[2]).tolist() == pytest.approx([-1.0] * 20, abs=1e-4)
    # another direction has another rate, that of its least margin
    worse = excess_loss(radii[:, None, None, None] * (W + 0.05 * random(20, 10, 10)), *PROBLEMS)
    assert ((worse[3] - worse[2]) > -0.99).all()


def test_excess_is_minus_infinity_where_nothing_can_be_lost():
    tokens = random(1, 3, 2)[:, :1].expand(1, 3, 2)
    same = Problems(tokens, torch.ones(1).double(), random(1, 2), random(2))
    assert excess_loss(random(2, 2), *same) == -math.inf


@pytest.mark.parametrize("radius", [0.3, 5.0, 30.0, 300.0, 10_000.0])
def test_minimum_is_stationary_on_the_sphere(radius):
    W = ball_minimum(*PROBLEMS, radius)
    assert W.norm(dim=(1, 2)).tolist() == pytest.approx([radius] * 20, rel=1e-12)
    assert stationarity(W, *PROBLEMS).max() < 1e-14
    # the max-margin direction is not, nor is that of a minimum of another norm
    start = radius * unit(max_margin(PROBLEMS))
    assert stationarity(start, *PROBLEMS).min() > 1e-3
    assert (stationarity(2.0 * W, *PROBLEMS) > 1e-5).double().mean() > 0.8
    assert (excess_loss(W, *PROBLEMS) < excess_loss(start, *PROBLEMS)).all()


def test_newton_takes_few_steps(monkeypatch):
    # a wrong second derivative would still arrive, but slowly
    monkeypatch.setattr(regularization, "MAX_STEPS", 30)
    for radius in (5.0, 300.0, 10_000.0):
        assert stationarity(ball_minimum(*PROBLEMS, radius), *PROBLEMS).max() < 1e-14


def test_stationarity_is_one_minus_the_cosine_to_the_negative_gradient():
    W = 3.0 * random(20, 10, 10)
    gradient = loss_and_gradient(W, *PROBLEMS)[1]
    expected = 1.0 + correlation(W, gradient)
    torch.testing.assert_close(stationarity(W, *PROBLEMS), expected)
    down = -gradient_direction(torch.zeros(20, 10, 10).double(), *PROBLEMS)
    # on a small ball the loss is linear
    assert stationarity(1e-9 * down, *PROBLEMS).max() < 1e-15
    torch.testing.assert_close(ball_minimum(*PROBLEMS, 1e-9), 1e-9 * down, rtol=1e-6, atol=1e-16)


def test_path_tends_to_the_max_margin_direction_like_one_over_the_radius_squared():
    target = unit(max_margin(PROBLEMS))
    miss = torch.stack(
        [
            0.5 * (ball_minimum(*PROBLEMS, R) / R - target).square().sum((1, 2))
            for R in (30.0, 100.0, 300.0, 1000.0)
        ]
    )
    assert (miss.diff(dim=0) < 0).all()
    medians = miss.median(1).values
    assert medians[1] < 3e-3
    assert medians[2] < 4e-4
    bound = medians * torch.tensor([30.0, 100.0, 300.0, 1000.0]).double() ** 2
    assert (bound > 10).all()
    assert (bound < 40).all()
    # another problem's solution is no limit
    assert 0.5 * (target - target.roll(1, 0)).square().sum((1, 2)).min() > 0.5


def test_no_random_start_leads_lower_at_a_large_radius():
    few = PROBLEMS.part(slice(0, 8))
    W = ball_minimum(*few, 30.0)
    value = excess_loss(W, *few)
    reached = 0
    for seed in range(4):
        other = ball_minimum(*few, 30.0, start=random(8, 10, 10, seed=seed))
        assert (excess_loss(other, *few) > value - 1e-10).all()
        same = (other - W).norm(dim=(1, 2)) < 1e-6
        reached += int(same.sum())
    assert reached > 3


def test_agrees_with_a_general_solver_on_a_small_problem():
    problems = draw([3, 5], n=2, n_tokens=3, d=2)
    radius = 4.0
    found = ball_minimum(*problems, radius)
    for b in range(2):
        one = problems.part(b)

        def objective(w, one=one):
            loss, gradient = loss_and_gradient(torch.from_numpy(w).view(2, 2), *one)
            return loss.item(), gradient.flatten().numpy()

        ball = {"type": "ineq", "fun": lambda w: radius**2 - w @ w, "jac": lambda w: -2.0 * w}
        best = min(
            (
                minimize(
                    objective, random(4, seed=seed).numpy(), jac=True, constraints=[ball],
                    method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
                )
                for seed in range(4)
            ),
            key=lambda result: result.fun,
        )  # fmt: skip
        assert found[b].flatten().tolist() == pytest.approx(best.x.tolist(), abs=1e-4)
        assert objective(found[b].flatten().numpy())[0] == pytest.approx(best.fun, abs=1e-11)


def test_two_tokens_of_one_sequence_have_the_closed_form():
    # the loss falls with <delta, W z> alone, so W is parallel to delta z^T
    problems = draw([0], n=1, n_tokens=2, d=5)
    best = optimal(*(problems[i] for i in (0, 1, 3)))[0, 0]
    delta = problems.tokens[0, 0, best] - problems.tokens[0, 0, 1 - best]
    expected = 7.0 * unit(delta[:, None] * problems.queries[0, 0])
    start = expected + random(5, 5)
    for options in ({}, {"start": start[None]}):
        torch.testing.assert_close(ball_minimum(*problems, 7.0, **options)[0], expected)


def test_symmetries_and_axes():
    tokens, labels, queries, head = PROBLEMS
    W = ball_minimum(*PROBLEMS, 20.0)
    # opposite labels and head; tokens turned and in another order
    turn = torch.linalg.qr(random(10, 10)).Q
    torch.testing.assert_close(ball_minimum(tokens, -labels, queries, -head, 20.0), W)
    moved = tokens.flip(2) @ turn.T
    torch.testing.assert_close(ball_minimum(moved, labels, queries, head @ turn.T, 20.0), turn @ W)
    # no batch, and two axes of it
    torch.testing.assert_close(ball_minimum(*(t[4] for t in PROBLEMS), 20.0), W[4])
    two = ball_minimum(*(t.unflatten(0, (4, 5)) for t in PROBLEMS), 20.0)
    torch.testing.assert_close(two, W.unflatten(0, (4, 5)))


def test_a_sequence_that_has_nothing_to_lose_does_not_count():
    few = PROBLEMS.part(slice(0, 5))
    tokens = few.tokens.clone()
    # five of the sequences, and one whose tokens differ across the head only
    across = tokens[:, 0] - (tokens[:, 0] @ few.head[:, :, None]) * few.head[:, None]
    across[:, :, :] = across[:, :1]
    tokens[:, 0] = across
    start = random(5, 10, 10)
    with_it = ball_minimum(tokens, *few[1:], 10.0, start=start)
    without = ball_minimum(
        few.tokens[:, 1:], few.labels[:, 1:], few.queries[:, 1:], few.head, 10.0, start=start
    )
    torch.testing.assert_close(with_it, without)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 0.0}, "radius must be greater than 0, got 0"),
        ({"radius": math.inf}, "radius must be finite, got inf"),
        ({"start": random(2, 10, 9)}, r"start must be \(2, 10, 10\), got \(2, 10, 9\)"),
        ({"start": torch.zeros(2, 10, 10)}, "start must change the attention of every problem"),
        ({"start": torch.full((2, 10, 10), math.nan)}, "start must be finite, got nan"),
        ({"labels": torch.zeros(2, 6)}, "labels must be"),
    ],
)
def test_errors_name_argument_and_value(changes, message):
    arguments = PROBLEMS.part(slice(0, 2))._asdict() | {"radius": 5.0} | changes
    with pytest.raises(ValueError, match=message):
        ball_minimum(**arguments)


def test_errors_of_problems_without_a_minimum_or_a_start():
    tokens, labels, queries, head = PROBLEMS.part(slice(0, 2))
    same = tokens.clone()
    same[1] = same[1, :, :1]
    with pytest.raises(ValueError, match="tokens must differ in score somewhere in every problem"):
        ball_minimum(same, labels, queries, head, 5.0)
    twins = tokens.clone()
    best = optimal(tokens, labels, head)
    twins[0, 0, (best[0, 0] + 1) % 8] = twins[0, 0, best[0, 0]]
    with pytest.raises(ValueError, match=r"start must be given .* infeasible for 1 of 2"):
        ball_minimum(twins, labels, queries, head, 5.0)
    with pytest.raises(ValueError, match="W must be finite, got nan"):
        excess_loss(torch.full((10, 10), math.nan), tokens, labels, queries, head)
