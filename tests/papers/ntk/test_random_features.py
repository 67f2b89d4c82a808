import math

import pytest
import torch

from reproductions.papers.ntk.limits import circle, spectral_flow
from reproductions.papers.ntk.random_features import (
    expected_deviation,
    feature_deviation,
    feature_kernel,
    random_functions,
    tangent_kernel,
    train_model,
)
from reproductions.papers.ntk.slopes import width_slope

X = circle(torch.linspace(-3.0, 3.0, 12, dtype=torch.float64))
Y = X.prod(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_model(n_functions, length_scale=0.7):
    """The model of Section 3.1 on X and parameters to start from."""
    g = generator()
    features = random_functions(X, n_functions, length_scale=length_scale, generator=g)
    theta = torch.randn(n_functions, generator=g, dtype=torch.float64)
    return (lambda theta: theta @ features / n_functions**0.5), theta, features


@pytest.mark.parametrize("length_scale", [0.5, 2.0])
def test_random_functions_have_the_covariance_that_is_said(length_scale):
    values = random_functions(X, 100_000, length_scale=length_scale, generator=generator())
    kernel = feature_kernel(X, length_scale=length_scale)
    expected = math.exp(-0.5 * (X[0] - X[5]).square().sum().item() / length_scale**2)
    assert kernel[0, 5].item() == pytest.approx(expected, rel=1e-12)
    assert (kernel.diagonal() == 1).all()
    # f f' has a variance of 3/2 at most
    assert (values.T @ values / 100_000 - kernel).abs().max() < 4.5 * (1.5 / 100_000) ** 0.5


def test_deviation_has_the_level_and_the_slope_of_independent_functions():
    counts, n_draws = [50, 200, 800, 3200], 60
    options = {"length_scale": 0.7}
    found = feature_deviation(X, counts, n_draws=n_draws, generator=generator(), **options)
    assert found.shape == (4, n_draws)
    ratio = found.square().mean(1).sqrt() / expected_deviation(X, counts, **options)
    # the square of the norm has a coefficient of variation below one
    assert (ratio - 1).abs().max() < 4 * 0.5 / n_draws**0.5
    slope = width_slope(found, counts)
    assert abs(slope.slope + 0.5) < 4 * slope.sd
    assert slope.sd < 0.04
    # one function at a time, where a great many draws are cheap
    single = feature_deviation(X, [1], n_draws=40_000, generator=generator(), **options)[0].square()
    exact = expected_deviation(X, [1], **options).square()
    assert (single.mean() - exact).abs() < 4 * single.std() / 200
    assert single.std() < 0.02 * 200 * exact
    exact = expected_deviation(X, [100, 400], **options)
    assert (exact[0] / exact[1]).item() == pytest.approx(2.0, rel=1e-12)


def test_the_same_functions_over_and_over_do_not_converge():
    # the control: P is the number of different functions
    values = random_functions(X, 10, length_scale=0.7, generator=generator())
    kernel = feature_kernel(X, length_scale=0.7)
    deviations = [
        torch.linalg.matrix_norm(v.T @ v / len(v) - kernel) for v in (values, values.repeat(100, 1))
    ]
    torch.testing.assert_close(deviations[0], deviations[1])


def test_draws_are_independent_and_pieces_change_nothing(monkeypatch):
    options = {"n_draws": 5, "length_scale": 0.7}
    whole = feature_deviation(X, [30], generator=generator(), **options)
    assert len(set(whole[0].tolist())) == 5
    single = random_functions(X, 30, length_scale=0.7, generator=generator())
    monkeypatch.setattr("reproductions.papers.ntk.random_features._CHUNK", 30 * 12)
    pieces = feature_deviation(X, [30], generator=generator(), **options)
    kernel = feature_kernel(X, length_scale=0.7)
    expected = torch.linalg.matrix_norm(single.T @ single / 30 - kernel)
    expected = (expected / torch.linalg.matrix_norm(kernel)).item()
    assert pieces[0, 0].item() == pytest.approx(expected, rel=1e-12)


def test_the_tangent_kernel_is_the_sum_over_functions():
    model, theta, features = linear_model(25)
    torch.testing.assert_close(tangent_kernel(model, theta), features.T @ features / 25)
    # by hand: f_i = (theta_0 x_i)^2 + theta_1
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    at = torch.tensor([3.0, 5.0], dtype=torch.float64)
    found = tangent_kernel(lambda theta: (theta[0] * x).square() + theta[1], at)
    assert found.tolist() == [[37.0, 145.0], [145.0, 577.0]]


def test_the_kernel_of_a_linear_model_never_moves_and_that_of_another_does():
    model, theta, _ = linear_model(200)
    options = {"n_steps": 60, "learning_rate": 1.0}
    found = train_model(model, theta, Y, **options)
    costs = (found.outputs - Y).square().mean(1)
    assert costs[-1] < 0.1 * costs[0]
    assert torch.equal(found.after, found.before)

    # a hidden layer that is trained too: the same steps, and a kernel that moves
    def network(theta):
        hidden = (X @ theta[:200].view(2, 100) / 2**0.5).tanh()
        return hidden @ theta[200:] / 100**0.5

    theta = torch.randn(300, generator=generator(), dtype=torch.float64)
    other = train_model(network, theta, Y, **options)
    costs = (other.outputs - Y).square().mean(1)
    assert costs[-1] < 0.9 * costs[0]
    moved = torch.linalg.matrix_norm(other.after - other.before)
    assert moved > 1e-2 * torch.linalg.matrix_norm(other.before)


def test_gradient_descent_on_the_parameters_is_kernel_gradient_descent():
    model, theta, _ = linear_model(8)
    start = theta.clone()
    found = train_model(model, theta, Y, n_steps=40, learning_rate=0.5)
    assert torch.equal(theta, start)
    times = 0.5 * torch.arange(41, dtype=torch.float64)
    residual = model(theta) - Y
    flow = spectral_flow(found.before, residual, times, learning_rate=0.5)
    torch.testing.assert_close(found.outputs - Y, flow, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feature_kernel(X[0], length_scale=1.0), r"x must be \(N, n_0\).* got \(2,\)"),
        (lambda: feature_kernel(X, length_scale=0.0), "length_scale must be greater than 0, got 0"),
        (
            lambda: random_functions(X, 0, length_scale=1.0, generator=generator()),
            "n_functions must be an integer of at least 1, got 0",
        ),
        (
            lambda: feature_deviation(
                X, [10, 0], n_draws=2, length_scale=1.0, generator=generator()
            ),
            "counts must be an integer of at least 1, got 0",
        ),
        (lambda: expected_deviation(X, [0], length_scale=1.0), "counts must be an integer"),
        (
            lambda: train_model(*linear_model(4)[:2], Y[:3], n_steps=1, learning_rate=1.0),
            r"y must be \(12,\), as the outputs are, got \(3,\)",
        ),
        (
            lambda: train_model(*linear_model(4)[:2], Y, n_steps=1, learning_rate=-1.0),
            "learning_rate must be greater than 0, got -1",
        ),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
