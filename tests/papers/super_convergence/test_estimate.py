import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from reproductions.papers.super_convergence.estimate import (
    RateEstimator,
    estimate_under_noise,
    learning_rate_estimate,
    noise_estimate_curve,
    noise_ratio,
    secant_rate,
    smoothed,
)
from reproductions.papers.super_convergence.schedules import one_cycle, triangular


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def descend(curvature, start, rates, *, momentum=0.0, form="caffe"):
    """Weights of heavy ball on sum_j a_j x_j^2 / 2 after every step, from rest."""
    x, velocity, weights = start.clone(), torch.zeros_like(start), [start]
    for rate in rates:
        gradient = curvature * x
        if form == "caffe":
            velocity = momentum * velocity - rate * gradient
            x = x + velocity
        else:
            velocity = momentum * velocity + gradient
            x = x - rate * velocity
        weights.append(x)
    return weights


def close(a, b, **tolerance):
    torch.testing.assert_close(
        a, torch.as_tensor(b, dtype=torch.float64), **({"rtol": 1e-10, "atol": 0} | tolerance)
    )


# -- quadratics


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.35, 0.7])
def test_on_a_parabola_the_estimate_is_the_inverse_curvature_whatever_the_rate(rate):
    path = descend(torch.tensor([2.5], dtype=torch.float64), torch.ones(1).double(), [rate] * 8)
    close(learning_rate_estimate(path, learning_rate=rate), [0.4] * 7)
    # with momentum it is not, and is no constant either
    path = descend(
        torch.tensor([2.5], dtype=torch.float64), torch.ones(1).double(), [rate] * 8, momentum=0.9
    )
    with_momentum = learning_rate_estimate(path, learning_rate=rate)
    assert ((with_momentum - 0.4).abs() > 0.04).any()


def test_on_a_diagonal_quadratic_it_is_a_ratio_of_weighted_sums():
    a, start = random(7).abs() + 0.1, random(7, seed=1)
    for rate in (0.01, 0.3):
        path = descend(a, start, [rate] * 5)
        expected = [(a * x.abs()).sum() / (a**2 * x.abs()).sum() for x in path[:-2]]
        found = learning_rate_estimate(path, learning_rate=rate)
        close(found, torch.stack(expected))
        assert ((found > 1 / a.max()) & (found < 1 / a.min())).all()


