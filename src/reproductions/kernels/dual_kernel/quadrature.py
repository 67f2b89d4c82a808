"""Dual activations of smooth functions: Hermite coefficients by quadrature, then a power series.

With h_k the Hermite polynomials that are orthonormal under N(0, 1) and a_k(v) = E[sigma(sqrt(v) z)
h_k(z)], Mehler's formula gives for (u, v) of variances v and v~ and correlation c

    E[sigma(u) sigma(v)] = sum_k a_k(v) a_k(v~) c^k,

and the same for sigma'. The coefficients belong to one point each; what is left for each pair of
points is a polynomial in c. At c = 1 and v = v~ the series is Parseval's, E[sigma(sqrt(v) z)^2]:
the part of it that is missing bounds the relative error for all pairs. It decides how many terms
are taken, and unmasks functions with a kink or a jump, whose coefficients decay like a power of k.

The expectations over one z are sums over equidistant nodes, which for a smooth integrand times a
Gaussian beat Gauss's nodes (Trefethen 2022, "Exactness of quadrature formulas").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from .points import unit_vectors, variance

__all__ = ["Expansion", "Series", "evaluate", "expand"]

# Nodes from -REACH to REACH standard deviations. With this step the sums are exact to rounding for
# as many Hermite functions as are ever taken, whose frequencies end near sqrt(MOST_TERMS).
REACH, STEP = 16, 1 / 20
LEAST_TERMS, MOST_TERMS = 32, 1024
# Parts of E[sigma^2] and E[sigma'^2] that the series may miss: wanted, and at most tolerated.
WANTED, TOLERATED = 1e-13, 1e-10
# Points at which the activation is evaluated at once.
CHUNK = 1024


class Expansion(NamedTuple):
    """A function of sqrt(v) z, z ~ N(0, 1), for n variances v."""

    coefficients: torch.Tensor
    """a_k(v), (terms, n)."""
    moment: torch.Tensor
    """E[function^2], (n,)."""


def expand(
    activation: Callable[[torch.Tensor], torch.Tensor], variances: torch.Tensor
) -> tuple[Expansion, Expansion]:
    """Return the expansions of sigma and sigma' at variances (n,), or refuse the activation.

    Raises:
        ValueError: the activation is not a differentiable elementwise function, not finite, or not
            smooth enough for its series to converge (a kink, a jump, or too steep a flank).
    """
    nodes, functions = (torch.from_numpy(t).to(variances.device) for t in _hermite_functions())
    weights = functions[0].square()
    pieces, terms = [], LEAST_TERMS
    for v in variances.split(CHUNK):
        piece = []
        values = evaluate(activation, v.sqrt()[:, None] * nodes)
        for name, value in zip(("E[f^2]", "E[f'^2]"), values, strict=True):
            moment = value.square() @ weights
            beyond = value[:, [0, -1]].square().amax(1) * weights[0] / moment
            if (beyond > WANTED).any():
                raise ValueError(
                    f"activation must grow more slowly: at variance {v[beyond.argmax()].item():.3g}"
                    f" a part of {name} lies beyond {REACH} standard deviations; rescale the inputs"
                )
            weighted = value * functions[0]
            while True:
                found = functions[:terms] @ weighted.T
                missing = moment - found.square().sum(0)
                if terms == MOST_TERMS or (missing <= WANTED * moment).all():
                    break
                terms *= 2
            if (missing > TOLERATED * moment).any():
                part = (missing / moment).nan_to_num()
                raise ValueError(
                    f"activation must be smooth on the scale of its inputs: at variance"
                    f" {v[part.argmax()].item():.3g} its series lacks {part.max().item():.1e} of"
                    f" {name} after {terms} terms, as with a kink, a jump or a steep flank; use"
                    f" 'relu' for a rectifier, a smoother function or smaller inputs"
                )
            piece.append(Expansion(found, moment))
        pieces.append(piece)
    return tuple(_join(part) for part in zip(*pieces, strict=True))


def _join(pieces: tuple[Expansion, ...]) -> Expansion:
    """Join the expansions of all chunks and cut them where every series has converged."""
    terms = len(pieces[-1].coefficients)
    coefficients = torch.cat(
        [torch.nn.functional.pad(a, (0, 0, 0, terms - len(a))) for a, _ in pieces], dim=1
    )
    moment = torch.cat([moment for _, moment in pieces])
    missing = moment - coefficients.square().cumsum(0)
    needed = 1 + int((missing > WANTED * moment).any(1).sum())
    return Expansion(coefficients[:needed].contiguous(), moment)


def evaluate(
    activation: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the activation and its derivative, both checked, at float64 inputs of any shape."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        values = activation(inputs)
        if not isinstance(values, torch.Tensor) or values.shape != inputs.shape:
            got = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise ValueError(
                f"activation must map a tensor elementwise, got {got} from {list(inputs.shape)}"
            )
        try:
            (slopes,) = torch.autograd.grad(values.sum(), inputs)
        except RuntimeError as error:
            raise ValueError(
                f"activation must be differentiable by torch.autograd, got {activation!r}"
            ) from error
    results = values.detach().to(inputs.dtype), slopes
    for name, result in zip(("value", "derivative"), results, strict=True):
        bad = ~torch.isfinite(result)
        if bad.any():
            raise ValueError(
                f"activation must be finite within {REACH} standard deviations of its input, got"
                f" the {name} {result[bad][0].item()} at {inputs[bad][0].item():.3g}"
            )
    return results


@cache
def _hermite_functions() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (M,) and h_k sqrt(STEP N(z; 0, 1)) there, (MOST_TERMS, M), by their recurrence."""
    half = round(REACH / STEP)
    z = np.arange(-half, half + 1) * STEP
    functions = np.empty((MOST_TERMS, len(z)))
    functions[0] = np.exp(-z * z / 4) * math.sqrt(STEP / math.sqrt(2 * math.pi))
    functions[1] = z * functions[0]
    for k in range(1, MOST_TERMS - 1):
        following = z * functions[k] - math.sqrt(k) * functions[k - 1]
        functions[k + 1] = following / math.sqrt(k + 1)
    return z, functions


