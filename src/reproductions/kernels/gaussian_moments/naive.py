"""The moments of SELU(z) as two integrals, by Gauss-Legendre quadrature split at the kink.

Klambauer et al. 2017, Eqs. (3)-(5): for z ~ N(mean, variance),

    mean' = ∫ f(z) N(z; mean, variance) dz,
    variance' = ∫ (f(z) - mean')^2 N(z; mean, variance) dz,

with f(z) = scale z for z > 0 and scale alpha (e^z - 1) otherwise.
"""

from __future__ import annotations

import math

import numpy as np
import torch

__all__ = ["moments"]

# e^z f(z)^2 leans the Gaussian by at most 2 standard deviations times sqrt(variance); for the
# largest lean that the kink allows, |mean| <= 30, nothing beyond 20 deviations is left.
REACH = 20
# z in [-1, 0], [-2, -1], ...: e^z changes by a factor e on a unit of z, however wide z itself is.
EXPONENTIAL_BREAKS = (-64.0, -32.0, -16.0, -12.0, -8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0)
NODES = 20
CHUNK = 2048


def moments(
    mean: torch.Tensor, variance: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return E f(z) and Var f(z) for float64 tensors (n,) of equal shape; variance > 0."""
    parts = [
        _moments(*arguments)
        for arguments in zip(*(t.split(CHUNK) for t in (mean, variance, alpha, scale)), strict=True)
    ]
    if not parts:
        return mean.clone(), variance.clone()
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)


def _moments(mean, variance, alpha, scale):
    z, weight = _nodes(mean, variance)
    alpha, scale = alpha[:, None, None], scale[:, None, None]
    # Saturated inputs are measured from the saturation value -scale alpha: there f itself is that
    # constant plus something small, and its variance is the variance of the small part.
    floor = torch.where(mean[:, None, None] < 0, scale * alpha, torch.zeros_like(alpha))
    exponential = alpha * torch.where(
        floor > 0, torch.exp(z.clamp(max=0)), torch.expm1(z.clamp(max=0))
    )
    above = torch.where(z > 0, scale * z + floor, scale * exponential)
    first = (weight * above).sum((1, 2), keepdim=True)
    second = (weight * (above - first).square()).sum((1, 2))
    return (first - floor)[:, 0, 0], second


def _nodes(mean, variance):
    """Nodes z and weights (n, pieces, NODES) for the expectation under N(mean, variance)."""
    deviation = variance.sqrt()
    sigmas = torch.arange(-REACH, REACH + 1, dtype=mean.dtype, device=mean.device)
    breaks = torch.tensor(EXPONENTIAL_BREAKS, dtype=mean.dtype, device=mean.device)
    u = (
        torch.cat(
            [
                sigmas.expand(len(mean), -1),
                ((breaks - mean[:, None]) / deviation[:, None]).clamp(-REACH, REACH),
            ],
            dim=1,
        )
        .sort(dim=1)
        .values
    )
    abscissa, gauss_weight = (
        torch.from_numpy(a).to(mean) for a in np.polynomial.legendre.leggauss(NODES)
    )
    half = (u[:, 1:] - u[:, :-1])[..., None] / 2
    u = (u[:, 1:] + u[:, :-1])[..., None] / 2 + half * abscissa
    weight = half * gauss_weight * torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)
    return mean[:, None, None] + deviation[:, None, None] * u, weight
