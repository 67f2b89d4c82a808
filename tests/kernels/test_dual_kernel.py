import math

import mpmath
import pytest
import torch
from torch.nn import functional

from reproductions.kernels.dual_kernel import batched, dual_kernel


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(value, wanted):
    return ((value - wanted).abs() / wanted.abs()).max().item()


def exact(x, z, depth, beta, s, activation):
    """(Sigma, Theta, sqrt(Sigma(x, x) Sigma(z, z))) of every depth, with digits to burn."""
    with mpmath.workdps(70):
        x, z = ([mpmath.mpf(t) for t in point] for point in (x, z))
        bias, s, pi = mpmath.mpf(beta) ** 2, mpmath.mpf(s), mpmath.pi
        sigma, v, w = (s * mpmath.fdot(p, q) / len(x) + bias for p, q in ((x, z), (x, x), (z, z)))
        theta = sigma
        results = [(sigma, theta, mpmath.sqrt(v * w))]
        for _ in range(depth - 1):
            if activation == "relu":
                q = mpmath.sqrt(v * w)
                phi = mpmath.acos(max(-1, min(1, sigma / q)))
                value = q * (mpmath.sin(phi) + (pi - phi) * mpmath.cos(phi)) / (2 * pi)
                slope = (pi - phi) / (2 * pi)
                v, w = (s * t / 2 + bias for t in (v, w))
            else:
                square = (1 + 2 * v) * (1 + 2 * w)
                value = 2 / pi * mpmath.asin(2 * sigma / mpmath.sqrt(square))
                slope = 4 / pi / mpmath.sqrt(square - 4 * sigma**2)
                v, w = (s * 2 / pi * mpmath.asin(2 * t / (1 + 2 * t)) + bias for t in (v, w))
            sigma = s * value + bias
            theta = s * theta * slope + sigma
            results.append((sigma, theta, mpmath.sqrt(v * w)))
        return results


def close_pairs(features):
    """A point; points at angles of about 0.1 to 1e-12 from it and from its opposite; others."""
    base = normal(features, seed=1)
    points = [base]
    for k, angle in enumerate((0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12)):
        for scale in (1.0, 1.7, -1.0, -0.6):
            points.append(scale * (base + angle * normal(features, seed=10 * k + 2)))
    scales = float64([1e-3, 1.0, 30.0, 1e3])[:, None]
    return torch.stack(points), scales * normal(4, features, seed=3)


def errors(kernels, truths, floor):
    """The greatest relative error; below ``floor`` of the natural scale relative to that."""
    worst = 0.0
    for depth, layer in enumerate(truths):
        for kernel, wanted in zip(kernels, layer, strict=False):
            bottom = max(abs(wanted), mpmath.mpf(floor) * layer[2])
            worst = max(worst, float(abs(kernel[depth].item() - wanted) / bottom))
    return worst


@pytest.mark.parametrize("backend", ["batched", "naive"])
def test_values_of_the_paper(backend):
    x = float64([[1, 0], [0, 1], [-1, 0]])
    sigma, theta = dual_kernel(x, depth=4, bias_scale=0.1, all_depths=True, backend=backend)
    for k in range(3):
        assert sigma[:, k, k].tolist() == pytest.approx([0.51, 0.265, 0.1425, 0.08125], rel=1e-15)
        assert theta[:, k, k].tolist() == pytest.approx([0.51, 0.52, 0.4025, 0.2825], rel=1e-15)
    assert theta[3, 0, 2].item() == pytest.approx(0.0643538, abs=5e-8)
    assert theta[3, 0, 1].item() == pytest.approx(0.0927021, abs=5e-8)


@pytest.mark.parametrize("backend", ["batched", "naive"])
def test_diagonal_in_closed_form(backend):
    x, beta = normal(9, 7), 0.3
    sigma, _ = dual_kernel(x, depth=12, bias_scale=beta, all_depths=True, backend=backend)
    first = x.square().sum(1) / 7 + beta**2
    for depth in range(1, 13):
        wanted = 2 * beta**2 + (first - 2 * beta**2) * 2.0 ** (1 - depth)
        assert relative(sigma[depth - 1].diagonal(), wanted) < 2e-15


