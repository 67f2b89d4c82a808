import math

import pytest
import torch
from scipy import stats
from torch.nn import functional

from reproductions.papers.selu.clt import (
    hypothesis_shares,
    iid_control,
    layer_normality,
    normality,
    selu_skewness,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_normality_agrees_with_scipy():
    samples = torch.rand(500, 3, 2, generator=generator(), dtype=torch.float64).pow(3)
    found = normality(samples)
    assert found.ks_distance.shape == (3, 2)
    x = samples[:, 1, 0].numpy()
    z = (x - x.mean()) / x.std()
    assert found.ks_distance[1, 0].item() == pytest.approx(stats.kstest(z, "norm").statistic)
    assert found.skewness[1, 0].item() == pytest.approx(stats.skew(x))
    assert found.excess_kurtosis[1, 0].item() == pytest.approx(stats.kurtosis(x))


def test_normal_samples_reach_the_floor_and_others_do_not():
    normal = torch.randn(4000, 50, generator=generator(), dtype=torch.float64)
    floor = normality(5.0 + 2.0 * normal).ks_distance.mean().item()
    assert floor == pytest.approx(0.62 / math.sqrt(4000), rel=0.15)
    assert normality(normal.exp()).ks_distance.min() > 10 * floor
    with pytest.raises(ValueError, match="at least 3"):
        normality(normal[:2])


def test_skewness_of_selu_is_exact():
    z = torch.linspace(-12, 12, 2_400_001, dtype=torch.float64)
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    expected = torch.trapezoid(functional.selu(z).pow(3) * density, z).item()
    assert selu_skewness() == pytest.approx(expected, rel=1e-8)


def test_the_control_follows_the_central_limit_theorem():
    options = {"n_samples": 20_000, "n_units": 8}
    equal = iid_control([4, 16, 64], weights="equal", generator=generator(), **options)
    assert equal.rate(equal.predicted_skewness) == pytest.approx(-0.5, abs=1e-9)
    # the skewness of m normal samples has standard error sqrt(6/m); here the mean over 8 units
    error = 4 * math.sqrt(6 / 20_000 / 8)
    torch.testing.assert_close(equal.skewness, equal.predicted_skewness, rtol=0, atol=3 * error)
    assert equal.ks_distance[0] > 2 * equal.floor
    assert (equal.ks_distance.diff() < 0).all()
    signed = iid_control(
        [8, 64, 512], weights="normal", n_samples=50, n_units=400, generator=generator()
    )
    # weights of random sign cancel: 1/n, not n^(-1/2)
    assert signed.rate(signed.predicted_skewness) == pytest.approx(-1.0, abs=0.1)


def test_shares_by_hand():
    weights = torch.tensor([[[0.05, 1.0, 0.3, -0.7], [0.04, -1.0, 0.3, 0.7]]])
    z = torch.tensor([-1.0, 1.0])
    activations = torch.stack([z, z + 0.2, 2 * z, 0.95 * z + 0.05], 1)[None]
    omega, box = hypothesis_shares(weights, activations)
    assert omega.tolist() == [0.75]
    assert box.tolist() == [0.5]


def test_omega_is_standard_normal_at_initialization():
    x = torch.randn(64, 100, generator=generator())
    before, _, _ = layer_normality(
        x,
        torch.zeros(64, dtype=torch.long),
        width=400,
        layers=[1, 2],
        seeds=[0, 1, 2, 3],
        n_epochs=1,
        learning_rate=0.01,
        batch_size=64,
    )
    share = math.erf(0.1 / math.sqrt(2))
    error = math.sqrt(share * (1 - share) / 1600)
    assert share == pytest.approx(0.0797, abs=1e-4)
    assert before.omega_share.mean(1).tolist() == pytest.approx([share] * 2, abs=4 * error)


def test_training_is_seen_and_wide_sums_are_closer_to_normal():
    g = generator()
    # one skewed feature in two: narrow layers inherit it, averaging hides it
    x = torch.randn(512, 16, generator=g).exp()
    x = (x - x.mean(0)) / x.std(0)
    y = (x[:, 0] > 0).long()
    options = {"width": 32, "layers": [1, 3], "seeds": [0, 1], "n_epochs": 4, "n_classes": 2}
    before, after, loss = layer_normality(x, y, learning_rate=0.1, **options)
    assert before.layers == (1, 3)
    assert before.ks_distance.shape == (2, 2)
    assert loss < math.log(2)
    assert not torch.equal(before.ks_distance, after.ks_distance)
    wide = torch.randn(512, 512, generator=g).exp()
    wide = (wide - wide.mean(0)) / wide.std(0)
    other, _, _ = layer_normality(wide, y, learning_rate=0.1, **options)
    assert (other.ks_distance[0] < before.ks_distance[0]).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="weights"):
        iid_control([8], weights="uniform", n_samples=10, n_units=1, generator=generator())
    with pytest.raises(ValueError, match="layers"):
        layer_normality(
            torch.zeros(4, 2),
            torch.zeros(4, dtype=torch.long),
            width=3,
            layers=[0],
            seeds=[0],
            n_epochs=1,
            learning_rate=0.1,
        )
