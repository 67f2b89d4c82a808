import math

import pytest
import torch

from reproductions.papers.ntk.ensembles import (
    covariance_scores,
    coverage,
    excess_kurtosis,
    in_errors,
    kernel_bias,
    least_step,
    over_widths,
    pooled,
    scaled_bias,
)
from reproductions.papers.ntk.initialization import initial_outputs
from reproductions.papers.ntk.limits import Law, circle

#: covariance of four outputs, one pair of them uncorrelated
SIGMA = torch.tensor(
    [[2.0, 1.2, 0.5, 0.0], [1.2, 1.0, 0.3, 0.1], [0.5, 0.3, 0.5, -0.4], [0.0, 0.1, -0.4, 0.8]],
    dtype=torch.float64,
)
#: seven points, the second of which the data pin down
LAW = Law(
    torch.linspace(-1, 2, 7, dtype=torch.float64),
    torch.tensor([0.3, 0.01, 0.06, 1.0, 0.2, 0.5, 0.1], dtype=torch.float64),
)


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def drawn(covariance, *shape, seed=0):
    """Gaussian rows (..., N) of mean zero and this covariance."""
    return normal(*shape, len(covariance), seed=seed) @ torch.linalg.cholesky(covariance).T


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def asked(width, seeds, *args, **options):
    """An experiment that says what it was asked."""
    return width, seeds, args, options


def seeds_of(ensembles, seed=3):
    return {width: found[1] for width, found in over_widths(asked, ensembles, seed).items()}


def test_a_width_keeps_its_seeds_whatever_runs_beside_it():
    alone = seeds_of({64: 5})[64]
    assert len(set(alone)) == 5
    for ensembles in ({64: 5, 128: 3}, {128: 3, 64: 5}, {8: 40, 64: 5, 16: 2}):
        together = seeds_of(ensembles)
        assert together[64] == alone
        assert list(together) == list(ensembles)
        assert [len(seeds) for seeds in together.values()] == list(ensembles.values())
    # more networks of the same width: the first ones stay
    assert seeds_of({64: 9})[64][:5] == alone


def test_no_two_widths_and_no_two_experiments_share_a_seed():
    # one seed in two widths would give both the same first weights
    found = [
        seed
        for experiment in (0, 1, 2**31 - 1)
        for seeds in seeds_of({1: 200, 2: 200, 64: 200}, experiment).values()
        for seed in seeds
    ]
    assert len(set(found)) == len(found) == 1800


def test_an_experiment_gets_its_width_seeds_and_arguments():
    found = over_widths(asked, {4: 2, 8: 1}, 0, "x", "z", depth=3)
    assert [(f[0], len(f[1]), *f[2:]) for f in found.values()] == [
        (4, 2, ("x", "z"), {"depth": 3}),
        (8, 1, ("x", "z"), {"depth": 3}),
    ]
    x = circle([0.0, 1.0])
    outputs = over_widths(initial_outputs, {4: 3, 8: 2}, 0, x, depth=2, bias_scale=0.1)
    fewer = over_widths(initial_outputs, {8: 1}, 0, x, depth=2, bias_scale=0.1)
    assert outputs[4].shape == (3, 2)
    torch.testing.assert_close(outputs[8][:1], fewer[8], rtol=1e-5, atol=1e-6)


def test_pooled_joins_the_groups_in_order_and_tells_them_apart():
    groups = [{8: row(1, 2), 16: row(3)}, {16: row(4, 5), 8: row(6)}]
    found = pooled(groups, lambda result, k: 10 * result + k)
    assert {width: values.tolist() for width, values in found.items()} == {
        8: [10, 20, 61],
        16: [30, 41, 51],
    }


def test_scores_of_the_true_covariance_are_standard_normal():
    # one score an ensemble and entry: mean 0 and mean square 1 over 400 ensembles
    scores = torch.stack([covariance_scores(f, SIGMA) for f in drawn(SIGMA, 400, 1000)])
    assert scores.shape == (400, 4, 4)
    assert (scores.mean(0).abs() < 4 / math.sqrt(400) + 0.1).all()
    assert ((scores.square().mean(0) - 1).abs() < 4 * math.sqrt(2 / 400)).all()
    assert torch.equal(scores, scores.mT)


def test_scores_find_one_wrong_entry_and_its_sign():
    f = drawn(SIGMA, 20_000)
    right = covariance_scores(f, SIGMA)
    assert right.abs().max() < 4
    for i, j in ((0, 0), (0, 3), (2, 1)):
        wrong = SIGMA.clone()
        wrong[i, j] += 0.4
        scores = covariance_scores(f, wrong)
        assert scores[i, j] < -10
        # the others know nothing of it
        scores[i, j] = right[i, j]
        assert torch.equal(scores, right)
    assert covariance_scores(f, 0.8 * SIGMA)[0, 0] > 10


