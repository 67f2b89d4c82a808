"""Moments of SELU(z) in one Triton kernel, and the maximum of a spectral norm over a grid.

The formulas are those of ``batched.py``. Triton has no erfcx, so Mills' ratio comes from a
polynomial of our own; everything is float64. With ``TRITON_INTERPRET=1`` in the environment before
the first import the kernels run on the CPU, slowly, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["elementwise", "erfcx", "grid_maximum"]

_BLOCK = 256
_GRID_BLOCK = 128


@triton.jit
def _erfcx(y):
    """e^{y^2} erfc(y) for y >= 0, relative error 1.4e-15.

    (1 + 2y) erfcx(y) is smooth in q = (y - 4)/(y + 4), which maps [0, inf) to [-1, 1): Chebyshev
    interpolation of degree 24, written in powers of q (Shepherd and Laframboise 1981 for the idea,
    coefficients computed with 60 digits).
    """
    q = (y - 4.0) / (y + 4.0)
    p = q * -2.764120233734578e-10 + 9.297625263709659e-10
    p = p * q + 3.2323973445082033e-09
    p = p * q - 1.2338731403798444e-08
    p = p * q - 2.0725802488181963e-08
    p = p * q + 1.0631817593818149e-07
    p = p * q + 7.771943241086912e-08
    p = p * q - 8.210647933297337e-07
    p = p * q + 2.9173425573089733e-07
    p = p * q + 5.70657829924074e-06
    p = p * q - 1.1221135665967907e-05
    p = p * q - 2.4397731143023292e-05
    p = p * q + 0.00015062142608651945
    p = p * q - 0.0001992571524726518
    p = p * q - 0.0007577732435942576
    p = p * q + 0.005031970069102256
    p = p * q - 0.01619773406293477
    p = p * q + 0.037167515526338006
    p = p * q - 0.06633036581186058
    p = p * q + 0.09373283499911264
    p = p * q - 0.10103906603631811
    p = p * q + 0.06809705425466839
    p = p * q + 0.015379652102619974
    p = p * q - 0.13962111684056228
    p = p * q + 1.2329951186255526
    return p / (1.0 + 2.0 * y)


@triton.jit
def _tail(phi, y):
    """phi times Mills' ratio at y >= 0."""
    return phi * 1.2533141373155003 * _erfcx(y * 0.7071067811865476)


@triton.jit
def _parts(m, x, WITH_SMALL: tl.constexpr):
    """The nine parts of ``batched.Parts``; without WITH_SMALL for x > 1e-4 only."""
    x = tl.maximum(x, 1e-280)
    s = tl.sqrt(x)
    t = m / s
    y = tl.minimum(tl.abs(t), 40.0)
    phi = tl.exp(-0.5 * y * y) * 0.3989422804014327
    tail = _tail(phi, y)
    positive = tl.where(t > 0, 1.0 - tail, tail)
    negative = tl.where(t > 0, tail, 1.0 - tail)
    u = phi - y * tail
    mean_linear = tl.maximum(tl.maximum(m, 0.0) + s * u, 0.0)
    variance_linear = x * tl.maximum(positive - u * (y + u), 0.0)
    low = tl.minimum(m, 0.0)
    lean = tl.exp(tl.minimum(low + 0.5 * x, 0.0))
    a = t + s
    tilted = _tail(phi, tl.abs(a))
    tilted = tl.where(a < 0, lean - tilted, tilted)
    b = a + s
    tilted2 = _tail(phi, tl.abs(b))
    tilted2 = tl.where(b < 0, lean * lean * tl.exp(tl.minimum(x, 700.0)) - tilted2, tilted2)
    both = tilted + positive
    mean_e = tl.maximum(negative - tilted, 0.0)
    variance_e = tl.maximum(tilted2 + positive - both * both, 0.0)
    if WITH_SMALL:
        tilted_s, tilted2_s, mean_s, variance_s = _small(
            m, x, s, t, y, phi, tail, positive, negative
        )
        small = x <= 1e-4
        tilted = tl.where(small, tilted_s, tilted)
        tilted2 = tl.where(small, tilted2_s, tilted2)
        mean_e = tl.where(small, mean_s, mean_e)
        variance_e = tl.where(small, variance_s, variance_e)
    return (
        positive,
        negative,
        phi / s,
        tilted,
        tilted2,
        mean_linear,
        variance_linear,
        mean_e,
        variance_e,
    )


