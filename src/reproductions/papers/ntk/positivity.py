"""Is the limit kernel positive definite on the sphere? Yes, and where a hypothesis fails, no.

Proposition 2 of Jacot, Gabriel and Hongler 2018: for a non-polynomial Lipschitz activation and at
least two layers, Theta^(L) restricted to the unit sphere is positive definite; beta > 0 was assumed
where the paper introduced it. A smallest eigenvalue "greater than 0" says nothing in floating
point, where a singular Gram has one of either sign near 1e-16 of the largest. So ratios are
compared, on inputs that come as antipodal pairs, which are hard: each hypothesis that is dropped
leaves a null space of known dimension there, except beta > 0 with three layers.

Without a bias, two layers of ReLU miss all odd harmonics beyond the linear ones. With
c = x . x' = cos(phi), phi in [0, pi],

    Theta^(2) n_0 = c (pi - phi) / (2 pi) + (sin(phi) + (pi - phi) c) / (2 pi),

and the part that is odd under c -> -c, that is under x' -> -x', is c / 2: linear. On P antipodal
pairs in n_0 dimensions the P-dimensional space of odd vectors thus meets a Gram of rank n_0 and
holds P - n_0 null vectors: 17 for 20 pairs in three dimensions. With beta > 0 the inputs of the
first layer are (x, beta), no longer antipodal; with one more layer E relu > 0 has the same effect.
Either way the null space is gone. How small the ratio is depends on how close points come.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from reproductions._validate import finite, positive_integer, within
from reproductions.kernels.dual_kernel import dual_kernel

from .limits import Activation

__all__ = [
    "CASES",
    "Case",
    "Definiteness",
    "antipodal_pairs",
    "definiteness",
    "definiteness_of",
]

#: eigenvalues below this share of the largest count as zero: far above what rounding leaves of an
#: exact zero, far below the least of a definite Gram on some tens of points
THRESHOLD = 1e-8


class Case(NamedTuple):
    """A limit kernel Theta^(L), and whether Proposition 2 promises that it is definite."""

    name: str
    depth: int
    bias_scale: float
    activation: Activation
    promised: bool


class Definiteness(NamedTuple):
    """lambda_min / lambda_max of a Gram, and how many of its eigenvalues are zero."""

    ratio: float
    n_null: int


def _identity(u: torch.Tensor) -> torch.Tensor:
    return u


def _square(u: torch.Tensor) -> torch.Tensor:
    return u * u


#: What is promised, what is not but holds, and three ways to fail.
CASES = (
    Case("ReLU, L = 2", 2, 0.1, "relu", True),
    Case("ReLU, L = 3", 3, 0.1, "relu", True),
    Case("ReLU, L = 4", 4, 0.1, "relu", True),
    Case("ReLU, L = 3, no bias", 3, 0.0, "relu", False),
    Case("ReLU, L = 2, no bias", 2, 0.0, "relu", False),
    Case("σ(x) = x, L = 2", 2, 0.1, _identity, False),
    Case("σ(x) = x², L = 2", 2, 0.1, _square, False),
)


def antipodal_pairs(n_pairs: int, n_inputs: int, *, generator: torch.Generator) -> torch.Tensor:
    """Return points u and -u, u uniform on the unit sphere, (2 n_pairs, n_inputs), float64.

    Raises:
        ValueError: no pair, or fewer than two dimensions.
    """
    positive_integer("n_pairs", n_pairs)
    positive_integer("n_inputs", n_inputs, low=2)
    u = torch.randn(
        n_pairs, n_inputs, generator=generator, dtype=torch.float64, device=generator.device
    )
    u = u / u.norm(dim=1, keepdim=True)
    return torch.cat([u, -u])


def definiteness(gram: torch.Tensor, *, threshold: float = THRESHOLD) -> Definiteness:
    """Return lambda_min / lambda_max of a symmetric Gram and the number of its zeros.

    Args:
        gram: (N, N), symmetric, its largest eigenvalue positive.
        threshold: share of lambda_max below which an eigenvalue, of either sign, counts as zero.

    Raises:
        ValueError: no square matrix, no positive eigenvalue, a negative threshold.
    """
    gram = finite("gram", gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise ValueError(f"gram must be (N, N) with N of at least 1, got {tuple(gram.shape)}")
    threshold = within("threshold", threshold, 0.0, 1.0).item()
    eigenvalues = torch.linalg.eigvalsh(gram)
    largest = eigenvalues[-1].item()
    if largest <= 0:
        raise ValueError(f"gram must have a positive eigenvalue, the largest is {largest:g}")
    n_null = int((eigenvalues.abs() < threshold * largest).sum())
    return Definiteness(eigenvalues[0].item() / largest, n_null)


def definiteness_of(case: Case, points: torch.Tensor) -> Definiteness:
    """Return the definiteness of a case's Theta^(L) on points of the unit sphere, (N, n_0).

    Raises:
        ValueError: points off the unit sphere, on which the proposition says nothing.
    """
    norms = finite("points", points).norm(dim=1)
    if ((norms - 1.0).abs() > 1e-9).any():
        worst = norms[(norms - 1.0).abs().argmax()].item()
        raise ValueError(f"points must lie on the unit sphere, got one of norm {worst:g}")
    _, theta = dual_kernel(
        points, depth=case.depth, bias_scale=case.bias_scale, activation=case.activation
    )
    return definiteness(theta)
