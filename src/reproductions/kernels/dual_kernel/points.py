"""What the layers need of one point each, for points (N, n_0) in float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

__all__ = ["ErfLayers", "ReluLayers", "erf_layers", "relu_layers", "unit_vectors", "variance"]


class ReluLayers(NamedTuple):
    """Numbers of each point in each layer of a rectifier network."""

    sigma: torch.Tensor
    """Sigma^(l)(x, x), (depth, N)."""
    theta: torch.Tensor
    """Theta^(l)(x, x), (depth, N)."""
    g: torch.Tensor
    """cos(theta) of the triangle with legs sqrt(s Sigma(x, x)/2) and beta, (depth - 1, N)."""
    sine: torch.Tensor
    """sin(theta/2), (depth - 1, N)."""
    cosine: torch.Tensor
    """cos(theta/2), (depth - 1, N)."""


class ErfLayers(NamedTuple):
    """Numbers of each point in each layer of a network of error functions."""

    sigma: torch.Tensor
    """Sigma^(l)(x, x), (depth, N)."""
    theta: torch.Tensor
    """Theta^(l)(x, x), (depth, N)."""
    root: torch.Tensor
    """sqrt(2 / (1 + 2 Sigma^(l)(x, x))), (depth, N): y = Sigma(x, x') root root~."""


def variance(points: torch.Tensor, bias_scale: float, weight_variance: float) -> torch.Tensor:
    """Return Sigma^(1)(x, x) = s |x|^2 / n_0 + beta^2, (N,)."""
    square = torch.linalg.vector_norm(points, dim=1).square_()
    return square.mul_(weight_variance / points.shape[1]).add_(bias_scale**2)


def unit_vectors(
    points: torch.Tensor, first: torch.Tensor, bias_scale: float, weight_variance: float
) -> torch.Tensor:
    """Return (sqrt(s/n_0) x, beta) over its length, (N, n_0 + 1); zeros where the length is 0.

    ``first`` is Sigma^(1)(x, x), (N,), the squared length.
    """
    inverse = torch.where(first > 0, first.rsqrt(), 0.0)
    units = points.new_empty(len(points), points.shape[1] + 1)
    scale = math.sqrt(weight_variance / points.shape[1])
    torch.mul(points, scale * inverse[:, None], out=units[:, :-1])
    torch.mul(inverse, bias_scale, out=units[:, -1])
    return units


def relu_layers(
    first: torch.Tensor, depth: int, bias_scale: float, weight_variance: float
) -> ReluLayers:
    """Return the diagonals and the angle theta of ``batched.py``; ``first`` is Sigma^(1)(x, x)."""
    a, bias = weight_variance / 2, bias_scale**2
    sigma, theta = [first], [first]
    for _ in range(depth - 1):
        sigma.append(a * sigma[-1] + bias)
        theta.append(a * theta[-1] + sigma[-1])
    sigma = torch.stack(sigma)
    r = sigma.sqrt()
    # A zero vector without bias stays one, and has no angle: any will do.
    g = torch.where(r[1:] > 0, math.sqrt(a) * r[:-1] / r[1:], 1.0)
    cosine = ((1 + g) / 2).sqrt()
    sine = torch.where(r[1:] > 0, bias_scale / r[1:], 0.0) / (2 * cosine)
    return ReluLayers(sigma, torch.stack(theta), g, sine, cosine)


def erf_layers(
    first: torch.Tensor, depth: int, bias_scale: float, weight_variance: float
) -> ErfLayers:
    """Return the diagonals and roots of the error function; ``first`` is Sigma^(1)(x, x), (N,)."""
    scale, bias = 2 * weight_variance / math.pi, bias_scale**2
    sigma, theta = [first], [first]
    for _ in range(depth - 1):
        leg = (1 + 4 * sigma[-1]).sqrt()
        sigma.append(scale * torch.atan2(2 * sigma[-1], leg) + bias)
        theta.append(2 * scale / leg * theta[-1] + sigma[-1])
    sigma = torch.stack(sigma)
    return ErfLayers(sigma, torch.stack(theta), (2 / (1 + 2 * sigma)).sqrt())
