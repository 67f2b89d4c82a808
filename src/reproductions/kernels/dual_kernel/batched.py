"""The limit kernels tile by tile, each tile small enough for a core's cache: plain torch.

All layers of a tile are computed in place before the next tile is begun, and of a symmetric matrix
only the upper triangle. What a layer does depends on the activation: a *program* (``_Relu``,
``_Erf``, ``quadrature.Series``) begins a tile, advances it by a layer and writes its kernels.

For the rectifier what is carried is not the covariance but h = sin(phi/2)^2, phi the angle, because
cos(phi) = 1 - phi^2/2 has lost half the digits of a small phi. With r = sqrt(Sigma(x, x)), r~ the
same at x', and a = s/2, the recursion of ``naive.py`` reads

    h' = g g~ (h - y/pi) + sin((theta - theta~)/2)^2,   y = sin(phi)/2 - (phi/2) cos(phi),

where theta is the angle at x in the right triangle of legs sqrt(a) r and beta, whose hypotenuse is
the next r, and g = cos(theta). Both terms are positive, and a rounding error e in the square root
of either changes the next angle by e, however small that angle is. From h come

    Sigma = r r~ (1 - 2h),   Theta = r r~ (1 + R),   R' = g g~ (1 + R)(1 - phi/pi) - 2h',

R = -2h in the first layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional

from . import quadrature
from .points import erf_layers, relu_layers, unit_vectors, variance

__all__ = ["dual_kernel"]

# Numbers in a tile and its greatest width: five tiles fit a core's second-level cache.
TILE = {"cpu": (1 << 15, 1 << 10)}
TILE_ELSEWHERE = (1 << 22, 1 << 12)
# Below, h from the scalar product of two unit vectors has lost digits of the angle.
CLOSE = 1e-4
# Within this of 1, h is wanted to all its digits: Sigma of the second layer goes as (1 - h)^1.5.
FAR = 0.02
# Below, 1 - y^2 with y = 2 Sigma / sqrt(...) has lost digits to cancellation.
STEEP = 3e-3
# Pairs times features gathered at once where differences of vectors are wanted.
GATHER = 1 << 20


def dual_kernel(
    x: torch.Tensor,
    z: torch.Tensor | None,
    *,
    depth: int,
    bias_scale: float,
    weight_variance: float,
    activation: str | Callable[[torch.Tensor], torch.Tensor],
    all_depths: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Sigma and Theta, (N, M) or (depth, N, M), of float64 x (N, n_0) and z (M, n_0)."""
    symmetric = z is None
    n, m = len(x), len(x if symmetric else z)
    points = x if symmetric else torch.cat([x, z])
    program = {"relu": _Relu, "erf": _Erf}.get(activation, quadrature.Series)(
        points, depth, bias_scale, weight_variance, activation
    )
    first = 0 if all_depths else depth - 1
    sigma, theta = (_uninitialized((depth - first, n, m), x) for _ in range(2))
    size, width = TILE.get(x.device.type, TILE_ELSEWHERE)
    scratch = _uninitialized((program.BUFFERS, size), x)
    # No tile is higher than wide, so this is the greatest square on the diagonal.
    side = math.isqrt(size)
    below = torch.ones(side, side, dtype=torch.bool, device=x.device).tril(-1)
    for rows, columns in _tiles(n, m, symmetric, size, width):
        shape = rows.stop - rows.start, columns.stop - columns.start
        buffers = scratch[:, : math.prod(shape)].unflatten(1, shape).unbind()
        targets = [(s[rows, columns], t[rows, columns]) for s, t in zip(sigma, theta, strict=True)]
        on_diagonal = symmetric and rows.start == columns.start
        if not symmetric:
            columns = slice(columns.start + n, columns.stop + n)
        if not first:
            linear = torch.mm(points[rows], points[columns].T, out=buffers[0])
            linear.mul_(weight_variance / x.shape[1]).add_(bias_scale**2)
            for target in targets[0]:
                target.copy_(linear)
        if depth > 1:
            program.begin(rows, columns, buffers, on_diagonal)
        for layer in range(1, depth):
            program.advance()
            if layer >= first:
                program.write(*targets[layer - first])
        if symmetric:
            for kernel in (*sigma, *theta):
                _mirror(kernel, rows, columns, below)
    if symmetric:
        for kernel, diagonal in zip((sigma, theta), program.diagonals, strict=True):
            kernel.diagonal(dim1=1, dim2=2).copy_(diagonal[first:])
    return (sigma, theta) if all_depths else (sigma[0], theta[0])