def test_moments_are_taken_about_zero():
    # a mean that should not be there counts as covariance
    f = drawn(SIGMA, 20_000) + 0.7
    assert covariance_scores(f, SIGMA).min() > 10
    assert covariance_scores(f, SIGMA + 0.49).abs().max() < 4
    # E f^4 / (E f^2)^2 of 0 and 2 is 2, about their mean it would be 1
    assert excess_kurtosis(row(0, 2, 2, 0)[:, None]).item() == pytest.approx(-1, abs=1e-14)


def test_excess_kurtosis_of_laws_that_are_known():
    two = row(*[1, -1] * 6)
    # twelve values of the variance 1/6 and the fourth moment 1/6
    three = row(1, -1, *[0] * 10)
    assert excess_kurtosis(two[:, None]).item() == pytest.approx(-2, abs=1e-14)
    assert excess_kurtosis(three[:, None]).item() == pytest.approx(3, abs=1e-13)
    # the mean over inputs of what each has, on its own scale
    both = torch.stack([0.01 * two, 100 * three], 1)
    assert excess_kurtosis(both).item() == pytest.approx(0.5, abs=1e-13)


def test_excess_kurtosis_of_samples():
    # variance of the estimate: 24 for a Gaussian, 1188 for a Laplace law, over their number
    n = 100_000
    gaussian = normal(n, 3) * row(0.1, 1, 7)
    assert excess_kurtosis(gaussian).abs() < 4 * math.sqrt(24 / (3 * n))
    # a Gaussian of exponential variance is a Laplace law
    laplace = normal(n, 3, seed=1) * normal(2, n, 3, seed=2).square().sum(0).sqrt()
    assert abs(excess_kurtosis(laplace) - 3) < 4 * math.sqrt(1188 / (3 * n))


def test_kernel_bias_is_mean_minus_limit_in_standard_errors_of_the_mean():
    kernels = torch.stack([row(1, 10), row(2, 10), row(6, 10)])[:, None]
    bias, error = kernel_bias(kernels, row(4, 7)[None])
    assert bias.tolist() == [[-1, 3]]
    # the variance of 1, 2, 6 is 7
    assert error[0].tolist() == pytest.approx([math.sqrt(7 / 3), 0])


def test_of_functions_that_follow_the_law_eight_in_ten_are_inside():
    n = 20_000
    z = normal(n, 7)
    inside = coverage(LAW.mean + LAW.sd * z, LAW)
    # the second point has too small a spread to be counted
    assert inside.shape == (n, 6)
    assert set(inside.unique().tolist()) == {0, 1}
    assert ((inside.mean(0) - 0.8).abs() < 4 * math.sqrt(0.16 / n)).all()
    assert abs(inside.mean() - 0.8) < 4 * math.sqrt(0.16 / (6 * n))
    # half the spread: P(|z| < 1.2816 / 2), twice: P(|z| < 2 * 1.2816)
    for factor, share in ((0.5, 0.4783), (2.0, 0.9896)):
        other = Law(LAW.mean, factor * LAW.sd)
        found = coverage(LAW.mean + LAW.sd * z, other, least_sd=0.0).mean()
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / (7 * n))
    # a mean that is one sd off: P(-2.2816 < z < 0.2816)
    off = coverage(LAW.mean + LAW.sd * (z + 1), LAW).mean()
    assert abs(off - 0.5997) < 4 * math.sqrt(0.24 / (6 * n))


def test_coverage_counts_the_points_above_the_least_spread_in_their_order():
    law = Law(row(0, 10, 20, 30), row(0.1, 0.05, 0.2, 0.04))
    # at the least spread is not above it
    assert coverage(row(0, 99, 99, 30)[None], law).tolist() == [[1, 0]]
    assert coverage(row(0, 99, 99, 30)[None], law, least_sd=0.03).tolist() == [[1, 0, 0, 1]]
    # a function per row
    both = torch.stack([law.mean, law.mean + row(0, 0, 1, 0)])
    assert coverage(both, law).tolist() == [[1, 1], [1, 0]]


def test_the_percentiles_themselves_are_inside():
    low, high = LAW.quantile(0.1), LAW.quantile(0.9)
    beyond = (torch.nextafter(low, low - 1), torch.nextafter(high, high + 1))
    assert coverage(torch.stack([low, high]), LAW).all()
    assert not coverage(torch.stack(beyond), LAW).any()