@pytest.mark.parametrize("features", [2, 30])
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize(("beta", "s"), [(0.0, 1.0), (1e-3, 2.0), (0.1, 1.0), (1.0, 2.0)])
def test_digits_of_close_and_opposite_points(features, activation, beta, s):
    near, others = close_pairs(features)
    x = torch.cat([near, others])
    arguments = {"bias_scale": beta, "weight_variance": s, "activation": activation}
    whole = dual_kernel(x, depth=6, all_depths=True, **arguments)
    row = dual_kernel(x[:1], x, depth=6, all_depths=True, **arguments)
    for j in range(1, len(x)):
        truths = exact(x[0].tolist(), x[j].tolist(), 6, beta, s, activation)
        # Relative for the pairs that are to be hard; others may meet a zero of Theta.
        floor = 0.0 if j < len(near) and beta == 0 else 1e-2
        for kernels in (whole, row):
            entries = [kernel[:, 0, j] for kernel in kernels]
            assert errors(entries, truths, floor) < 1e-12, (j, x[j])


def test_plain_recursion_loses_what_the_half_angle_keeps():
    # Control for the test above: the same pairs by acos of the covariance.
    near, _ = close_pairs(30)
    for j, least in ((13, 1e-13), (21, 1e-12), (25, 1e-11)):
        pair = near[[0, j]]
        truths = exact(pair[0].tolist(), pair[1].tolist(), 3, 0.1, 1.0, "relu")
        plain, ours = (
            dual_kernel(pair, depth=3, bias_scale=0.1, all_depths=True, backend=backend)
            for backend in ("naive", "batched")
        )
        assert errors([kernel[:, 0, 1] for kernel in plain], truths, 0) > least
        assert errors([kernel[:, 0, 1] for kernel in ours], truths, 0) < 1e-13


def test_digits_of_the_error_function_at_large_inputs():
    # 1 - y^2 is of the order of 1/v here, and y is known to 1e-16.
    near, _ = close_pairs(7)
    for scale in (1e2, 1e4):
        x = scale * near
        kernels = dual_kernel(x, depth=3, bias_scale=0.1, activation="erf", all_depths=True)
        for j in range(1, len(x)):
            truths = exact(x[0].tolist(), x[j].tolist(), 3, 0.1, 1.0, "erf")
            assert errors([kernel[:, 0, j] for kernel in kernels], truths, 1e-2) < 1e-12


def test_angles_of_the_size_of_rounding_do_not_become_nan():
    x = normal(1, 6) * (1 + 2e-16 * normal(60, 6, seed=1))
    for beta in (0.0, 0.3):
        for kernel in dual_kernel(x, depth=40, bias_scale=beta, weight_variance=2.0):
            assert relative(kernel, kernel[0, 0]) < 1e-12


def test_duplicates_are_like_the_diagonal():
    x = normal(5, 4)
    for activation in ("relu", "erf", torch.tanh):
        kernels = dual_kernel(
            torch.cat([x, x]), depth=9, bias_scale=0.1, weight_variance=2.0, activation=activation
        )
        for kernel in kernels:
            # A series may leave out 1e-13 in each layer.
            tolerance = 1e-14 if isinstance(activation, str) else 1e-11
            assert relative(kernel.diagonal(5), kernel.diagonal()[:5]) < tolerance


@pytest.mark.parametrize("activation", ["relu", "erf", torch.tanh])
def test_batched_is_naive_and_cross_is_symmetric(activation):
    x, z = normal(13, 6), normal(7, 6, seed=1) / 2
    arguments = {"depth": 4, "bias_scale": 0.2, "weight_variance": 1.3, "activation": activation}
    own = dual_kernel(x, **arguments)
    both = dual_kernel(torch.cat([x, z]), **arguments)
    for k, (naive, cross, same) in enumerate(
        zip(
            dual_kernel(x, z, backend="naive", **arguments),
            dual_kernel(x, z, **arguments),
            dual_kernel(x, x, **arguments),
            strict=True,
        )
    ):
        assert (own[k] == own[k].T).all()
        assert relative(cross, naive) < 1e-11
        assert relative(cross, both[k][:13, 13:]) < 1e-12
        assert relative(same, own[k]) < 1e-12


@pytest.mark.parametrize("activation", ["relu", "erf", torch.tanh])
def test_monte_carlo(activation):
    x, beta, s, n = normal(2, 3), 0.5, 1.4, 1_000_000
    sigma, theta = dual_kernel(
        x, depth=2, bias_scale=beta, weight_variance=s, activation=activation, all_depths=True
    )
    # One hidden unit at a time: u and v have covariance Sigma^(1).
    u = s**0.5 / 3**0.5 * x @ normal(3, n, seed=5) + beta * normal(1, n, seed=6)
    u.requires_grad_()
    value = {"relu": torch.relu, "erf": torch.erf}.get(activation, activation)(u)
    (slope,) = torch.autograd.grad(value.sum(), u)
    value = value.detach()
    for i, j in ((0, 0), (0, 1), (1, 1)):
        one = s * value[i] * value[j] + beta**2
        tangent = s * sigma[0, i, j] * slope[i] * slope[j] + one
        for sample, kernel in ((one, sigma), (tangent, theta)):
            assert abs(sample.mean() - kernel[1, i, j]) < 4 * sample.std() / n**0.5


