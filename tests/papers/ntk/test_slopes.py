import math

import pytest
import torch

from reproductions.papers.ntk.slopes import width_slope

WIDTHS = [64, 128, 256, 512]


def power_law(exponent, n_replicas, seed, widths=WIDTHS):
    g = torch.Generator().manual_seed(seed)
    scale = torch.tensor(widths, dtype=torch.float64).pow(exponent)
    return scale[:, None] * torch.randn(len(widths), n_replicas, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("statistic", ["rms", "mean"])
@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.3])
def test_an_exact_power_law_gives_its_exponent_and_no_spread(exponent, statistic):
    values = 3.0 * torch.tensor(WIDTHS, dtype=torch.float64).pow(exponent)[:, None].expand(4, 5)
    found = width_slope(values, WIDTHS, statistic=statistic, n_bootstrap=10)
    assert found.slope == pytest.approx(exponent, abs=1e-13)
    assert found.low == pytest.approx(exponent, abs=1e-13)
    assert found.high == pytest.approx(exponent, abs=1e-13)
    assert found.sd < 1e-13


def test_the_statistic_is_the_root_mean_square_or_the_mean():
    values = torch.tensor([[1.0, 7.0], [2.0, 2.0]])
    kwargs = {"widths": [1.0, math.e], "n_bootstrap": 10}
    rms = width_slope(values, **kwargs).slope
    assert rms == pytest.approx(math.log(2) - math.log(5), abs=1e-14)
    mean = width_slope(values, statistic="mean", **kwargs).slope
    assert mean == pytest.approx(math.log(2) - math.log(4), abs=1e-14)


def test_the_bootstrap_knows_the_spread_of_the_slope():
    # Over repetitions of the whole experiment: the spread is what the bootstrap says it is, and
    # the interval holds the exponent about as often as it promises.
    found = [width_slope(power_law(-0.5, 40, s), WIDTHS, n_bootstrap=400) for s in range(150)]
    slopes = torch.tensor([f.slope for f in found], dtype=torch.float64)
    claimed = torch.tensor([f.sd for f in found], dtype=torch.float64)
    assert slopes.mean().item() == pytest.approx(-0.5, abs=4 * slopes.std().item() / 150**0.5)
    assert claimed.mean().item() == pytest.approx(slopes.std().item(), rel=0.2)
    covered = sum(f.low <= -0.5 <= f.high for f in found) / 150
    assert 0.87 <= covered <= 0.99
    # replicas of different widths are resampled apart: together, noise that all widths share would
    # cancel in the slope and leave no spread at all
    shared = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = torch.tensor(WIDTHS, dtype=torch.float64).pow(-0.5)[:, None] * shared
    assert width_slope(together, WIDTHS).sd > 0.5 * claimed.mean().item()


def test_four_times_the_replicas_halve_the_spread():
    few, many = (width_slope(power_law(-1.0, n, 1), WIDTHS).sd for n in (100, 400))
    assert few / many == pytest.approx(2.0, rel=0.25)


def test_rows_may_differ_in_length_and_the_order_of_replicas_is_nothing():
    rows = list(power_law(-0.5, 30, 2))
    ragged = [rows[0], rows[1][:20], rows[2][:9], rows[3][:5]]
    found = width_slope(ragged, WIDTHS)
    x = torch.tensor(WIDTHS, dtype=torch.float64).log()
    y = torch.stack([r.square().mean().sqrt().log() for r in ragged])
    expected = torch.linalg.lstsq(torch.stack([x, torch.ones(4)], 1).double(), y[:, None])
    assert found.slope == pytest.approx(expected.solution[0].item(), abs=1e-12)
    again = width_slope([r.flip(0) for r in ragged], torch.tensor(WIDTHS))
    assert again.slope == pytest.approx(found.slope, abs=1e-12)
    assert again.sd == pytest.approx(found.sd, rel=0.2)
    assert width_slope(ragged, WIDTHS, seed=1).sd != found.sd
    assert width_slope(ragged, WIDTHS) == found


def test_many_replicas_are_resampled_in_pieces(monkeypatch):
    values = power_law(-0.5, 50, 3)
    whole = width_slope(values, WIDTHS, n_bootstrap=1000)
    monkeypatch.setattr("reproductions.papers.ntk.slopes._CHUNK", 333)
    assert width_slope(values, WIDTHS, n_bootstrap=1000).sd == pytest.approx(whole.sd, rel=0.15)


@pytest.mark.parametrize(
    ("values", "widths", "options", "message"),
    [
        (torch.ones(2, 3), [64], {}, r"widths must name .* got \[64.0\] for 2 rows"),
        (torch.ones(2, 3), [64, 64], {}, "at least two different widths"),
        (torch.ones(2, 3), [64, -1], {}, "widths must be greater than 0, got -1"),
        (torch.ones(2, 1), [64, 128], {}, r"two replicas per width, got rows of \[\(1,\), \(1,\)"),
        (torch.ones(2, 3, 4), [64, 128], {}, "two replicas per width"),
        (torch.zeros(2, 3), [64, 128], {}, "values must have a positive rms .* got 0 at width 64"),
        (torch.tensor([[1.0, 1.0], [-9.0, 9.5]]), [1, 2], {"statistic": "mean"}, "positive mean"),
        (torch.full((2, 3), math.nan), [64, 128], {}, "values must be finite, got nan"),
        (torch.ones(2, 3), [64, 128], {"statistic": "median"}, "statistic must be one of"),
        (torch.ones(2, 3), [64, 128], {"n_bootstrap": 1}, "n_bootstrap must be an integer"),
    ],
)
def test_errors_name_argument_and_value(values, widths, options, message):
    with pytest.raises(ValueError, match=message):
        width_slope(values, widths, **options)
