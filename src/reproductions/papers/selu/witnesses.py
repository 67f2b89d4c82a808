"""Independent witnesses of the closed-form moments: quadrature to 40 digits, and sampling.

Nothing here shares a formula with ``kernels.gaussian_moments``: the integrals of Klambauer et al.
2017, Eq. (3), are done as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mpmath
import numpy as np
import torch

from reproductions._validate import positive_integer
from reproductions.papers.selu.moments import ALPHA, SCALE

__all__ = [
    "WITNESS_POINTS",
    "hermite_moments",
    "quadrature_jacobian",
    "quadrature_moments",
    "sampling_deviation",
]

#: Mean and variance of z: around (0, 1), nearly constant, very wide, on the plateau, linear.
WITNESS_POINTS = (
    (0.0, 1.0),
    (0.1, 0.8),
    (-0.1, 1.5),
    (0.01, 1.875),
    (-0.7, 0.3),
    (1.5, 2.0),
    (0.0, 1e-4),
    (0.0, 100.0),
    (-10.0, 1.0),
    (-3.0, 0.5),
    (4.0, 0.25),
    (2.0, 30.0),
)

_BREAKS = (-12, -8, -5, -3, -1.5, 0, 1.5, 3, 5, 8, 12)


def quadrature_moments(m: float, x: float, digits: int = 40) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Return mean and variance of SELU(z), z ~ N(m, x), by quadrature split at the kink.

    tanh-sinh quadrature in the standardized variable, with pieces that end at the kink -m/sqrt(x);
    the variance is integrated as E (f - mean)^2, so that it does not cancel.
    """
    positive_integer("digits", digits)
    with mpmath.workdps(digits):
        alpha, scale = mpmath.mpf(ALPHA), mpmath.mpf(SCALE)
        mean, deviation = mpmath.mpf(m), mpmath.sqrt(mpmath.mpf(x))
        reach = mpmath.sqrt(2 * digits * mpmath.log(10)) + 2 * min(deviation, 2)
        inside = [b for b in (*_BREAKS, -mean / deviation) if -reach < b < reach]
        cuts = [-reach, *sorted(set(map(mpmath.mpf, inside))), reach]

        def selu(u):
            z = mean + deviation * u
            return scale * z if z > 0 else scale * alpha * mpmath.expm1(z)

        first = mpmath.quad(lambda u: selu(u) * mpmath.npdf(u), cuts)
        second = mpmath.quad(lambda u: (selu(u) - first) ** 2 * mpmath.npdf(u), cuts)
    return first, second


def quadrature_jacobian(
    mu: float, nu: float, omega: float = 0.0, tau: float = 1.0, digits: int = 40
) -> torch.Tensor:
    """Return d(mean', variance')/d(mu, nu), float64 (2, 2), from differences of the quadrature.

    Central differences with a step of 10^(-digits/4): in ``digits`` digits their error is about
    10^(-digits/2), far below what float64 can show.
    """
    with mpmath.workdps(digits):
        step = mpmath.mpf(10) ** (-digits // 4)
        mu, nu, omega, tau = map(mpmath.mpf, (mu, nu, omega, tau))
        columns = []
        for d_mu, d_nu in ((step, 0), (0, step)):
            plus, minus = (
                quadrature_moments((mu + s * d_mu) * omega, (nu + s * d_nu) * tau, digits)
                for s in (1, -1)
            )
            columns.append([float((a - b) / (2 * step)) for a, b in zip(plus, minus, strict=True)])
    return torch.tensor(columns, dtype=torch.float64).T


def hermite_moments(m: float, x: float, nodes: int = 120) -> tuple[float, float]:
    """Return the same moments by Gauss-Hermite quadrature, which does not see the kink.

    The control beside the check: a rule that is exact for smooth integrands and wrong here.
    """
    u, weight = np.polynomial.hermite_e.hermegauss(positive_integer("nodes", nodes))
    z, weight = m + math.sqrt(x) * u, weight / math.sqrt(2 * math.pi)
    f = SCALE * np.where(z > 0, z, ALPHA * np.expm1(np.minimum(z, 0)))
    first = float(weight @ f)
    return first, float(weight @ (f - first) ** 2)


def sampling_deviation(
    points: Sequence[tuple[float, float]],
    moments: Sequence[tuple[float, float]],
    n_draws: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return (sample - ``moments``) in standard errors, shape (points, 2), by ``n_draws`` draws.

    One stream of standard normals serves all points, in pieces of a million (16 MB). The standard
    error of the mean is sqrt(variance/n), that of the variance sqrt((fourth moment - v^2)/n).
    """
    positive_integer("n_draws", n_draws, low=2)
    device = generator.device
    m, x = torch.tensor(points, dtype=torch.float64, device=device).T[..., None]
    expected = torch.tensor(moments, dtype=torch.float64, device=device)
    sums = torch.zeros(3, len(m), dtype=torch.float64, device=device)
    for start in range(0, n_draws, 1 << 20):
        size = min(1 << 20, n_draws - start)
        u = torch.randn(size, generator=generator, dtype=torch.float64, device=device)
        for k in range(len(m)):
            centered = torch.nn.functional.selu(m[k] + x[k].sqrt() * u) - expected[k, 0]
            square = centered.square()
            sums[:, k] += torch.stack([centered.sum(), square.sum(), square.square().sum()])
    first, second, fourth = sums / n_draws
    variance_error = second - first.square() - expected[:, 1]
    errors = torch.stack([first, variance_error], dim=-1)
    spread = torch.stack([second - first.square(), fourth - second.square()], dim=-1)
    return (errors / (spread / n_draws).sqrt()).cpu()