@pytest.mark.parametrize("form", ["caffe", "torch"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_secant_rate_knows_of_momentum_and_schedule(form, momentum):
    rates = one_cycle(30, 0.02, 0.5)
    a, start = torch.tensor([1.6], dtype=torch.float64), torch.ones(1).double()
    path = descend(a, start, rates, momentum=momentum, form=form)
    found = secant_rate(path, learning_rate=rates, momentum=momentum, form=form)
    close(found, [1 / 1.6] * 29, rtol=1e-8)
    # eq. 8 on the same weights does not give it, nor does the other form of momentum
    assert (learning_rate_estimate(path, learning_rate=rates) - 1 / 1.6).abs().max() > 0.05
    if momentum:
        other = {"caffe": "torch", "torch": "caffe"}[form]
        wrong = secant_rate(path, learning_rate=rates, momentum=momentum, form=other)
        assert (wrong - 1 / 1.6).abs().max() > 0.01


def test_the_secant_rate_is_a_ratio_of_sums_and_without_momentum_eq_8():
    a, start = random(7).abs() + 0.1, random(3, 7, seed=1)
    path = descend(a, start, [0.2] * 9, momentum=0.8)
    found = secant_rate(path, learning_rate=0.2, momentum=0.8)
    steps = torch.stack(path).diff(dim=0)
    changes = (a * steps).abs().sum(-1)
    close(found, (steps.abs().sum(-1) / changes)[:-1])
    path = descend(a, start, [0.2] * 9)
    close(
        secant_rate(path, learning_rate=0.2, momentum=0.0),
        learning_rate_estimate(path, learning_rate=0.2),
        rtol=1e-8,
    )


# -- the estimator


def eq_8(path, rates, lag):
    """Eq. 8 read off all snapshots at once; rates are those of the updates, (n, ...)."""
    steps = torch.stack(path).double()[::lag].diff(dim=0)
    above = steps[:-1].abs().sum(-1)
    below = (steps[1:] - steps[:-1]).abs().sum(-1)
    last = torch.arange(len(above)) * lag + 2 * lag - 1
    return rates[last] * above / below


@pytest.mark.parametrize("lag", [1, 3])
def test_function_and_class_agree_with_eq_8(lag):
    path = list(random(17, 4, 6).cumsum(0))
    per_step, per_replica = random(16, seed=1).abs(), random(4, seed=2).abs()
    both = random(16, 4, seed=3).abs()
    for rate, rates in (
        (0.3, torch.full((16, 1), 0.3, dtype=torch.float64)),
        (per_step, per_step[:, None]),
        (per_replica, per_replica.expand(16, 4)),
        (both, both),
    ):
        expected = eq_8(path, rates, lag)
        assert expected.shape == ((16 // lag) - 1, 4)
        close(learning_rate_estimate(iter(path), learning_rate=rate, lag=lag), expected)
        estimator = RateEstimator(lag=lag)
        for t in range(16):
            estimator.add(path[t + 1] - path[t], rates[t] if rates.shape[1] == 4 else rates[t, 0])
        close(estimator.values(), expected)


def test_four_replicas_and_four_rates_are_one_a_replica_unless_said_otherwise():
    path, rates = list(random(5, 4, 6).cumsum(0)), random(4, seed=1).abs()
    close(learning_rate_estimate(path, learning_rate=rates), eq_8(path, rates.expand(4, 4), 1))
    found = learning_rate_estimate(path, learning_rate=rates[:, None])
    close(found, eq_8(path, rates[:, None], 1))
    assert (found != learning_rate_estimate(path, learning_rate=rates)).any()


def test_the_weights_may_be_overwritten_between_the_steps():
    path = list(random(9, 6).cumsum(0))
    expected = learning_rate_estimate(path, learning_rate=0.1, lag=2)

    def buffer():
        weights = torch.empty(6, dtype=torch.float64)
        for theta in path:
            yield weights.copy_(theta)

    close(learning_rate_estimate(buffer(), learning_rate=0.1, lag=2), expected)
    estimator, update = RateEstimator(0.1, lag=2), torch.empty(6, dtype=torch.float64)
    for before, after in pairwise(path):
        estimator.add(torch.sub(after, before, out=update))
        update.zero_()
    close(estimator.values(), expected)


def test_updates_escape_the_cancellation_that_stored_weights_suffer():
    updates = 2e-8 * random(9, 1000)  # the spacing of float32 at 1 is 12e-8
    exact = eq_8(
        [torch.zeros(1000).double(), *updates.cumsum(0)],
        torch.full((9,), 0.1, dtype=torch.float64),
        2,
    )
    estimator, weights = RateEstimator(0.1, lag=2), [torch.ones(1000)]
    for update in updates.float():
        estimator.add(update)
        weights.append(weights[-1] + update)
    close(estimator.values(), exact, rtol=1e-5)
    stored = learning_rate_estimate(weights, learning_rate=0.1, lag=2)
    assert ((stored / exact - 1).abs() > 1e-2).all()


def test_half_precision_updates_are_summed_in_single():
    one = torch.ones(50).bfloat16()
    estimator = RateEstimator(1.0, lag=600)
    for i in range(1200):
        estimator.add(one if i < 900 else 0 * one)
    # 600 ones, then 300; bfloat16 would stop counting at 256 both times
    close(estimator.values(), [600 / 300])


def test_nothing_is_read_back_from_the_device_before_the_values():
    with FakeTensorMode():
        # a tensor without data: to look at one number would raise
        updates = torch.empty(4, 3, 6, device="cuda")
        estimator = RateEstimator(lag=2)
        for update in updates:
            estimator.add(update, 0.1)
        assert estimator.values().shape == (1, 3)
        estimator = RateEstimator(torch.empty(3, device="cuda"))
        for update in updates:
            estimator.add(update)
        assert estimator.values().shape == (3, 3)
        with pytest.raises(DataDependentOutputException):
            estimator.values().sum().item()


def test_no_curvature_is_infinite_and_nothing_is_nan():
    straight = [torch.full((3,), float(t)) for t in range(4)]
    assert learning_rate_estimate(straight, learning_rate=0.1).tolist() == [math.inf] * 2
    still = [torch.ones(3)] * 4
    assert learning_rate_estimate(still, learning_rate=0.1).isnan().all()
    assert RateEstimator(0.1).values().shape == (0,)


def test_the_running_mean_forgets_its_start():
    close(smoothed(torch.full((40,), 2.0))[[0, 9, 39]], [2 - 1.9 * 0.9**n for n in (1, 10, 40)])
    two = smoothed(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), start=0.0, keep=0.5)
    close(two, [[0.5, 1.0], [1.75, 2.5]])


# -- the null model


@pytest.mark.parametrize(
    ("momentum", "lag", "ratio"),
    [(0.0, 1, 0.7071), (0.0, 10, 0.7071), (0.9, 1, 2.2361), (0.9, 10, 1.0257), (0.95, 1, 3.1623)],
)
def test_the_ratio_under_noise_in_closed_form_and_in_a_simulation(momentum, lag, ratio):
    exact = estimate_under_noise(momentum, lag).item()
    assert exact == pytest.approx(ratio, abs=5e-5)
    simulated = noise_ratio(momentum, lag, n_weights=4000, n_steps=60 * lag, generator=generator())
    assert simulated == pytest.approx(exact, rel=0.01)


def test_the_sums_are_the_closed_forms():
    mu = torch.linspace(0, 0.99, 12, dtype=torch.float64)
    for k in (1, 2, 7, 10, 50):
        variance = k * (1 + mu) / (1 - mu) - 2 * mu * (1 - mu**k) / (1 - mu) ** 2
        covariance = mu * (1 - mu**k) ** 2 / (1 - mu) ** 2
        close(estimate_under_noise(mu, k), (2 * (1 - covariance / variance)) ** -0.5, rtol=1e-9)
    close(estimate_under_noise(mu), (2 * (1 - mu)) ** -0.5)
    # long snapshots forget the momentum, and near 1 the closed forms would have lost their digits
    assert estimate_under_noise(0.9, 10_000).item() == pytest.approx(0.5**0.5, rel=1e-2)
    assert estimate_under_noise(1 - 1e-12).item() == pytest.approx(5e11**0.5, rel=1e-3)


def by_matrix(rates, momentum, lag, form):
    """The noise-only estimate from the matrix that maps all gradients to all updates."""
    n = len(rates)
    velocity, updates = torch.zeros(n, dtype=torch.float64), []
    for t in range(n):
        gradient = torch.eye(n, dtype=torch.float64)[t]
        if form == "caffe":
            velocity = momentum[t] * velocity - rates[t] * gradient
            updates.append(velocity)
        else:
            velocity = momentum[t] * velocity + gradient
            updates.append(-rates[t] * velocity)
    steps = torch.stack(updates)[: n // lag * lag].reshape(n // lag, lag, n).sum(1)
    ratio = steps[:-1].norm(dim=1) / (steps[1:] - steps[:-1]).norm(dim=1)
    return rates[2 * lag - 1 :: lag][: len(ratio)] * ratio


@pytest.mark.parametrize("form", ["caffe", "torch"])
@pytest.mark.parametrize("lag", [1, 2, 7])
def test_the_curve_under_noise_is_exact(form, lag):
    rates = one_cycle(60, 0.1, 3.0)
    for momentum in (0.0, 0.9, 0.95 - 0.1 * torch.rand(60, generator=generator()).double()):
        each = torch.as_tensor(momentum, dtype=torch.float64).expand(60)
        found = noise_estimate_curve(rates, momentum, lag, form=form)
        assert found.shape == (60 // lag - 1,)
        close(found, by_matrix(rates, each, lag, form), rtol=1e-9)


@pytest.mark.parametrize("form", ["caffe", "torch"])
def test_the_curve_of_a_constant_rate_is_the_stationary_ratio(form):
    for momentum, lag in ((0.9, 1), (0.9, 10), (0.5, 4), (0.0, 3)):
        curve = noise_estimate_curve([0.35] * 400, momentum, lag, form=form)
        close(curve[-1] / 0.35, estimate_under_noise(momentum, lag), rtol=1e-9)
    # started from rest, it is below that at first
    start = noise_estimate_curve(torch.ones(20), 0.9, form=form)[0]
    assert start.item() == pytest.approx(1 / math.sqrt(1 + 0.1**2), rel=1e-12)


def test_the_forms_of_momentum_part_when_the_rate_varies():
    cycle = triangular(200, 0.1, 3.0)
    caffe = noise_estimate_curve(cycle, 0.9, 10)
    other = noise_estimate_curve(cycle, 0.9, 10, form="torch")
    assert ((caffe / other - 1).abs() > 0.05).any()
    # up the cycle the later increment is the larger: less than the ratio of a constant rate
    ratio = caffe / cycle[19::10]
    rise, fall = ratio[2:6], ratio[-5:-1]
    assert rise.max() < estimate_under_noise(0.9, 10) < fall.min()


def test_the_curve_is_what_the_estimator_reports_of_noise():
    rates = triangular(120, 0.1, 3.0)
    estimator, velocity, noise = RateEstimator(lag=5), torch.zeros(20_000), generator(1)
    for rate in rates.tolist():
        velocity = 0.9 * velocity - rate * torch.randn(20_000, generator=noise)
        estimator.add(velocity, rate)
    curve = noise_estimate_curve(rates, 0.9, 5)
    assert (estimator.values() / curve - 1).abs().max() < 0.03
    # noise of very unequal size among the weights does not matter
    sizes, uneven, velocity = random(20_000).exp().float(), RateEstimator(lag=5), 0.0
    for rate in rates.tolist():
        velocity = 0.9 * velocity - rate * sizes * torch.randn(20_000, generator=noise)
        uneven.add(velocity, rate)
    assert (uneven.values() / curve - 1).abs().max() < 0.05
    # the shape of the schedule does: the curve of a constant rate is far off
    assert (curve / noise_estimate_curve(torch.full((120,), 1.5), 0.9, 5) - 1).abs().max() > 0.5


PATH = [torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning_rate_estimate(PATH[:2], learning_rate=0.1), "at least 2 lag"),
        (
            lambda: learning_rate_estimate(PATH, learning_rate=0.1, lag=2),
            "= 5 weight vectors, got 3",
        ),
        (
            lambda: learning_rate_estimate(PATH, learning_rate=-0.1),
            "learning_rate must be at least",
        ),
        (lambda: learning_rate_estimate(PATH, learning_rate=[0.1]), "a rate for every update"),
        (
            lambda: learning_rate_estimate(PATH, learning_rate=torch.ones(2, 3)),
            "learning_rate must",
        ),
        (lambda: learning_rate_estimate(PATH, learning_rate=0.1, lag=0), "lag must be"),
        (lambda: RateEstimator(lag=1.5), "lag must be an integer"),
        (lambda: RateEstimator().add(torch.ones(3)), "rate must be given"),
        (lambda: RateEstimator().add(torch.ones(3), float("nan")), "must be finite, got nan"),
        (lambda: RateEstimator().add(torch.ones(2, 3), torch.ones(3)), "rate must be a number or"),
        (lambda: RateEstimator(0.1).add(torch.ones(())), "increment must have the shape"),
        (lambda: secant_rate(PATH[:2], learning_rate=0.1, momentum=0.9), "at least 3 weight"),
        (lambda: secant_rate(PATH, learning_rate=0.0, momentum=0.9), "greater than 0, got 0"),
        (lambda: secant_rate(PATH, learning_rate=0.1, momentum=1.0), "momentum must be below 1"),
        (lambda: secant_rate(PATH, learning_rate=0.1, momentum=0.9, form="x"), "form must be one"),
        (lambda: smoothed(torch.ones(3), keep=1.5), r"keep must be in \[0, 1\], got 1.5"),
        (lambda: estimate_under_noise(-0.1), r"momentum must be in \[0, 1\], got -0.1"),
        (lambda: estimate_under_noise(0.9, 0), "lag must be"),
        (
            lambda: noise_ratio(0.9, 5, n_weights=3, n_steps=9, generator=generator()),
            "n_steps must be an integer of at least 10, got 9",
        ),
        (lambda: noise_estimate_curve([0.1] * 3, 0.9, 2), "at least 2 lag = 4 rates"),
        (lambda: noise_estimate_curve([0.1] * 4, torch.ones(3) / 2), "one for each of 4 steps"),
        (lambda: noise_estimate_curve([0.1, -0.1], 0.9), "schedule must be at least 0"),
        (lambda: noise_estimate_curve([0.1, 0.1], 0.9, form="adam"), "form must be one of"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_increments_of_another_shape_are_refused():
    estimator = RateEstimator(0.1)
    estimator.add(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"increment must keep the shape \(2, 3\), got \(2, 4\)"):
        estimator.add(torch.ones(2, 4))


def test_noise_that_sums_to_zero_over_an_epoch_lowers_the_ratio():
    """Batches drawn without replacement: gradients of one epoch have correlation -1/(n - 1)."""

    def ratio(momentum, lag, epoch):
        size = {"n_weights": 4000, "n_steps": 400}
        return noise_ratio(momentum, lag, **size, generator=generator(), epoch=epoch)

    # without momentum: Var D = 1 and Cov = -1/(n-1) within an epoch, 0 from one to the next
    for epoch in (2, 5):
        assert ratio(0.0, 1, epoch) == pytest.approx(
            ((epoch - 1) * (2 + 2 / (epoch - 1)) ** -0.5 + 2**-0.5) / epoch, rel=0.01
        )
    plain = ratio(0.9, 10, None)
    assert ratio(0.9, 10, 50) < 0.85 * plain
    # in a long epoch each gradient is nearly free
    assert ratio(0.9, 1, 200) == pytest.approx(ratio(0.9, 1, None), rel=0.08)
    with pytest.raises(ValueError, match="epoch"):
        ratio(0.9, 1, 1)


@pytest.mark.parametrize("estimate", [learning_rate_estimate, partial(secant_rate, momentum=0.9)])
def test_weights_that_change_their_shape_are_refused(estimate):
    path = [torch.zeros(2), torch.ones(2), torch.ones(1)]
    with pytest.raises(ValueError, match=r"weight vectors of shape \(2,\), got \(1,\)"):
        estimate(path, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"weight vectors of shape \(..., n_weights\), got \(\)"):
        estimate([torch.tensor(k) for k in (1.0, 2.0, 4.0)], learning_rate=0.1)


@pytest.mark.parametrize("estimate", [learning_rate_estimate, partial(secant_rate, momentum=0.9)])
def test_trajectories_of_numpy_are_those_of_torch(estimate):
    path = [torch.tensor([1.0, 2.0]) * k**2 for k in range(1, 5)]
    found = estimate([theta.numpy() for theta in path], learning_rate=0.1)
    assert found.tolist() == estimate(path, learning_rate=0.1).tolist()
