"""The limit kernels as the papers write them, layer after layer, in float64.

    Sigma^(1) = s x.x'/n_0 + beta^2,    Sigma^(l+1) = s E[sigma(u) sigma(v)] + beta^2,
    Theta^(1) = Sigma^(1),              Theta^(l+1) = s Theta^(l) E[sigma'(u) sigma'(v)]
                                                        + Sigma^(l+1),

(u, v) centered Gaussian with covariance Sigma^(l) restricted to {x, x'}: Jacot, Gabriel and Hongler
2018, Proposition 1 and Theorem 1, where the weights' variance s is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .quadrature import evaluate, expand

__all__ = ["dual_kernel"]

# Equidistant nodes, REACH standard deviations to both sides, for the integrals of a smooth sigma.
REACH, STEP = 9, 1 / 8


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
    s, bias = weight_variance, bias_scale**2
    expectations = {"relu": relu, "erf": erf}.get(activation) or smooth(activation)
    other = x if z is None else z
    n_0 = x.shape[1]
    v, w = (s * points.square().sum(1) / n_0 + bias for points in (x, other))
    sigma = s * x @ other.T / n_0 + bias
    if z is None:
        sigma.diagonal().copy_(v)
    theta = sigma
    kernels = [(sigma, theta)]
    for _ in range(depth - 1):
        if callable(activation):
            expand(activation, torch.cat([v, w]))  # which refuses what is not smooth
        sigma, theta, v, w = layer(expectations, sigma, theta, v, w, s, bias)
        kernels.append((sigma, theta))
    if all_depths:
        return tuple(torch.stack(kernel) for kernel in zip(*kernels, strict=True))
    return sigma.clone(), theta.clone()


def layer(expectations, sigma, theta, v, w, s, bias):
    """One step of both recursions, with the variances v and w, the diagonals of Sigma^(l)."""
    value, slope = expectations(sigma, v[:, None], w)
    sigma = s * value + bias
    theta = s * theta * slope + sigma
    v, w = (s * expectations(t, t, t)[0] + bias for t in (v, w))
    return sigma, theta, v, w


def relu(sigma, v, w):
    """E of max(u, 0) max(v, 0) and of the steps: Cho and Saul 2009, n = 1 and n = 0."""
    scale = (v * w).sqrt()
    phi = torch.acos(_correlation(sigma, scale))
    value = scale * (phi.sin() + (math.pi - phi) * phi.cos()) / (2 * math.pi)
    return value, (math.pi - phi) / (2 * math.pi)


def erf(sigma, v, w):
    """E of erf(u) erf(v), Williams 1997, and its derivative with respect to sigma."""
    square = (1 + 2 * v) * (1 + 2 * w)
    value = 2 / math.pi * torch.asin(2 * sigma / square.sqrt())
    return value, 4 / math.pi / (square - 4 * sigma.square()).sqrt()


def smooth(activation):
    """Return E by summing over u = sqrt(v) z_1 and v = sqrt(w) (c z_1 + sqrt(1 - c^2) z_2)."""

    def expectations(sigma, v, w):
        c = _correlation(sigma, (v * w).sqrt())
        z = torch.arange(-REACH, REACH + STEP, STEP, dtype=c.dtype, device=c.device)
        weights = STEP * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        results = [torch.zeros_like(c), torch.zeros_like(c)]
        for z_1, weight in zip(z, weights, strict=True):
            inner = c[..., None] * z_1 + (1 - c.square()).sqrt()[..., None] * z
            first = evaluate(activation, v.sqrt() * z_1)
            second = evaluate(activation, w.sqrt()[..., None] * inner)
            for result, a, b in zip(results, first, second, strict=True):
                result += weight * a * (b * weights).sum(-1)
        return results

    return expectations


def _correlation(sigma, scale):
    """sigma/scale within [-1, 1]; 1 for a zero vector, whose angle nothing depends on."""
    return torch.where(scale > 0, sigma / scale, 1.0).clamp(-1, 1)