def test_the_least_step_is_the_smallest_in_its_own_standard_errors():
    # means 1, 6, 7 and squared standard errors 1, 4, 1/3
    values = {8: row(0, 2), 16: row(4, 8), 32: row(6, 7, 8)}
    up, further = 5 / math.sqrt(5), 1 / math.sqrt(4 + 1 / 3)
    assert least_step(values) == pytest.approx(further, rel=1e-14)
    assert least_step({8: values[8], 16: values[16]}) == pytest.approx(up, rel=1e-14)
    # the order is that of the mapping, and one step down is enough
    swapped = {8: values[8], 32: values[32], 16: values[16]}
    assert least_step(swapped) == pytest.approx(-further, rel=1e-14)
    # the same means of a hundred times the networks
    many = {n: v.repeat(100) for n, v in values.items()}
    assert 9.9 < least_step(many) / further < 15


def test_a_value_that_is_missing_makes_the_least_step_missing():
    lost = row(1, math.nan)
    for values in ([row(0, 1), row(4, 5), lost], [lost, row(4, 5), row(8, 9)]):
        assert math.isnan(least_step(dict(enumerate(values))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: over_widths(asked, {8: 0}, 0), "n must be an integer of at least 1, got 0"),
        (lambda: over_widths(asked, {-8: 1}, 0), "width must be an integer of at least 1, got -8"),
        (lambda: over_widths(asked, {8: 1}, -1), "seed must be an integer of at least 0, got -1"),
        (lambda: pooled([], asked), "groups must have results at the same widths, got none"),
        (
            lambda: pooled([{8: row(1)}, {8: row(1), 16: row(1)}], asked),
            r"groups must have results at the same widths, got \[8\], \[8, 16\]",
        ),
        (
            lambda: covariance_scores(normal(9, 4), SIGMA[0]),
            r"covariance must be \(N, N\) for outputs \(R, N\), got \(4,\) and \(9, 4\)",
        ),
        (
            lambda: covariance_scores(normal(9, 1, 4), SIGMA),
            r"covariance must be .* got \(4, 4\) and \(9, 1, 4\)",
        ),
        (
            lambda: covariance_scores(normal(1, 4), SIGMA),
            r"outputs must have a row for each of at least 2 networks, got \(1, 4\)",
        ),
        (lambda: excess_kurtosis(normal(0, 4)), r"outputs must have a row .* got \(0, 4\)"),
        (lambda: kernel_bias(normal(1, 4), row(0, 0, 0, 0)), "kernels must have a row for each"),
        (
            lambda: kernel_bias(normal(5, 3, 4), normal(4)),
            r"limit must have the shape of one kernel, \(3, 4\), got \(4,\)",
        ),
        (
            lambda: coverage(normal(5, 6), LAW),
            r"outputs must be \(R, M\) for a law at one time .* got \(5, 6\) and \(7,\)",
        ),
        (
            lambda: coverage(normal(2, 7), Law(LAW.mean.expand(2, 7), LAW.sd.expand(2, 7))),
            r"law at one time .* got \(2, 7\) and \(2, 7\)",
        ),
        (
            lambda: coverage(normal(5, 7), LAW, least_sd=1.0),
            "least_sd must be less than the law's largest, 1, got 1",
        ),
        (
            lambda: least_step({8: row(1, 2)}),
            r"values must name at least two ensembles, got \[8\]",
        ),
        (
            lambda: least_step({8: row(1, 2), 16: row(1)}),
            r"values\[16\] must be \(R,\) with R of at least 2, got \(1,\)",
        ),
        (lambda: least_step({8: row(1, 2), 16: normal(5, 2)}), r"values\[16\] .* got \(5, 2\)"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_scaled_bias_is_the_best_average_of_a_bias_of_order_one_over_n():
    generator = torch.Generator().manual_seed(5)
    limit, bias = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, 3.0]).double()
    ensembles = {
        n: limit + bias / n + torch.randn(4000, 2, generator=generator).double() / n**0.5
        for n in (4, 16, 64)
    }
    value, error = scaled_bias(ensembles, limit)
    assert ((value - bias).abs() < 4 * error).all()
    # three independent estimates of standard error sqrt(n / 4000)
    precision = sum(4000 / n for n in ensembles)
    torch.testing.assert_close(error, torch.full_like(error, precision**-0.5), rtol=0.05, atol=0)
    # a control: a bias that is not of order 1 / n is seen
    wrong = {n: k + 0.5 for n, k in ensembles.items()}
    value, error = scaled_bias(wrong, limit)
    assert ((value - bias).abs() > 4 * error).all()


def test_a_mean_in_its_standard_errors():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    # mean 3, variance 14/3
    assert in_errors(values) == pytest.approx(3 / (14 / 3 / 4) ** 0.5)
    assert in_errors(-values) == pytest.approx(-in_errors(values))
    with pytest.raises(ValueError, match="at least 2, got \\(1,\\)"):
        in_errors(torch.ones(1))