class Series:
    """The layers of a smooth activation on a tile: see ``batched.py``."""

    BUFFERS = 4

    def __init__(self, points, depth, bias_scale, weight_variance, activation):
        self.scale, self.bias = weight_variance, bias_scale**2
        sigma = [variance(points, bias_scale, weight_variance)]
        theta = sigma[:]
        self.expansions = []
        for _ in range(depth - 1):
            both = expand(activation, sigma[-1])
            self.expansions.append([part.coefficients for part in both])
            value, slope = (self.scale * part.moment for part in both)
            sigma.append(value + self.bias)
            theta.append(slope * theta[-1] + sigma[-1])
        self.diagonals = [torch.stack(sigma), torch.stack(theta)]
        self.r = self.diagonals[0].sqrt()
        self.inverse = torch.where(self.r > 0, 1 / self.r, 0.0)
        self.units = unit_vectors(points, sigma[0], bias_scale, weight_variance)

    def begin(self, rows, columns, buffers, on_diagonal):
        """Start the tile of these points with the first layer."""
        self.rows, self.columns, self.layer = rows, columns, 0
        self.sigma, self.theta, *self.spare = buffers
        torch.mm(self.units[rows], self.units[columns].T, out=self.sigma)
        r = self.r[0]
        self.sigma.mul_(r[rows, None]).mul_(r[columns])
        self.theta.copy_(self.sigma)

    def advance(self):
        """Go on to the next layer."""
        inverse = self.inverse[self.layer]
        cosine = self.sigma.mul_(inverse[self.rows, None]).mul_(inverse[self.columns])
        cosine.clamp_(-1, 1)
        value, slope = self.spare
        for coefficients, out in zip(self.expansions[self.layer], (value, slope), strict=True):
            self._sum(coefficients, cosine, out)
        value.mul_(self.scale).add_(self.bias)
        torch.addcmul(value, self.theta, slope, value=self.scale, out=self.theta)
        self.sigma, self.spare = value, [cosine, slope]
        self.layer += 1

    def _sum(self, coefficients, cosine, out):
        """Horner's rule for sum_k a_k(v) a_k(v~) c^k."""
        left, right = coefficients[:, self.rows, None], coefficients[:, None, self.columns]
        torch.mul(left[-1], right[-1], out=out)
        for k in reversed(range(len(coefficients) - 1)):
            out.mul_(cosine).addcmul_(left[k], right[k])

    def write(self, sigma, theta):
        """Write both kernels of this layer."""
        sigma.copy_(self.sigma)
        theta.copy_(self.theta)