@triton.jit
def _expm1(v):
    """e^v - 1 without cancellation: sinh by its series where |v| is small."""
    half = 0.5 * v
    square = half * half
    series = 1.0 + square * 0.05 * (1.0 + square * 0.023809523809523808)
    sinh = half * (1.0 + square * 0.16666666666666666 * series)
    return tl.where(tl.abs(v) < 0.01, 2.0 * tl.exp(half) * sinh, tl.exp(v) - 1.0)


@triton.jit
def _small(m, x, s, t, y, phi, tail, positive, negative):
    """The bent half for x <= 1e-4: differences of Mills' ratio as Taylor series."""
    x = tl.minimum(x, 1e-4)
    s = tl.minimum(s, 1e-2)
    h = tl.where(t < 0, -s, s)
    before = tail
    now = y * tail - phi
    power = h
    first = -h * now
    second = h * 0.0
    before, now = now, y * now + 1 * before
    power = power * h * 0.5
    first -= power * now
    second += 2.0 * power * now
    before, now = now, y * now + 2 * before
    power = power * h * 0.3333333333333333
    first -= power * now
    second += 6.0 * power * now
    before, now = now, y * now + 3 * before
    power = power * h * 0.25
    first -= power * now
    second += 14.0 * power * now
    before, now = now, y * now + 4 * before
    power = power * h * 0.2
    first -= power * now
    second += 30.0 * power * now
    before, now = now, y * now + 5 * before
    power = power * h * 0.16666666666666666
    first -= power * now
    second += 62.0 * power * now
    before, now = now, y * now + 6 * before
    power = power * h * 0.14285714285714285
    first -= power * now
    second += 126.0 * power * now
    before, now = now, y * now + 7 * before
    power = power * h * 0.125
    first -= power * now
    second += 254.0 * power * now
    spread = second - first * first
    low = tl.minimum(m, 0.0)
    below = -first - _expm1(low + 0.5 * x)
    lean = tl.exp(low + 0.5 * x)
    lognormal = lean * lean * _expm1(x)
    mean_e = tl.maximum(tl.where(t < 0, below, first), 0.0)
    variance_e = tl.where(t < 0, lognormal - spread + 2.0 * below * first, spread)
    variance_e = tl.maximum(variance_e, 0.0)
    tilted = tl.where(t < 0, lean + first - positive, negative - first)
    saturated = lean * lean * tl.exp(x) - second + 2.0 * first - positive
    tilted2 = tl.where(t < 0, saturated, second - negative + 2.0 * tilted)
    return tilted, tilted2, mean_e, variance_e


@triton.jit
def _mean_derivatives(positive, density, tilted, alpha, scale):
    mean_m = scale * (positive + alpha * tilted)
    mean_x = 0.5 * scale * (alpha * tilted + (1.0 - alpha) * density)
    return mean_m, mean_x


