import math

import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.papers.ntk import networks
from reproductions.papers.ntk.limits import circle, spectrum
from reproductions.papers.ntk.networks import draw, seeds_from, widths_of
from reproductions.papers.ntk.tracing import half_times, predicted_half_times, trace
from reproductions.papers.ntk.training import descend

X = circle([-2.2, -0.6, 0.5, 1.9, 2.6])
BETA = 0.3
DOUBLE = {"bias_scale": BETA, "dtype": torch.float64}


def eigendirection(theta, index):
    """Eigenvalue of Theta / N, the largest first, and its vector of mean square 1."""
    values, vectors = spectrum(theta)
    return values[-1 - index].item(), math.sqrt(len(theta)) * vectors[:, -1 - index]


def test_a_trace_splits_the_way_along_and_across():
    theta = dual_kernel(X, depth=3, bias_scale=BETA)[1]
    _, direction = eigendirection(theta, 1)
    seeds, options = [1, 2, 3], {"learning_rate": 0.5}
    found = trace(6, seeds, X, direction, size=0.7, depth=3, steps=10, every=3, **options, **DOUBLE)
    assert found.along.shape == found.across.shape == (3, 11)
    assert (found.along[:, 0] - 0.7).abs().max() < 1e-15
    assert not found.across[:, 0].any()
    nets = draw(widths_of(2, 6, 3), seeds, **DOUBLE)
    start = nets.outputs(X)
    rates, traces = [], []
    for step in range(11):
        moved = nets.outputs(X) - start
        gone = 0.7 - found.along[:, step]
        torch.testing.assert_close(gone, (moved * direction).mean(1), rtol=0, atol=1e-13)
        # Pythagoras, in the norm of the data
        torch.testing.assert_close(
            moved.square().mean(1), gone**2 + found.across[:, step] ** 2, rtol=1e-10, atol=1e-15
        )
        if step in (0, 3, 6, 9):
            theta = nets.kernel(X)
            rates.append(torch.einsum("i,rij,j->r", direction, theta, direction) / 5**2)
            traces.append(torch.linalg.eigvalsh(theta / 5).sum(1))
        descend(nets, X, start + 0.7 * direction, steps=1, **options)
    torch.testing.assert_close(found.rates, torch.stack(rates, 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.traces, torch.stack(traces, 1), rtol=1e-12, atol=0)
    # narrow networks do not go straight
    assert found.across[:, -1].min() > 1e-2


def test_the_rates_include_the_end_where_it_is_looked_at():
    _, direction = eigendirection(dual_kernel(X, depth=2, bias_scale=BETA)[1], 1)
    options = {"depth": 2, "learning_rate": 0.5, **DOUBLE}
    short = trace(6, [1], X, direction, steps=4, every=2, **options)
    long = trace(6, [1], X, direction, steps=7, every=2, **options)
    for one, other in ((short.rates, long.rates), (short.traces, long.traces)):
        assert one.shape == (1, 3)
        assert other.shape == (1, 4)
        torch.testing.assert_close(other[:, :3], one)
        assert other[0, 3] != one[0, 2]


def test_what_is_left_along_obeys_its_equation_as_the_step_shrinks():
    _, direction = eigendirection(dual_kernel(X, depth=3, bias_scale=BETA)[1], 1)
    seeds, options = [1, 2, 3], {"activation": "erf", **DOUBLE}
    full, without = [], []
    for rate in (0.02, 0.01):
        # one step at time 2, when the networks have left the straight line
        k = round(2.0 / rate)
        path = {"depth": 3, "learning_rate": rate, "steps": k + 1, "every": k}
        found = trace(6, seeds, X, direction, **path, **options)
        nets = draw(widths_of(2, 6, 3), seeds, **options)
        start = nets.outputs(X)
        descend(nets, X, start + 0.5 * direction, learning_rate=rate, steps=k)
        moved = nets.outputs(X) - start
        h = moved - (moved * direction).mean(1, keepdim=True) * direction
        given_back = torch.einsum("i,rij,rj->r", direction, nets.kernel(X), h) / 5**2
        slope = (found.along[:, k + 1] - found.along[:, k]) / rate
        without.append(slope + found.rates[:, 1] * found.along[:, k])
        full.append(without[-1] - given_back)
    assert full[0].abs().max() < 5e-5
    assert ((full[0] / full[1] - 2).abs() < 0.05).all()
    # that part itself is no error of the step
    assert without[0].abs().min() > 3e-4
    assert ((without[0] / without[1] - 1).abs() < 0.1).all()


def test_a_trace_does_not_depend_on_the_blocks_it_runs_in(monkeypatch):
    _, direction = eigendirection(dual_kernel(X, depth=3, bias_scale=BETA)[1], 1)
    options = {"depth": 3, "learning_rate": 0.5, "steps": 6, "every": 2, **DOUBLE}
    whole = trace(6, seeds_from(3, 5), X, direction, **options)
    monkeypatch.setattr(networks, "_BLOCK", {"cpu": 1300})
    for one, other in zip(whole, trace(6, seeds_from(3, 5), X, direction, **options), strict=True):
        assert len(one) == 5
        assert one.dtype is torch.float64
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_model_that_is_linear_goes_straight_at_the_rate_of_its_eigenvalue():
    # one layer: Theta = x.x' / n_0 + beta^2 at every width and time
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = x @ x.T / 3 + BETA**2
    value, direction = eigendirection(theta, 1)
    rate = 0.3
    options = {"depth": 1, "learning_rate": rate, "steps": 30, "every": 5, **DOUBLE}
    found = trace(1, [1, 2], x, direction, **options)
    expected = 0.5 * (1 - rate * value) ** torch.arange(31, dtype=torch.float64)
    torch.testing.assert_close(found.along, expected.expand(2, -1), rtol=0, atol=1e-13)
    assert found.across.max() < 1e-13
    assert (found.rates - value).abs().max() < 1e-13
    assert (found.traces - theta.trace() / 8).abs().max() < 1e-13
    exact = rate * math.log(2) / -math.log1p(-rate * value)
    assert half_times(found.along, rate).tolist() == pytest.approx([exact] * 2, rel=1e-10)
    predicted = predicted_half_times(found.rates, rate, 5)
    assert predicted.tolist() == pytest.approx([exact] * 2, rel=1e-10)


def test_the_kernel_at_work_predicts_the_half_time():
    x = circle(torch.linspace(-3, 3, 12, dtype=torch.float64))
    value, direction = eigendirection(dual_kernel(x, depth=4, bias_scale=0.1)[1], 1)
    rate = 1.0
    options = {"depth": 4, "learning_rate": rate, "steps": 120, "every": 10, "bias_scale": 0.1}
    found = trace(64, seeds_from(0, 12), x, direction, **options)
    measured = half_times(found.along, rate)
    predicted = predicted_half_times(found.rates, rate, 10)
    # what it leaves out is what the part across gives back to the part along
    assert ((predicted / measured - 1).abs() < 0.15).all()
    # the kernel of the limit knows nothing of these networks
    assert ((math.log(2) / value / measured - 1).abs() > 0.15).sum() >= 4


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_half_times_of_exponentials(sign):
    taus = torch.tensor([2.0, 7.3, 12.0, 100.0], dtype=torch.float64)
    times = 0.5 * torch.arange(40)
    along = sign * 0.37 * torch.exp2(-times / taus[:, None])
    found = half_times(along, 0.5)
    assert found[:3].tolist() == pytest.approx([2.0, 7.3, 12.0], rel=1e-12)
    assert found[3].isnan()


def test_the_half_time_is_the_first_and_counts_the_size_alone():
    nan = math.nan
    for curve, expected in (
        ([4.0, 3.0, 2.0, 5.0, 1.0], 2.0),  # comes back, goes again
        ([4.0, 4.0, 1.0], 1.5),  # a factor of four in one step, half of it in half the step
        ([4.0, -3.0, 3.0, -0.75], 2 + math.log(1.5) / math.log(4)),  # overshoots
        ([4.0, 0.0, 0.0], 0.0),
        ([4.0, 3.0, 2.1], nan),
        ([4.0, 5.0, nan], nan),
        ([4.0], nan),
    ):
        found = half_times(torch.tensor([curve], dtype=torch.float64), 1.0)
        assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


def test_predicted_half_times():
    def predict(rates, learning_rate, every):
        rates = torch.tensor([rates], dtype=torch.float64)
        return predicted_half_times(rates, learning_rate, every).item()

    exact = 0.5 * math.log(2) / -math.log1p(-0.5 * 0.1)
    assert predict([0.1] * 5, 0.5, 10) == pytest.approx(exact, rel=1e-12)
    assert exact != pytest.approx(math.log(2) / 0.1, rel=0.02)
    # too few steps to reach the half, by one
    steps = math.ceil(exact / 0.5)
    assert predict([0.1] * 2, 0.5, steps) == pytest.approx(exact, rel=1e-12)
    assert math.isnan(predict([0.1] * 2, 0.5, steps - 1))
    assert math.isnan(predict([0.1], 0.5, 10))
    # a rate that rises from step to step, looked at now and then, is filled in
    rates = [0.01 + 0.002 * step for step in range(41)]
    left, step = 1.0, 0
    while left * (1 - 0.5 * rates[step]) > 0.5:
        left *= 1 - 0.5 * rates[step]
        step += 1
    last = math.log(left / 0.5) / -math.log1p(-0.5 * rates[step])
    for every in (1, 4, 10):
        found = predict(rates[::every], 0.5, every)
        assert found == pytest.approx(0.5 * (step + last), rel=1e-10)
    # beyond one over the rate gradient descent changes sides
    assert predict([1.2, 1.2], 1.0, 1) == pytest.approx(math.log(2) / math.log(5), rel=1e-12)


def tracing(direction, every=1):
    trace(4, [1], X, direction, depth=2, learning_rate=0.5, steps=2, every=every, **DOUBLE)


ONES = torch.ones(5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tracing(2 * ONES), "direction must have mean square 1, got 4; divide it by"),
        (lambda: tracing(ONES * math.nan), "direction must have mean square 1, got nan"),
        (lambda: tracing(ONES[:, None]), r"direction must have shape \(5,\), got \(5, 1\)"),
        (lambda: tracing(ONES, every=0), "every must be an integer of at least 1, got 0"),
        (lambda: predicted_half_times(torch.ones(1, 3), 0.1, 0), "every must be an integer"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
