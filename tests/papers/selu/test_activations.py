import mpmath
import pytest
import torch

from reproductions.papers.selu import (
    ACTIVATIONS,
    Activation,
    activation_zoo,
    chi1,
    gaussian_nodes,
    moment_jacobian,
)

# d nu'/d nu and chi1 at (0, 1), from an independent computation.
SLOPES = {
    "ReLU": 1.0,
    "leaky ReLU .01": 1.0,
    "leaky ReLU .2": 1.0,
    "SELU": 0.7826,
    "ELU": 0.8602,
    "tanh": 0.4611,
    "erf": 0.4086,
    "sigmoid": 0.7192,
    "sin": 0.3130,
    "softsign": 0.4767,
    "hard tanh": 0.3851,
    "GELU": 1.0621,
    "SiLU": 1.1009,
    "softplus": 1.0561,
    "Mish": 1.0010,
}
CHI1 = {
    "ReLU": 1.467,
    "leaky ReLU .2": 1.244,
    "SELU": 1.072,
    "ELU": 1.079,
    "tanh": 1.178,
    "sigmoid": 1.034,
    "GELU": 1.319,
    "SiLU": 1.212,
}


@pytest.fixture(scope="module")
def zoo():
    return activation_zoo()


def test_slopes_and_gradient_growth(zoo):
    assert set(zoo) == set(SLOPES) == set(ACTIVATIONS)
    for name, slope in SLOPES.items():
        assert zoo[name].slope == pytest.approx(slope, abs=6e-5), name
    for name, value in CHI1.items():
        assert zoo[name].chi1 == pytest.approx(value, abs=6e-4), name


def test_who_attracts(zoo):
    attracting = {name for name, entry in zoo.items() if entry.attracting}
    assert attracting == {
        *("SELU", "ELU", "tanh", "erf", "sigmoid", "sin", "softsign", "hard tanh"),
    }
    # Positively homogeneous: exactly neutral, which rounding must not turn into attraction.
    for name in ("ReLU", "leaky ReLU .01", "leaky ReLU .2"):
        assert zoo[name].slope == pytest.approx(1.0, abs=1e-14)


def test_selu_agrees_with_its_closed_form(zoo):
    entry = zoo["SELU"]
    assert entry.gain == pytest.approx(1.0, abs=1e-14)
    assert entry.shift == pytest.approx(0.0, abs=1e-14)
    assert entry.slope == pytest.approx(moment_jacobian(0.0, 1.0)[1, 1].item(), abs=1e-14)
    assert entry.chi1 == pytest.approx(chi1().item(), abs=1e-14)


def test_tanh_against_forty_digits(zoo):
    with mpmath.workdps(40):

        def variance(x):
            s = mpmath.sqrt(x)
            return mpmath.quad(lambda u: mpmath.tanh(s * u) ** 2 * mpmath.npdf(u), range(-14, 15))

        gain = 1 / mpmath.sqrt(variance(1))
        step = mpmath.mpf(10) ** -10
        slope = gain**2 * (variance(1 + step) - variance(1 - step)) / (2 * step)
    assert zoo["tanh"].gain == pytest.approx(float(gain), rel=1e-13)
    assert zoo["tanh"].gain == pytest.approx(1.592537, abs=5e-7)
    assert zoo["tanh"].slope == pytest.approx(float(slope), rel=1e-12)


def test_normalization_holds_in_a_sample(zoo):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(10**6, generator=generator, dtype=torch.float64)
    for name, entry in zoo.items():
        y = entry.gain * ACTIVATIONS[name].function(z) + entry.shift
        assert abs(y.mean()) < 4e-3, name
        assert abs(y.var() - 1) < 4 * y.square().std().item() / 1000, name


def test_nodes_integrate_moments_and_need_the_cut():
    z, weight = gaussian_nodes()
    for power, moment in ((0, 1), (2, 1), (4, 3), (6, 15), (8, 105)):
        assert (weight * z**power).sum().item() == pytest.approx(moment, rel=1e-13)
    # Control: a kink inside a piece, E max(z - 0.3, 0) without and with the cut.
    wanted = float(mpmath.npdf(0.3) - 0.3 * mpmath.ncdf(-0.3))
    errors = []
    for kinks in ((), (0.3,)):
        z, weight = gaussian_nodes(kinks)
        errors.append(abs((weight * (z - 0.3).clamp(min=0)).sum().item() - wanted))
    assert errors[0] > 1e-6
    assert errors[1] < 1e-14


def test_own_activations_can_be_added():
    zoo = activation_zoo({"cube": Activation(lambda z: z**3)})
    # E z^6 = 15, d/dx E z^6 = 45 x^2, f' = 3 z^2.
    assert zoo["cube"].gain == pytest.approx(15**-0.5, rel=1e-13)
    assert zoo["cube"].slope == pytest.approx(3.0, rel=1e-13)
    assert zoo["cube"].chi1 == pytest.approx(27 / 15, rel=1e-13)
    assert not zoo["cube"].attracting