@triton.jit
def _elementwise_kernel(
    mean_ptr,
    variance_ptr,
    alpha_ptr,
    scale_ptr,
    out_mean_ptr,
    out_variance_ptr,
    out_mean_m_ptr,
    out_mean_x_ptr,
    out_variance_m_ptr,
    out_variance_x_ptr,
    n,
    alpha_stride,
    scale_stride,
    DERIVATIVES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    m = tl.load(mean_ptr + i, mask=inside, other=0.0)
    x = tl.load(variance_ptr + i, mask=inside, other=1.0)
    alpha = tl.load(alpha_ptr + i * alpha_stride, mask=inside, other=1.0)
    scale = tl.load(scale_ptr + i * scale_stride, mask=inside, other=1.0)
    positive, negative, density, tilted, tilted2, ez, vz, ee, ve = _parts(m, x, True)
    square = scale * scale
    unit_mean = ez - alpha * ee
    variance = square * (vz + alpha * alpha * ve + 2.0 * alpha * ez * ee)
    tl.store(out_mean_ptr + i, scale * unit_mean, mask=inside)
    tl.store(out_variance_ptr + i, tl.where(x == 0, 0.0, variance), mask=inside)
    if DERIVATIVES:
        mean_m, mean_x = _mean_derivatives(positive, density, tilted, alpha, scale)
        pull = alpha * tilted
        variance_m = ez * (negative - pull) + alpha * (1.0 - alpha) * positive * ee
        variance_m = 2.0 * square * (variance_m + alpha * alpha * ve)
        variance_x = alpha * alpha * (2.0 * tilted2 - tilted * (tilted + positive)) + positive
        variance_x = variance_x - pull * ez - unit_mean * (1.0 - alpha) * density
        tl.store(out_mean_m_ptr + i, mean_m, mask=inside)
        tl.store(out_mean_x_ptr + i, mean_x, mask=inside)
        tl.store(out_variance_m_ptr + i, variance_m, mask=inside)
        tl.store(out_variance_x_ptr + i, square * variance_x, mask=inside)


@triton.jit
def _spectral_norm(a, b, c, d):
    """Of [[a, b], [c, d]]."""
    return 0.5 * (
        tl.sqrt((a + d) * (a + d) + (c - b) * (c - b))
        + tl.sqrt((a - d) * (a - d) + (b + c) * (b + c))
    )


@triton.jit
def _larger(best, where_best, value, index):
    """Keep the larger; a NaN is kept for good instead of being compared away."""
    better = (value > best) | (value != value)
    return tl.where(better, value, best), tl.where(better, index, where_best)


@triton.jit
def _store_maximum(best, where_best, value_ptr, index_ptr):
    top = tl.max(tl.where(best == best, best, float("inf")), axis=0)
    top = tl.where(tl.max((best != best).to(tl.int32), axis=0) > 0, float("nan"), top)
    at = (best == top) | (best != best)
    tl.store(value_ptr, top)
    tl.store(index_ptr, tl.min(tl.where(at, where_best, 0x7FFFFFFFFFFFFFFF), axis=0))


@triton.jit
def _grid_kernel(
    mu_ptr,
    omega_ptr,
    nu_ptr,
    tau_ptr,
    n_omega,
    n_nu,
    n_tau,
    total,
    parameter_ptr,
    value_ptr,
    index_ptr,
    ITERATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    alpha = tl.load(parameter_ptr)
    scale = tl.load(parameter_ptr + 1)
    start = program * (BLOCK * ITERATIONS) + tl.arange(0, BLOCK)
    best = tl.zeros([BLOCK], tl.float64) - 1.0
    best2 = best
    at = start
    at2 = start
    for step in range(ITERATIONS):
        # The last blocks repeat the last point: a repeated point changes no maximum.
        i = tl.minimum(start + step * BLOCK, total - 1)
        row = i // n_tau
        plane = row // n_nu
        tau = tl.load(tau_ptr + i % n_tau)
        nu = tl.load(nu_ptr + row % n_nu)
        omega = tl.load(omega_ptr + plane % n_omega)
        mu = tl.load(mu_ptr + plane // n_omega)
        positive, _, density, tilted, tilted2, ez, _, ee, _ = _parts(mu * omega, nu * tau, True)
        mean_m, mean_x = _mean_derivatives(positive, density, tilted, alpha, scale)
        mean = scale * (ez - alpha * ee)
        second_m = 2.0 * scale * scale * (ez + alpha * alpha * (tilted2 - tilted))
        second_x = scale * scale * (positive + alpha * alpha * (2.0 * tilted2 - tilted))
        value2 = _spectral_norm(omega * mean_m, tau * mean_x, omega * second_m, tau * second_x)
        value = _spectral_norm(
            omega * mean_m,
            tau * mean_x,
            omega * (second_m - 2.0 * mean * mean_m),
            tau * (second_x - 2.0 * mean * mean_x),
        )
        best, at = _larger(best, at, value, i)
        best2, at2 = _larger(best2, at2, value2, i)
    _store_maximum(best, at, value_ptr + 2 * program, index_ptr + 2 * program)
    _store_maximum(best2, at2, value_ptr + 2 * program + 1, index_ptr + 2 * program + 1)


@triton.jit
def _erfcx_kernel(y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y = tl.load(y_ptr + i, mask=i < n, other=0.0)
    tl.store(out_ptr + i, _erfcx(y), mask=i < n)


def erfcx(y: torch.Tensor) -> torch.Tensor:
    """Return e^{y^2} erfc(y) of a float64 tensor (n,), y >= 0: the polynomial, for its test."""
    y = y.contiguous()
    out = torch.empty_like(y)
    _erfcx_kernel[(triton.cdiv(len(y), _BLOCK),)](y, out, len(y), BLOCK=_BLOCK)
    return out


def elementwise(
    mean: torch.Tensor,
    variance: torch.Tensor,
    alpha: torch.Tensor,
    scale: torch.Tensor,
    *,
    with_derivatives: bool,
) -> tuple[torch.Tensor, ...]:
    """Return the moments (2 tensors) or moments and derivatives (6), each float64 (n,).

    mean and variance are float64 (n,); alpha and scale (n,) or 0-dimensional.
    """
    n = len(mean)
    out = [torch.empty_like(mean) for _ in range(6 if with_derivatives else 2)]
    if n:
        mean, variance, alpha, scale = (t.contiguous() for t in (mean, variance, alpha, scale))
        _elementwise_kernel[(triton.cdiv(n, _BLOCK),)](
            mean,
            variance,
            alpha,
            scale,
            *out,
            # The kernel stores no derivative then.
            *[None] * (6 - len(out)),
            n,
            int(alpha.ndim > 0),
            int(scale.ndim > 0),
            DERIVATIVES=with_derivatives,
            BLOCK=_BLOCK,
        )
    return tuple(out)


def grid_maximum(
    mu: torch.Tensor,
    omega: torch.Tensor,
    nu: torch.Tensor,
    tau: torch.Tensor,
    *,
    alpha: float,
    scale: float,
    iterations: int = 256,
) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return the greatest spectral norm over the product grid of four float64 axes, and where.

    Two Jacobians with respect to (mu, nu) in one pass, m = mu omega and x = nu tau: of the map to
    (mean, variance) first, of the map to (mean, second moment) second; for each the maximum and
    its index in the row-major grid (mu, omega, nu, tau). No tensor of the grid's size exists: every
    program keeps a running maximum. A NaN anywhere makes the result NaN.
    """
    axes = [axis.contiguous() for axis in (mu, omega, nu, tau)]
    total = 1
    for axis in axes:
        total *= len(axis)
    programs = triton.cdiv(total, _GRID_BLOCK * iterations)
    device = axes[0].device
    parameters = torch.tensor([alpha, scale], dtype=torch.float64, device=device)
    values = torch.empty(programs, 2, dtype=torch.float64, device=device)
    indices = torch.empty(programs, 2, dtype=torch.int64, device=device)
    _grid_kernel[(programs,)](
        *axes,
        len(axes[1]),
        len(axes[2]),
        len(axes[3]),
        total,
        parameters,
        values,
        indices,
        ITERATIONS=iterations,
        BLOCK=_GRID_BLOCK,
    )
    at = values.argmax(dim=0)
    return tuple((values[at[k], k].item(), indices[at[k], k].item()) for k in range(2))