class _Relu:
    """The layers of the rectifier on a tile."""

    BUFFERS = 5

    def __init__(self, points, depth, bias_scale, weight_variance, _):
        v = variance(points, bias_scale, weight_variance)
        at = relu_layers(v, depth, bias_scale, weight_variance)
        *self.diagonals, self.g, self.sine, self.cosine = at
        self.r = self.diagonals[0].sqrt()
        # One times the other is sin((theta - theta~)/2).
        self.left = torch.stack([self.sine, self.cosine], dim=2)
        self.right = torch.stack([self.cosine, -self.sine], dim=1)
        self.units = unit_vectors(points, v, bias_scale, weight_variance)
        self.points, self.bias = points, bias_scale * math.sqrt(points.shape[1] / weight_variance)

    def begin(self, rows, columns, buffers, on_diagonal):
        self.rows, self.columns, self.layer = rows, columns, 0
        self.h, self.rest, *self.spare = buffers
        a, b = self.units[rows], self.units[columns]
        h = torch.mm(a, b.T, out=self.h).mul_(-0.5).add_(0.5)
        if on_diagonal:
            h.fill_diagonal_(0.5)
        if h.amin() < CLOSE:
            at = (h < CLOSE).nonzero(as_tuple=True)
            h[at] = _square_distances(a, b, *at) / 4
        self.far = None
        if h.amax() > 1 - FAR:
            at = (h > 1 - FAR).nonzero(as_tuple=True)
            self.far = at, self._opposite(*at)
            h[at] = 1 - self.far[1]
        if on_diagonal:
            h.fill_diagonal_(0)
        torch.mul(h, -2, out=self.rest)

    def advance(self):
        h, rest, (p, y, gg), layer = self.h, self.rest, self.spare, self.layer
        torch.sqrt(h, out=p).asin_()
        torch.addcmul(h, h, h, value=-1, out=y).sqrt_().sub_(p).addcmul_(h, p, value=2)
        g = self.g[layer]
        torch.mul(g[self.rows, None], g[self.columns], out=gg)
        h.add_(y, alpha=-1 / math.pi).mul_(gg)
        tilt = torch.mm(self.left[layer, self.rows], self.right[layer][:, self.columns], out=y)
        # Where asin is off in its last digit, an angle of that size may fall below 0.
        h.addcmul_(tilt, tilt).clamp_(min=0)
        torch.addcmul(gg, gg, rest, out=rest)
        rest.addcmul_(rest, p, value=-2 / math.pi).add_(h, alpha=-2)
        if layer == 0 and self.far:
            self._straighten()
        self.layer += 1

    def _opposite(self, i, j):
        """1 - h of nearly opposite pairs to full relative precision.

        The sum of one point and the other, scaled to its length, is exact but for the product,
        whose rounding error is added (Dekker 1971); the part of it along the points is removed.
        """
        found = []
        pairs = _split(i + self.rows.start, j + self.columns.start, self.points)
        for i, j in zip(*pairs, strict=True):
            a, b = (functional.pad(self.points[k], (0, 1), value=self.bias) for k in (i, j))
            scale = (self.r[0, i] / self.r[0, j])[:, None]
            product = scale * b
            (a_high, a_low), (b_high, b_low) = _halves(scale), _halves(b)
            error = a_high * b_high - product + a_high * b_low + a_low * b_high + a_low * b_low
            total = a + product + error
            square = a.square().sum(1)
            total -= a * ((total * a).sum(1) / square)[:, None]
            sine_square = total.square().sum(1) / square
            found.append(sine_square / (2 + 2 * (1 - sine_square).sqrt()))
        return torch.cat(found)

    def _straighten(self):
        """Second layer of nearly opposite points, where all is of the order of psi = pi - phi.

        sin(psi) - psi cos(psi), the numerator of E[relu relu], is summed as a series.
        """
        at, opposite = self.far
        i, j = (index + s.start for index, s in zip(at, (self.rows, self.columns), strict=True))
        psi = 2 * opposite.sqrt().asin_()
        square, series = psi.square(), torch.zeros_like(psi)
        for n in reversed(range(1, 7)):
            series = 2 * n / math.factorial(2 * n + 1) - square * series
        g, sine, cosine = (t[0, i] * t[0, j] for t in (self.g, self.sine, self.cosine))
        sigma = g * psi * square * series / math.pi + 4 * sine * cosine
        theta = g * (2 * opposite - 1) * psi / math.pi + sigma
        self.h[at], self.rest[at] = (1 - sigma) / 2, theta - 1
        self.far = at, sigma, theta

    def write(self, sigma, theta):
        r = self.r[self.layer]
        rr = torch.mul(r[self.rows, None], r[self.columns], out=self.spare[0])
        torch.addcmul(rr, rr, self.h, value=-2, out=sigma)
        torch.addcmul(rr, rr, self.rest, out=theta)
        if self.layer == 1 and self.far:
            at, *exact = self.far
            for target, value in zip((sigma, theta), exact, strict=True):
                target[at] = rr[at] * value


