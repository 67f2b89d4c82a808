"""All layers of the limit kernels in one Triton kernel: a tile of pairs stays in registers.

The formulas are those of ``batched.py``, in float64 throughout. The cosines between the points come
from one matrix product, which the kernel reads once; it writes each kernel matrix once. With
``TRITON_INTERPRET=1`` in the environment before the first import the kernel runs on the CPU,
slowly, for tests.

Nearly opposite points are the one difference: 1 - h comes from the sum of the unit vectors, whose
rounding limits the error to 1e-16 of sqrt(Sigma(x, x) Sigma(x', x')) instead of Sigma itself.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch.nn import functional

from .points import erf_layers, relu_layers, unit_vectors, variance

__all__ = ["dual_kernel"]

_BLOCK = 32


@triton.jit
def _arcsine(m):
    """asin(sqrt(m)) for m in [0, 1/2], relative error below 4e-16.

    asin(sqrt(m))/sqrt(m) by Chebyshev interpolation of degree 19, written in powers of t = 4m - 1
    (coefficients computed with 60 digits).
    """
    t = 4.0 * m - 1.0
    p = t * 4.097889497209511e-12 + 1.3266616229762829e-11
    p = p * t + 2.2637806505151557e-11
    p = p * t + 7.451232855164786e-11
    p = p * t + 2.9026250109754305e-10
    p = p * t + 9.634387253469615e-10
    p = p * t + 3.170159567820474e-09
    p = p * t + 1.0697036292140507e-08
    p = p * t + 3.6493460957148516e-08
    p = p * t + 1.2584781240170216e-07
    p = p * t + 4.401968116419152e-07
    p = p * t + 1.5669620367998919e-06
    p = p * t + 5.701783556049392e-06
    p = p * t + 2.1345552714939684e-05
    p = p * t + 8.302317788222728e-05
    p = p * t + 0.00034086372340580136
    p = p * t + 0.0015196685396002487
    p = p * t + 0.0077989022389741295
    p = p * t + 0.05375149359132689
    p = p * t + 1.0471975511965979
    return tl.sqrt(m) * p


@triton.jit
def _relu(h, opposite, theta, gg, tilt):
    """The next h and Theta/(r r~), given them, 1 - h, g g~ and sin((theta - theta~)/2)."""
    acute = h <= opposite
    m = tl.minimum(h, opposite)
    angle = _arcsine(m)
    loss = (tl.sqrt(m * (1.0 - m)) - angle * (1.0 - 2.0 * m)) * 0.3183098861837907
    h = tl.maximum(gg * tl.where(acute, m - loss, 0.5 - loss) + tilt * tilt, 0.0)
    share = angle * 0.6366197723675814
    theta = gg * theta * tl.where(acute, 1.0 - share, share) + (1.0 - 2.0 * h)
    return h, theta


@triton.jit
def _erf(y, rest, theta, root, scale, bias):
    """The next Sigma and Theta, given y = 2 Sigma / sqrt(...), 1 - y^2 and the last Theta."""
    square = y * y
    angle = _arcsine(tl.minimum(square, rest))
    angle = tl.where(square <= 0.5, angle, 1.5707963267948966 - angle)
    sigma = scale * tl.where(y < 0, -angle, angle) + bias
    return sigma, scale * theta * root / tl.sqrt(rest) + sigma


@triton.jit
def _outer(row, i, j, left, right):
    """Products of the numbers at the points i and j, for all pairs."""
    a = tl.load(row + i, mask=left, other=1.0)
    b = tl.load(row + j, mask=right, other=1.0)
    return a[:, None] * b[None, :]


@triton.jit
def _kernel(
    sigma_ptr,
    theta_ptr,
    cosine_ptr,
    tile_ptr,
    unit_ptr,
    table_ptr,
    parameter_ptr,
    n,
    m,
    plane,
    points,
    features,
    shift,
    depth,
    first,
    RELU: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tile = tile_ptr + 2 * tl.program_id(0)
    i = tl.load(tile).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    j = tl.load(tile + 1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    left, right = i < n, j < m
    inside = left[:, None] & right[None, :]
    if SYMMETRIC:
        # The diagonal is known without.
        inside = inside & (i[:, None] < j[None, :])
    at = i[:, None] * m + j[None, :]
    mirrored = j[None, :] * m + i[:, None]
    cosine = tl.load(cosine_ptr + at, mask=inside, other=0.0)
    scale, bias = tl.load(parameter_ptr), tl.load(parameter_ptr + 1)
    j += shift
    row = table_ptr
    if RELU:
        h = 0.5 - 0.5 * cosine
        opposite = 1.0 - h
        doubtful = (h < 1e-4) | (h > 0.98)
    else:
        sigma = cosine * _outer(row + points, i, j, left, right)
        theta = sigma
        y = sigma * _outer(row, i, j, left, right)
        rest = 1.0 - y * y
        doubtful = rest < 3e-3
    if tl.max(tl.where(inside & doubtful, 1, 0)) > 0:
        near = tl.zeros([BLOCK, BLOCK], tl.float64)
        far = tl.zeros([BLOCK, BLOCK], tl.float64)
        unit_i, unit_j = unit_ptr + i, unit_ptr + j
        for _ in range(features):
            a = tl.load(unit_i, mask=left, other=0.0)[:, None]
            b = tl.load(unit_j, mask=right, other=0.0)[None, :]
            near += (a - b) * (a - b)
            far += (a + b) * (a + b)
            unit_i += points
            unit_j += points
        near *= 0.25
        far *= 0.25
        if RELU:
            opposite = tl.where(h > 0.98, far, tl.where(h < 1e-4, 1.0 - near, opposite))
            h = tl.where(h > 0.98, 1.0 - far, tl.where(h < 1e-4, near, h))
        else:
            r = tl.load(row + points + i, mask=left, other=1.0)
            v = r * r
            share = 1.0 / (1.0 + 2.0 * v)
            r_j = tl.load(row + points + j, mask=right, other=1.0)
            v_j = r_j * r_j
            share_j = 1.0 / (1.0 + 2.0 * v_j)
            exact = (
                (1.0 + 2.0 * v[:, None] + 2.0 * v_j[None, :]) * share[:, None] * share_j[None, :]
            )
            sines = 16.0 * near * far
            exact += sines * (v * share)[:, None] * (v_j * share_j)[None, :]
            rest = tl.where(doubtful, exact, rest)
    if RELU:
        theta = opposite - h
    for layer in range(1, depth):
        if RELU:
            gg = _outer(row + points, i, j, left, right)
            sine_i = tl.load(row + 2 * points + i, mask=left, other=0.0)
            sine_j = tl.load(row + 2 * points + j, mask=right, other=0.0)
            cosine_i = tl.load(row + 3 * points + i, mask=left, other=1.0)
            cosine_j = tl.load(row + 3 * points + j, mask=right, other=1.0)
            tilt = sine_i[:, None] * cosine_j[None, :] - cosine_i[:, None] * sine_j[None, :]
            h, theta = _relu(h, opposite, theta, gg, tilt)
            opposite = 1.0 - h
            row += 4 * points
        else:
            root = _outer(row, i, j, left, right)
            y = tl.minimum(tl.maximum(sigma * root, -1.0), 1.0)
            rest = tl.where(layer > 1, 1.0 - y * y, rest)
            sigma, theta = _erf(y, rest, theta, root, scale, bias)
            row += 2 * points
        if layer >= first:
            if RELU:
                rr = _outer(row, i, j, left, right)
                sigma_out, theta_out = rr * (1.0 - 2.0 * h), rr * theta
            else:
                sigma_out, theta_out = sigma, theta
            tl.store(sigma_ptr + at, sigma_out, mask=inside)
            tl.store(theta_ptr + at, theta_out, mask=inside)
            if SYMMETRIC:
                tl.store(sigma_ptr + mirrored, sigma_out, mask=inside)
                tl.store(theta_ptr + mirrored, theta_out, mask=inside)
            at += plane
            mirrored += plane


def dual_kernel(
    x: torch.Tensor,
    z: torch.Tensor | None,
    *,
    depth: int,
    bias_scale: float,
    weight_variance: float,
    activation: str,
    all_depths: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Sigma and Theta, (N, M) or (depth, N, M), of float64 x (N, n_0) and z (M, n_0)."""
    symmetric = z is None
    n, m = len(x), len(x if symmetric else z)
    points = x if symmetric else torch.cat([x, z])
    shift = 0 if symmetric else n
    kept = depth if all_depths else 1
    sigma, theta = (x.new_empty((kept, n, m)) for _ in range(2))
    v = variance(points, bias_scale, weight_variance)
    if activation == "relu":
        *diagonals, g, sine, cosine = relu_layers(v, depth, bias_scale, weight_variance)
        # The last layer has only its r.
        rows = [functional.pad(t, (0, 0, 0, 1)) for t in (g, sine, cosine)]
        table = torch.stack([diagonals[0].sqrt(), *rows], dim=1)
    else:
        *diagonals, root = erf_layers(v, depth, bias_scale, weight_variance)
        table = torch.stack([root, diagonals[0].sqrt()], dim=1)
    if depth == kept:
        linear = points[:n] @ points[shift:].T
        sigma[0] = linear.mul_(weight_variance / x.shape[1]).add_(bias_scale**2)
        theta[0] = sigma[0]
    if depth > 1 and n * m:
        units = unit_vectors(points, v, bias_scale, weight_variance)
        torch.mm(units[:n], units[shift:].T, out=sigma[-1])
        blocks = [torch.arange(triton.cdiv(size, _BLOCK), device=x.device) for size in (n, m)]
        tiles = torch.cartesian_prod(*blocks)
        if symmetric:
            tiles = tiles[tiles[:, 0] <= tiles[:, 1]]
        first = 1 if all_depths else depth - 1
        # Numbers would arrive in single precision.
        parameters = x.new_tensor([2 * weight_variance / math.pi, bias_scale**2])
        _kernel[(len(tiles),)](
            sigma[-depth + first :],
            theta[-depth + first :],
            sigma[-1],
            tiles.contiguous(),
            units.T.contiguous(),
            table,
            parameters,
            n,
            m,
            n * m,
            len(points),
            units.shape[1],
            shift,
            depth,
            first,
            RELU=activation == "relu",
            SYMMETRIC=symmetric,
            BLOCK=_BLOCK,
            num_warps=8,
        )
    if symmetric:
        for kernel, diagonal in zip((sigma, theta), diagonals, strict=True):
            kernel.diagonal(dim1=1, dim2=2).copy_(diagonal[-kept:])
    return (sigma, theta) if all_depths else (sigma[0], theta[0])