@pytest.mark.parametrize(
    ("activation", "backend"),
    [("relu", "batched"), ("erf", "batched"), (torch.tanh, "batched"), ("relu", "naive")],
)
def test_all_depths_are_the_single_ones(activation, backend):
    x = torch.cat([normal(5, 3), -normal(2, 3)])
    arguments = {"bias_scale": 0.0, "activation": activation, "backend": backend}
    for z in (None, normal(3, 3, seed=2)):
        stacks = dual_kernel(x, z, depth=4, all_depths=True, **arguments)
        for depth in range(1, 5):
            single = dual_kernel(x, z, depth=depth, **arguments)
            for stack, kernel in zip(stacks, single, strict=True):
                assert stack.shape == (4, 7, 7 if z is None else 3)
                assert (stack[depth - 1] == kernel).all()


def test_one_layer_is_linear():
    x, z = float64([[1, 2], [0, -3]]), float64([[4, 1e-9]])
    for kernel in dual_kernel(x, z, depth=1, bias_scale=0.5, weight_variance=3.0):
        assert kernel.flatten().tolist() == pytest.approx([6.25 + 3e-9, 0.25 - 4.5e-9], rel=1e-15)


def test_without_bias_the_rectifier_is_homogeneous():
    x, z = normal(6, 4), normal(5, 4, seed=1)
    a, b = torch.rand(6, 1).double() + 1e-3, 1e3 * torch.rand(5).double() + 1
    plain = dual_kernel(x, z, depth=4, bias_scale=0.0)
    scaled = dual_kernel(a * x, b[:, None] * z, depth=4, bias_scale=0.0)
    for kernel, wanted in zip(scaled, plain, strict=True):
        assert relative(kernel, a * b * wanted) < 1e-13


def test_deep_networks_forget_their_inputs():
    # v -> v/2 + beta^2 has the fixed point 2 beta^2, theta -> theta/2 + 2 beta^2 has 4 beta^2; the
    # angles shrink to nothing on the way, where a square root of a rounding error would show.
    x = torch.cat([normal(9, 5), -normal(3, 5)])
    sigma, theta = dual_kernel(x, depth=300, bias_scale=0.7)
    torch.testing.assert_close(sigma, torch.full_like(sigma, 0.98), rtol=1e-14, atol=0)
    torch.testing.assert_close(theta, torch.full_like(theta, 1.96), rtol=1e-13, atol=0)
    # He's variance without bias: lengths stay, angles shrink, Theta(x, x) grows with the depth.
    sigma, theta = dual_kernel(x, depth=40, bias_scale=0.0, weight_variance=2.0, all_depths=True)
    torch.testing.assert_close(sigma[-1].diagonal(), sigma[0].diagonal(), rtol=1e-13, atol=0)
    torch.testing.assert_close(theta[-1].diagonal(), 40 * sigma[0].diagonal(), rtol=1e-13, atol=0)
    assert (sigma[1:, 0, 1].diff() > 0).all()


def test_zero_vectors():
    x = torch.cat([torch.zeros(2, 3), torch.ones(1, 3)])
    for backend in ("batched", "naive"):
        for kernel in dual_kernel(x, depth=4, bias_scale=0.0, backend=backend):
            assert (kernel[:2] == 0).all()
            assert kernel[2, 2] > 0
        # A function of a constant, sigma(0): the mean of sigma(0) sigma(v).
        sigma, _ = dual_kernel(x, depth=2, bias_scale=0.0, activation=torch.cos, backend=backend)
        assert sigma[0, 1].item() == pytest.approx(1, rel=1e-14)
        assert sigma[0, 2].item() == pytest.approx(math.exp(-0.5), rel=1e-13)


def test_spectra():
    x = normal(40, 5)
    for activation in ("relu", "erf", torch.tanh):
        for kernel in dual_kernel(x, depth=3, bias_scale=0.1, activation=activation):
            eigenvalues = torch.linalg.eigvalsh(kernel)
            assert eigenvalues[0] > 1e-6 * eigenvalues[-1]
    # Without bias, Theta^(2) of the rectifier has no odd harmonics beyond the first: of 20 pairs of
    # opposite points in three dimensions, 20 - 3 combinations vanish, to rounding; at depth 3 none.
    x = functional.normalize(normal(20, 3))
    x = torch.cat([x, -x])
    _, theta = dual_kernel(x, depth=3, bias_scale=0.0, all_depths=True)
    eigenvalues = torch.linalg.eigvalsh(theta)
    assert (eigenvalues[1, :17].abs() < 1e-14).all()
    assert eigenvalues[1, 17] > 1e-3
    assert eigenvalues[2, 0] > 1e-4


