import math

import pytest
import torch
from torch.nn import functional

from reproductions.kernels.dual_kernel import dual_kernel

SMOOTH = {
    "tanh": torch.tanh,
    "sin": torch.sin,
    "gelu": functional.gelu,
    "softplus": functional.softplus,
    "erf": torch.erf,
    "square": torch.square,
    "identity": lambda u: u,
    "swish": functional.silu,
}
KINKED = {
    "relu": torch.relu,
    "abs": torch.abs,
    "leaky relu": functional.leaky_relu,
    "hardtanh": functional.hardtanh,
    "sign": torch.sign,
    "elu": functional.elu,
}


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(value, wanted):
    return ((value - wanted).abs() / wanted.abs()).max().item()


def test_the_error_function_in_closed_form_is_its_series():
    x = torch.linspace(0.05, 1.5, 8)[:, None] * normal(8, 5)
    arguments = {"depth": 4, "bias_scale": 0.1, "weight_variance": 1.5}
    closed = dual_kernel(x, activation="erf", **arguments)
    for backend in ("batched", "naive"):
        series = dual_kernel(x, activation=torch.erf, backend=backend, **arguments)
        for a, b in zip(series, closed, strict=True):
            assert relative(a, b) < 1e-12


def test_polynomials_in_closed_form():
    x, z, beta, s = normal(6, 3), normal(4, 3, seed=1), 0.4, 1.7
    first, v, w = (
        s * a / 3 + beta**2 for a in (x @ z.T, x.square().sum(1)[:, None], z.square().sum(1))
    )
    arguments = {"bias_scale": beta, "weight_variance": s}
    sigma, theta = dual_kernel(x, z, depth=2, activation=torch.square, **arguments)
    # E[u^2 v^2] and E[2u 2v].
    second = s * (v * w + 2 * first**2) + beta**2
    torch.testing.assert_close(sigma, second, rtol=1e-13, atol=0)
    torch.testing.assert_close(theta, s * first * 4 * first + second, rtol=1e-12, atol=0)
    _, theta = dual_kernel(x, z, depth=5, bias_scale=0.0, activation=lambda u: u)
    torch.testing.assert_close(theta, 5 * x @ z.T / 3, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_activations_pass(name):
    for variance in (0.01, 1.0, 10.0):
        x = functional.normalize(normal(4, 3)) * math.sqrt(3 * variance)
        arguments = {"depth": 2, "bias_scale": 0.0, "activation": SMOOTH[name]}
        ours = dual_kernel(x, **arguments)
        plain = dual_kernel(x, backend="naive", **arguments)
        for kernel, wanted in zip(ours, plain, strict=True):
            scale = wanted.diagonal().sqrt()
            # The equidistant nodes of the naive form are sparse for a steep function.
            tolerance = 1e-7 if variance > 1 else 1e-12
            assert ((kernel - wanted).abs() <= tolerance * scale[:, None] * scale).all()


@pytest.mark.parametrize("name", KINKED)
@pytest.mark.parametrize("backend", ["batched", "naive"])
def test_kinked_activations_are_refused_with_the_reason(name, backend):
    for variance in (0.1, 1.0, 10.0):
        x = functional.normalize(normal(4, 3)) * math.sqrt(3 * variance)
        with pytest.raises(ValueError, match=r"activation must be smooth .* as with a kink, a"):
            dual_kernel(x, depth=2, bias_scale=0.0, activation=KINKED[name], backend=backend)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("tanh", "activation must be 'relu', 'erf' or a smooth function .* got 'tanh'"),
        (None, "activation must be 'relu', 'erf' or a smooth function .* got None"),
        (lambda u: (u > 0).double(), "activation must be differentiable by torch.autograd, got <"),
        (lambda u: u.sum(1), "activation must map a tensor elementwise, got \\[3\\] from"),
        (lambda u: 1.0, "activation must map a tensor elementwise, got float from"),
        (torch.log, "activation must be finite within 16 standard deviations .* value nan at -"),
        (lambda u: torch.exp(u * u), "activation must be finite .* value inf at "),
        (lambda u: torch.exp(3 * u), "activation must grow more slowly: at variance 9 .* rescale"),
        (lambda u: torch.sin(100 * u), "activation must be smooth .* steep flank"),
    ],
)
def test_unusable_activations(activation, message):
    x = float64([[2.0, 2.0, 2.0], [1, 1, 1], [3, 3, -3]])
    with pytest.raises(ValueError, match=message):
        dual_kernel(x, depth=2, bias_scale=0.0, activation=activation)