class _Erf:
    """The layers of the error function on a tile."""

    BUFFERS = 4

    def __init__(self, points, depth, bias_scale, weight_variance, _):
        self.scale, self.bias = 2 * weight_variance / math.pi, bias_scale**2
        v = variance(points, bias_scale, weight_variance)
        *self.diagonals, self.root = erf_layers(v, depth, bias_scale, weight_variance)
        self.r = v.sqrt()
        self.units = unit_vectors(points, v, bias_scale, weight_variance)
        self.one = torch.ones((), dtype=points.dtype, device=points.device)

    def begin(self, rows, columns, buffers, on_diagonal):
        self.rows, self.columns, self.layer = rows, columns, 0
        self.sigma, self.theta, *self.spare = buffers
        torch.mm(self.units[rows], self.units[columns].T, out=self.sigma)
        if on_diagonal:
            self.sigma.fill_diagonal_(0)
        self.sigma.mul_(self.r[rows, None]).mul_(self.r[columns])
        self.theta.copy_(self.sigma)

    def advance(self):
        y, theta, (root, rest) = self.sigma, self.theta, self.spare
        scale = self.root[self.layer]
        torch.mul(scale[self.rows, None], scale[self.columns], out=root)
        y.mul_(root).clamp_(-1, 1)
        # 1 - y^2
        torch.addcmul(self.one, y, y, value=-1, out=rest)
        steep = self._repair(rest) if self.layer == 0 else None
        theta.mul_(root).div_(rest.sqrt_())
        if steep:
            angle = torch.atan2(y[steep], rest[steep])
        y.asin_()
        if steep:
            y[steep] = angle
        y.mul_(self.scale).add_(self.bias)
        torch.add(y, theta, alpha=self.scale, out=theta)
        self.layer += 1

    def _repair(self, rest):
        """Recompute 1 - y^2 in the first layer where it is small; return where that is.

        There (1 + 2v)(1 + 2v~) - 4 Sigma^2 = 1 + 2v + 2v~ + 4 v v~ sin(phi)^2 with the angle phi
        between the points, all terms positive.
        """
        if rest.amin() >= STEEP:
            return None
        at = (rest < STEEP).nonzero(as_tuple=True)
        a, b = self.units[self.rows], self.units[self.columns]
        # sin(phi)^2, whether phi is near 0 or near pi.
        square = _square_distances(a, b, *at) * _square_distances(a, -b, *at) / 4
        v, share = self.diagonals[0][0], self.root[0].square() / 2
        i, j = (index + s.start for index, s in zip(at, (self.rows, self.columns), strict=True))
        rest[at] = share[i] * share[j] * (1 + 2 * v[i] + 2 * v[j])
        rest[at] += 4 * (v * share)[i] * (v * share)[j] * square
        return at

    def write(self, sigma, theta):
        sigma.copy_(self.sigma)
        theta.copy_(self.theta)


def _square_distances(a, b, i, j):
    """Squared distances of the rows a[i] and b[j], (pairs,)."""
    pairs = zip(*_split(i, j, a), strict=True)
    return torch.cat([(a[i] - b[j]).square_().sum(1) for i, j in pairs])


def _split(i, j, points):
    """Split the indices of pairs, so that not all features are gathered at once."""
    chunk = max(1, GATHER // points.shape[1])
    return i.split(chunk), j.split(chunk)


def _halves(value):
    """Split into two numbers of 26 bits each, whose products with such are exact."""
    shifted = 134217729.0 * value
    high = shifted - (shifted - value)
    return high, value - high


def _tiles(n, m, symmetric, size, width) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles, none higher than wide; if symmetric only the upper ones."""
    start = 0
    while start < n and m:
        first = start if symmetric else 0
        pieces = -(-(m - first) // width)
        columns = -(-(m - first) // pieces)
        stop = min(n, start + max(1, min(columns, size // columns)))
        for left in range(first, m, columns):
            yield slice(start, stop), slice(left, min(m, left + columns))
        start = stop


def _mirror(kernel, rows, columns, below):
    """Copy a tile of the upper triangle to the lower one; ``below`` masks what is under it."""
    if rows.start == columns.start:
        square = kernel[rows, rows]
        square.copy_(torch.where(below[: len(square), : len(square)], square.T, square))
        columns = slice(rows.stop, columns.stop)
    kernel[columns, rows] = kernel[rows, columns].T


def _uninitialized(shape, like):
    """An uninitialized tensor; on the CPU numpy's, which asks the system for huge pages."""
    if like.is_cpu:
        return torch.from_numpy(np.empty(shape))
    return torch.empty(shape, dtype=like.dtype, device=like.device)
