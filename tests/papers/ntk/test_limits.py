import math

import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.papers.ntk.limits import (
    Law,
    circle,
    gaussian_law,
    posterior,
    spectral_decay,
    spectral_filter,
    spectral_flow,
)

SETTING = {"depth": 4, "bias_scale": 0.1}
#: the four training points of the chapter's Figure 2, target x_1 x_2
X = circle([-2.2, -0.6, 0.5, 1.9])
Y = X.prod(1)
GRID = circle(torch.linspace(-math.pi, math.pi, 181, dtype=torch.float64))


def random(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def close(found, expected, atol, rtol=0.0):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def law_by_matrix_exponential(x, y, x_test, time, **options):
    """Mean and whole covariance from d f/dt on data and test together, one matrix exponential."""
    n, everything = len(x), torch.cat([x, x_test])
    nngp, theta = dual_kernel(everything, **options)
    rate = torch.zeros_like(theta)
    rate[:, :n] = -theta[:, :n] / n
    flow = torch.linalg.matrix_exp(time * rate)
    target = torch.cat([y, torch.zeros(len(x_test), dtype=torch.float64)])
    # f - y* with y* = (y, 0) obeys the homogeneous equation
    mean = target - flow @ target
    return mean[n:], (flow @ nngp @ flow.T)[n:, n:]


def test_circle_is_cosine_then_sine():
    close(circle([0.0, math.pi / 2, -2.2])[:2], torch.eye(2, dtype=torch.float64), 1e-15)
    assert circle([0.3]).tolist() == [[math.cos(0.3), math.sin(0.3)]]
    assert circle(torch.zeros(3, dtype=torch.float32)).dtype == torch.float64


@pytest.mark.parametrize("weight_variance", [1.0, 2.0])
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("time", [0.5, 7.0, 60.0])
def test_law_is_that_of_the_whole_linear_system(time, activation, weight_variance):
    x, y, x_test = random(7, 3), random(7, seed=1), random(5, 3, seed=2)
    options = {"activation": activation, "weight_variance": weight_variance}
    options |= {"depth": 3, "bias_scale": 0.3}
    mean, covariance = law_by_matrix_exponential(x, y, x_test, time, **options)
    law = gaussian_law(x, y, x_test, time=time, **options)
    close(law.mean, mean, 1e-12)
    close(law.sd, covariance.diagonal().sqrt(), 1e-12)


def test_law_is_that_of_drawn_functions_trained_one_by_one():
    # f_0 drawn with covariance Sigma, then Euler steps of the flow: nothing solved in closed form
    n_draws, time, n_steps = 5000, 30.0, 200
    everything = torch.cat([X, GRID[::30]])
    nngp, theta = dual_kernel(everything, **SETTING)
    f = torch.linalg.cholesky(nngp) @ random(len(everything), n_draws)
    step = time / n_steps / 4 * theta[:, :4]
    for _ in range(n_steps):
        f = f - step @ (f[:4] - Y[:, None])
    law = gaussian_law(X, Y, GRID[::30], time=time, **SETTING)
    variance, mean = torch.var_mean(f[4:], dim=1)
    # four standard errors, and the error of Euler's method: x^2 e^-x / 2 per step at x = lambda t
    close(mean, law.mean, 4 * law.sd.max().item() / n_draws**0.5 + 2e-3)
    close(variance.sqrt() / law.sd, torch.ones_like(mean), 4 / (2 * n_draws) ** 0.5 + 5e-3)


def test_at_time_zero_it_is_the_prior():
    law = gaussian_law(X, Y, GRID, time=0, **SETTING)
    assert (law.mean == 0).all()
    close(law.sd, torch.full_like(law.sd, math.sqrt(0.08125)), 1e-14)


@pytest.mark.parametrize("learning_rate", [None, 1.0])
def test_at_infinity_it_interpolates_and_forgets_only_off_the_data(learning_rate):
    options = {"time": math.inf, "learning_rate": learning_rate, **SETTING}
    law = gaussian_law(X, Y, X, **options)
    close(law.mean, Y, 1e-12)
    assert (law.sd < 1e-7).all()
    between = gaussian_law(X, Y, circle([1.2, -1.4]), **options)
    assert (between.sd > 0.05).all()
    theta, cross = dual_kernel(X, **SETTING)[1], dual_kernel(GRID, X, **SETTING)[1]
    regression = cross @ torch.linalg.solve(theta, Y)
    close(gaussian_law(X, Y, GRID, **options).mean, regression, 1e-12)


def test_the_trained_law_is_no_posterior():
    trained = gaussian_law(X, Y, GRID, time=math.inf, **SETTING)
    nngp, ntk = (posterior(X, Y, GRID, prior=p, **SETTING) for p in ("nngp", "ntk"))
    spreads = [law.sd.max().item() for law in (trained, nngp, ntk)]
    assert spreads == pytest.approx([0.1498, 0.1389, 0.4264], abs=2e-4)
    close(ntk.mean, trained.mean, 1e-13)
    assert (nngp.mean - trained.mean).abs().max() > 0.1


def test_posterior_is_the_conditional_gaussian():
    x, y, x_test = random(6, 4), random(6, seed=1), random(3, 4, seed=2)
    options = {"depth": 3, "bias_scale": 0.5, "activation": "erf"}
    for which, prior in enumerate(("nngp", "ntk")):
        gram = dual_kernel(torch.cat([x, x_test]), **options)[which]
        # what is left of the joint covariance after elimination: its inverse's block
        precision = torch.linalg.inv(gram)[6:, 6:]
        law = posterior(x, y, x_test, prior=prior, **options)
        close(law.sd, torch.linalg.inv(precision).diagonal().sqrt(), 1e-10)
        close(law.mean, gram[6:, :6] @ torch.linalg.solve(gram[:6, :6], y), 1e-11)
    # a network with one layer is linear regression in its features: Theta is Sigma, and so
    # training draws from the posterior
    linear = {"depth": 1, "bias_scale": 0.5}
    law = posterior(x[:3], y[:3], x_test, prior="nngp", **linear)
    trained = gaussian_law(x[:3], y[:3], x_test, time=math.inf, **linear)
    close(trained.sd, law.sd, 1e-10)


def test_a_sequence_of_times_is_one_time_after_the_other():
    times = [0.0, 1.0, 50.0, math.inf]
    for learning_rate in (None, 0.5):
        options = {"learning_rate": learning_rate, **SETTING}
        law = gaussian_law(X, Y, GRID, time=times, **options)
        assert law.mean.shape == law.sd.shape == (4, 181)
        for k, time in enumerate(times):
            single = gaussian_law(X, Y, GRID, time=time, **options)
            close(law.mean[k], single.mean, 1e-14)
            close(law.sd[k], single.sd, 1e-7)
    one = gaussian_law(X, Y, GRID, time=[50.0], **SETTING)
    assert one.mean.shape == (1, 181)


def test_gradient_descent_is_its_own_recursion_and_tends_to_the_flow():
    theta = dual_kernel(random(6, 4), depth=3, bias_scale=0.1)[1]
    residual = random(6, seed=3)
    largest = torch.linalg.eigvalsh(theta / 6)[-1].item()
    # the second rate overshoots in the first component: its sign alternates
    for rate in (0.7 / largest, 1.9 / largest):
        times = torch.arange(6, dtype=torch.float64) * rate
        flow = spectral_flow(theta, residual, times, learning_rate=rate)
        r = residual
        for k in range(6):
            close(flow[k], r, 1e-13)
            r = r - rate / 6 * theta @ r
    exact = spectral_flow(theta, residual, [4.0 / largest])
    errors = [
        (spectral_flow(theta, residual, [4.0 / largest], learning_rate=4.0 / largest / n) - exact)
        .abs()
        .max()
        .item()
        for n in (100, 200, 400)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2.0, rel=0.03)


def test_flow_is_the_matrix_exponential_and_composes():
    theta, residual = dual_kernel(random(8, 3), depth=2, bias_scale=0.2)[1], random(8, seed=1)
    flow = spectral_flow(theta, residual, [0.0, 3.0, 8.0, math.inf])
    close(flow[0], residual, 1e-13)
    close(flow[1], torch.linalg.matrix_exp(-3.0 / 8 * theta) @ residual, 1e-13)
    close(spectral_flow(theta, flow[1], 5.0), flow[2], 1e-13)
    assert (flow[3] == 0).all()
    # what has no eigenvalue is never learned
    rank_one = torch.ones(2, 2, dtype=torch.float64)
    left = spectral_flow(rank_one, torch.tensor([1.0, 0.0]), 1e6)
    close(left, torch.tensor([0.5, -0.5], dtype=torch.float64), 1e-9)


def test_time_is_per_data_point_not_per_pair():
    # every point twice: Theta and N double together, and the flow is the same
    theta, residual = dual_kernel(X, **SETTING)[1], random(4)
    doubled = spectral_flow(theta.repeat(2, 2), residual.repeat(2), [2.0, 40.0])
    close(doubled[:, :4], spectral_flow(theta, residual, [2.0, 40.0]), 1e-13)
    law = gaussian_law(X, Y, GRID, time=20.0, **SETTING)
    again = gaussian_law(X.repeat(2, 1), Y.repeat(2), GRID, time=20.0, **SETTING)
    close(again.mean, law.mean, 1e-12)
    close(again.sd, law.sd, 1e-12)


def test_residuals_start_from_f_0_minus_target():
    # on the data, mean - y is the flow of 0 - y: with the sign of the printed Delta it would not be
    law = gaussian_law(X, Y, X, time=[3.0, 30.0], **SETTING)
    flow = spectral_flow(dual_kernel(X, **SETTING)[1], -Y, [3.0, 30.0])
    close(law.mean - Y, flow, 1e-13)


def test_the_order_of_the_data_is_nothing():
    order = [2, 0, 3, 1]
    law = gaussian_law(X, Y, GRID, time=[5.0, math.inf], **SETTING)
    again = gaussian_law(X[order], Y[order], GRID.flip(0), time=[5.0, math.inf], **SETTING)
    close(again.mean.flip(1), law.mean, 1e-12)
    close(again.sd.flip(1), law.sd, 1e-7)


def test_test_inputs_in_pieces(monkeypatch):
    x_test = random(70, 2)
    whole = gaussian_law(X, Y, x_test, time=5.0, **SETTING)
    monkeypatch.setattr("reproductions.papers.ntk.limits._ROWS", 9)
    close(gaussian_law(X, Y, x_test, time=5.0, **SETTING).sd, whole.sd, 1e-13)


def test_near_duplicates_do_not_break_the_law():
    x = torch.cat([X, circle([0.5 + 1e-9])])
    law = gaussian_law(x, x.prod(1), GRID, time=math.inf, **SETTING)
    expected = gaussian_law(X, Y, GRID, time=math.inf, **SETTING)
    assert torch.isfinite(law.mean).all()
    close(law.sd, expected.sd, 0.02)
    close(law.mean, expected.mean, 0.02)


def test_quantiles_of_the_law_are_those_of_a_gaussian():
    times = gaussian_law(X, Y, GRID, time=[1.0, math.inf], **SETTING)
    for share in (0.1, 0.5, 0.9, 1e-6):
        found = times.quantile(share)
        assert found.shape == (2, 181)
        # the distribution function brings the share back
        below = 0.5 * torch.special.erfc((times.mean - found) / times.sd / math.sqrt(2))
        close(below, torch.full_like(below, share), 1e-12, rtol=1e-8)
    # where the data pin the outputs down all quantiles are one
    pinned = Law(times.mean, torch.zeros_like(times.sd))
    close(pinned.quantile(0.9), times.mean, 0.0)


@pytest.mark.parametrize("learning_rate", [None, 0.25])
def test_filter_and_decay_are_two_sides(learning_rate):
    eigenvalues = torch.tensor([0.0, 1e-13, 0.3, 2.0, 4.0, 7.0], dtype=torch.float64)
    times = [0.0, 0.25, 1.5, 20.0, math.inf]
    options = {"learning_rate": learning_rate}
    decay = spectral_decay(eigenvalues, times, **options)
    progress = spectral_filter(eigenvalues, times, **options)
    assert decay.shape == progress.shape == (5, 6)
    close(decay + progress, torch.ones_like(decay), 4e-15)
    assert (progress[0] == 0).all()
    assert (progress[:, 0] == 0).all()
    assert (progress[4, 1:] == 1).all()
    # a rate of 1e-13 is seen to full precision, 1 - decay would be off by 1e-3
    assert progress[3, 1].item() == pytest.approx(20e-13, rel=1e-11, abs=0)
    if learning_rate:
        # eta lambda = 1 is finished in one step, 1.75 overshoots
        assert decay[1:, 4].tolist() == [0.0] * 4
        assert decay[1, 5].item() == pytest.approx(-0.75, abs=1e-15)
        assert decay[2, 5].item() == pytest.approx(0.75**6, abs=1e-15)


def test_learning_rates_are_stable_up_to_the_limit_that_is_named():
    theta, residual = dual_kernel(X, **SETTING)[1], random(4)
    limit = 2.0 / torch.linalg.eigvalsh(theta / 4)[-1].item()
    below = 0.999 * limit
    assert spectral_flow(theta, residual, below * 9999, learning_rate=below).abs().max() < 1e-3
    with pytest.raises(
        ValueError, match=r"learning_rate must be less than .* = 14\.59.*; got 14\.7"
    ):
        spectral_flow(theta, residual, 14.7, learning_rate=14.7)
    with pytest.raises(ValueError, match="gradient descent diverges"):
        gaussian_law(X, Y, GRID, time=15.0, learning_rate=15.0, **SETTING)


def law(**changes):
    arguments = {"x": X, "y": Y, "x_test": GRID, "time": 1.0, **SETTING, **changes}
    return gaussian_law(
        arguments.pop("x"), arguments.pop("y"), arguments.pop("x_test"), **arguments
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: law(time=-1.0), "time must be at least 0, got -1"),
        (lambda: law(time=[0.0, math.nan]), "time must be at least 0, got nan"),
        (lambda: law(time="late"), "time must be a real number or a tensor, got 'late'"),
        (lambda: law(time=[[1.0]]), r"time a number or \(T,\), got \(4,\) and \(1, 1\)"),
        (lambda: law(time=1.5, learning_rate=1.0), "whole number of steps of 1, got 1.5"),
        (lambda: law(learning_rate=0.0), "learning_rate must be greater than 0, got 0"),
        (lambda: law(learning_rate=math.nan), "learning_rate must be finite, got nan"),
        (lambda: law(y=Y[:3]), r"y must be \(4,\), one target per row of x, got \(3,\)"),
        (lambda: law(y=Y[:, None]), r"y must be \(4,\).* got \(4, 1\)"),
        (lambda: law(x=X[:0], y=Y[:0]), r"x must be \(N, n_0\), neither of them 0, got \(0, 2\)"),
        (lambda: law(x=X[0]), r"x must be \(N, n_0\)"),
        (lambda: law(x_test=GRID[:, :1]), r"x_test must be \(M, 2\).* got \(181, 1\)"),
        (lambda: law(x_test=GRID[:0]), r"x_test must be .* not empty"),
        (lambda: law(x=X * math.nan), "x must be finite, got nan"),
        (lambda: law(depth=0), "depth must be an integer of at least 1, got 0"),
        (lambda: posterior(X, Y, GRID, prior="gp", **SETTING), "prior must be one of nngp, ntk"),
        (lambda: spectral_flow(torch.ones(2, 3), torch.ones(2), 1.0), r"theta must be \(N, N\)"),
        (lambda: spectral_flow(torch.eye(3), torch.ones(2), 1.0), r"residual must be \(3,\)"),
        (lambda: spectral_decay(torch.tensor([-1.0]), 1.0), "eigenvalues must be at least 0"),
        (lambda: spectral_filter(torch.eye(2), 1.0), r"eigenvalues must be \(N,\)"),
        *(
            (
                lambda share=share: law().quantile(share),
                f"share must be a number strictly between 0 and 1, got {share}",
            )
            for share in (0.0, 1.0, 10.0, math.nan)
        ),
        (lambda: law().quantile([0.1, 0.9]), r"share must be a number .* got \[0.1, 0.9\]"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
