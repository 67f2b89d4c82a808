import math

import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.papers.ntk import networks
from reproductions.papers.ntk.initialization import (
    initial_kernels,
    initial_outputs,
    output_coupling,
    relative_deviation,
    relative_variance,
    standard_kernel,
)
from reproductions.papers.ntk.limits import circle
from reproductions.papers.ntk.networks import draw, seeds_from

X = circle([0.0, 0.7, 2.0, math.pi])
PAPER = {"depth": 4, "bias_scale": 0.1}


def rms(values):
    return values.square().mean().sqrt().item()


def error(values):
    """Standard error of the mean over networks."""
    return values.std(0) / math.sqrt(len(values))


def test_the_variance_of_outputs_is_that_of_the_limit_at_every_width():
    # exact for ReLU at any width, by E relu(u)^2 = v/2: .51, .265, .1425, .08125
    for width in (3, 20):
        squares = initial_outputs(width, seeds_from(0, 5000), X, **PAPER).square()
        assert squares.shape == (5000, 4)
        assert squares.dtype is torch.float64
        assert ((squares.mean(0) - 0.08125).abs() < 4 * error(squares)).all()
        # and four standard errors tell it from that of He's networks and of one layer more or less
        for wrong in (2**3 * 0.08125, 0.1425, 0.050625):
            assert ((squares.mean(0) - wrong).abs() > 4 * error(squares)).all()


def test_the_mean_kernel_of_a_point_with_itself_is_the_limit_at_every_width():
    found = initial_kernels(16, seeds_from(1, 4000), X[:1], X, **PAPER)
    assert found.shape == (4000, 1, 4)
    deviation = (found.mean(0) - dual_kernel(X[:1], X, **PAPER)[1])[0] / error(found)[0]
    assert abs(deviation[0]) < 4
    # while at the antipode sixteen units are not infinitely many
    assert deviation[3] < -4


def test_kernels_do_not_depend_on_the_blocks_they_are_computed_in(monkeypatch):
    seeds = seeds_from(2, 9)
    whole = initial_kernels(8, seeds, X, **PAPER), initial_outputs(8, seeds, X, **PAPER)
    monkeypatch.setattr(networks, "_BLOCK", {"cpu": 2000})
    split = initial_kernels(8, seeds, X, **PAPER), initial_outputs(8, seeds, X, **PAPER)
    for one, other in zip(whole, split, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_deviation_is_relative_and_falls_like_one_over_the_root_of_the_width():
    limit = dual_kernel(X, **PAPER)[1]
    factors = torch.tensor([1.0, 1.5, 0.0], dtype=torch.float64)
    found = relative_deviation(factors[:, None, None] * limit, limit)
    torch.testing.assert_close(found, (factors - 1).abs())
    narrow, wide = (
        rms(relative_deviation(initial_kernels(n, seeds_from(n, 40), X, **PAPER), limit))
        for n in (64, 256)
    )
    assert 1.4 < narrow / wide < 2.9
    # toward a kernel that is not the limit, here that of one layer less, it does not fall
    other = dual_kernel(X, depth=3, bias_scale=0.1)[1]
    wrong = initial_kernels(256, seeds_from(256, 40), X, **PAPER)
    assert rms(relative_deviation(wrong, other)) > 1.5 * wide


def test_outputs_uncouple_with_the_width():
    narrow, wide = (rms(output_coupling(n, seeds_from(3, 40), X, **PAPER)) for n in (16, 256))
    assert 2.5 < narrow / wide < 7
    nets = draw((2, 16, 16, 16, 2), [5], bias_scale=0.1)
    off, on = (nets.kernel(X, output=pair).norm() for pair in ((0, 1), (0, 0)))
    found = output_coupling(16, [5], X, **PAPER)
    assert found.item() == pytest.approx((off / on).item(), rel=1e-5)


def test_the_relative_variance_is_that_of_the_diagonal():
    seeds = seeds_from(4, 30)
    kernels = initial_kernels(8, seeds, X, **PAPER)
    expected = [
        kernels[:, i, i].var().item() / kernels[:, i, i].mean().item() ** 2 for i in range(4)
    ]
    found = relative_variance(8, seeds, X, **PAPER).item()
    assert found == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_depth_in_proportion_to_width_keeps_the_kernel_random_unless_biases_intervene():
    def found(width, depth, beta):
        return relative_variance(width, seeds_from(5, 1000), X, depth=depth, bias_scale=beta).item()

    shallow, deep = found(20, 4, 0.0), found(20, 8, 0.0)
    assert deep > 2 * shallow
    # at a depth that stays it falls with the width, at one that follows it does not
    assert found(40, 4, 0.0) < 0.7 * shallow
    assert found(40, 8, 0.0) > 0.9 * shallow
    # with biases deeper networks vary less again: their kernel is that of the last few layers
    assert found(20, 24, 0.1) < 0.6 * found(20, 8, 0.1)


@pytest.mark.parametrize(("name", "function"), [("relu", torch.relu), ("erf", torch.erf)])
def test_the_standard_kernel_is_the_one_of_unscaled_parameters(name, function):
    beta, widths = 0.3, (2, 9, 6, 1)
    options = {"bias_scale": beta, "activation": name, "dtype": torch.float64}
    nets = draw(widths, [1, 2], **options)
    found = standard_kernel(nets, X)

    def f(*parameters):
        a = X
        for layer in range(3):
            a = (function(a) if layer else a) @ parameters[layer].T + parameters[3 + layer]
        return a[:, 0]

    for r in range(2):
        scaled = [w[r] / math.sqrt(w.shape[-1]) for w in nets.weights]
        parameters = (*scaled, *(beta * b[r] for b in nets.biases))
        torch.testing.assert_close(f(*parameters), nets.outputs(X)[r], rtol=0, atol=1e-13)
        parts = torch.autograd.functional.jacobian(f, parameters)
        rows = torch.cat([part.flatten(1) for part in parts], 1)
        torch.testing.assert_close(found[r], rows @ rows.T, rtol=1e-12, atol=1e-12)


def test_the_standard_kernel_grows_with_the_width_and_the_paper_s_does_not():
    def traces(width):
        nets = draw((2, width, width, 1), seeds_from(6, 40), bias_scale=0.1)
        kernels = standard_kernel(nets, X), nets.kernel(X)
        return [k.diagonal(dim1=1, dim2=2).mean().item() for k in kernels]

    narrow, wide = traces(32), traces(128)
    assert 3 < wide[0] / narrow[0] < 5
    assert wide[1] / narrow[1] == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relative_variance(8, [0], X, **PAPER), "seeds must name at least two .* got 1"),
        (lambda: initial_outputs(8, [], X, **PAPER), "seeds must name at least one network"),
        (lambda: initial_kernels(0, [1], X, **PAPER), r"widths\[1\] must be an integer"),
        (lambda: initial_kernels(8, [1], X[0], **PAPER), r"x must have shape \(N, 2\)"),
        (lambda: initial_outputs(8, [1], X, depth=0, bias_scale=0.1), "depth must be an integer"),
        (lambda: initial_kernels(8, [1], X * math.nan, **PAPER), "x must be finite, got nan"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