def test_tiles_do_not_show(monkeypatch):
    near, others = close_pairs(3)
    x = torch.cat([near, others])
    for activation in ("relu", "erf", torch.tanh):
        arguments = {"depth": 3, "bias_scale": 0.0, "activation": activation, "all_depths": True}
        points, tolerance = (x, 1e-14) if isinstance(activation, str) else (x[:12], 1e-12)
        whole = dual_kernel(points, **arguments)
        for size, width in ((1, 1), (12, 5), (50, 7), (64, 64)):
            monkeypatch.setattr(batched, "TILE", {"cpu": (size, width)})
            for n in (1, 2, 7, 8, len(points)):
                for kernel, wanted in zip(dual_kernel(points[:n], **arguments), whole, strict=True):
                    assert (kernel == kernel.mT).all()
                    scale = wanted.diagonal(dim1=1, dim2=2)[:, :n].sqrt()
                    scale = scale[:, :, None] * scale[:, None]
                    assert ((kernel - wanted[:, :n, :n]).abs() <= tolerance * scale).all()
            cross = dual_kernel(points[:9], points[3:], **arguments)
            for kernel, wanted in zip(cross, whole, strict=True):
                scale = wanted.diagonal(dim1=1, dim2=2).sqrt()
                scale = scale[:, :9, None] * scale[:, None, 3:]
                assert ((kernel - wanted[:, :9, 3:]).abs() <= tolerance * scale).all()
            monkeypatch.undo()


@pytest.mark.parametrize("n", [181, 182, 1025])
def test_tiles_of_their_real_size(n):
    x = normal(n, 4)
    for a, b in zip(
        dual_kernel(x, depth=3, bias_scale=0.3),
        dual_kernel(x, depth=3, bias_scale=0.3, backend="naive"),
        strict=True,
    ):
        assert (a == a.T).all()
        # acos of the plain recursion is what is inexact.
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


@pytest.mark.parametrize("backend", ["batched", "naive"])
@pytest.mark.parametrize("depth", [1, 3])
def test_both_kernels_own_their_memory(backend, depth):
    x = normal(6, 2).float().requires_grad_()
    sigma, theta = dual_kernel(x, depth=depth, bias_scale=0.1, backend=backend)
    wanted = theta.clone()
    sigma.zero_()
    assert (theta == wanted).all()
    for kernel in (sigma, theta):
        assert kernel.dtype == torch.float64
        assert not kernel.requires_grad
        assert kernel.untyped_storage().nbytes() == 8 * 36
    for shape in ((0, 2), (3, 2)):
        empty = dual_kernel(x, torch.empty(0, 2), depth=depth, bias_scale=0.1, backend=backend)
        assert empty[0].shape == empty[1].shape == (6, 0), shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"depth": 2.0}, "depth must be an integer of at least 1, got 2.0"),
        ({"bias_scale": -0.1}, "bias_scale must be at least 0, got -0.1"),
        ({"bias_scale": float("nan")}, "bias_scale must be finite, got nan"),
        ({"bias_scale": torch.ones(2)}, "bias_scale must be one number, got shape \\(2,\\)"),
        ({"weight_variance": 0.0}, "weight_variance must be greater than 0, got 0"),
        ({"weight_variance": float("inf")}, "weight_variance must be finite, got inf"),
        ({"x": torch.ones(3)}, "x must have shape \\(points, features\\) .* got \\(3,\\)"),
        ({"x": torch.ones(3, 0)}, "x must have shape .* got \\(3, 0\\)"),
        ({"x": float64([[1, math.nan]])}, "x must be finite, got nan"),
        ({"x": float64([[1, 1e200]])}, "x must have rows with finite squared norms.* 1e\\+200"),
        ({"z": float64([[1, math.inf]])}, "z must be finite, got inf"),
        ({"z": torch.ones(3, 2, 1)}, "z must have shape .* got \\(3, 2, 1\\)"),
        ({"z": torch.ones(4, 3)}, "z must have as many columns as x .* 2 on cpu; got 3 on cpu"),
        ({"depth": 9000, "weight_variance": 4.0}, "depth must be below 10.*=4; got 9000"),
        ({"backend": "fast"}, "backend must be one of auto, naive, batched, triton; got 'fast'"),
    ],
)
def test_errors_name_argument_and_value(change, message):
    arguments = {"x": torch.ones(3, 2), "z": None, "depth": 2, "bias_scale": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        dual_kernel(arguments.pop("x"), arguments.pop("z"), **arguments)
