"""Descent on the two problems in the plane, followed step by step, beside the SVMs' directions."""

from __future__ import annotations

from typing import NamedTuple

import torch

from reproductions._validate import positive_integer
from reproductions.kernels.token_descent import token_descent

from ..shared import log_steps
from .att_svm import att_svm
from .nuclear import att_svm_nuclear
from .optimality import optimal
from .problems import Problems, plane

__all__ = ["PlanarRun", "level_line", "log_length", "planar_run", "small_factors"]


class PlanarRun(NamedTuple):
    """One problem in the plane; every vector W z_i lives in the space of the tokens.

    Attributes:
        problem: a batch of one.
        selected: the optimal tokens, (n,).
        frobenius, nuclear: the two SVM solutions, (2, 2).
        path: W(k) z_i of the descent on W, (S, n, 2), at steps even in their logarithm.
        factor_path: the same for W = K Q^T.
    """

    problem: Problems
    selected: torch.Tensor
    frobenius: torch.Tensor
    nuclear: torch.Tensor
    path: torch.Tensor
    factor_path: torch.Tensor


def small_factors(
    count: int, d: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw starts of (K, Q) as in the authors' plane: K = 0.1 N(0, 1), Q = 0; (count, d, d)."""
    K = 0.1 * torch.randn((count, d, d), generator=generator, dtype=torch.float64)
    return K, torch.zeros_like(K)


def planar_run(name: str, *, n_steps: int, generator: torch.Generator) -> PlanarRun:
    """Run both descents with normalized steps of 0.1, from W = 0 and from small random factors.

    Args:
        name: a problem of :func:`plane`.
        n_steps: steps of each.
        generator: draws K.

    Raises:
        ValueError: another name, n_steps below 1.
    """
    problem = plane(name)
    positive_integer("n_steps", n_steps)
    tokens, labels, queries, head = problem
    selected = optimal(tokens, labels, head)
    steps = {"learning_rate": 0.1, "n_steps": n_steps, "record": log_steps(n_steps, 200)}
    zero = torch.zeros(1, 2, 2, dtype=torch.float64)
    runs = [
        token_descent(*problem, start, **steps).W[:, 0]
        for start in (zero, small_factors(1, 2, generator))
    ]
    return PlanarRun(
        problem,
        selected[0],
        att_svm(tokens, queries, selected).W[0],
        att_svm_nuclear(tokens, queries, selected).W[0],
        *((w @ queries[0].mT).mT for w in runs),
    )


def log_length(vectors: torch.Tensor, reach: float) -> torch.Tensor:
    """Keep directions and put lengths on a logarithmic scale, the longest ``reach``; (..., 2)."""
    length = vectors.norm(dim=-1, keepdim=True)
    scale = torch.where(length > 0, length.log1p() / length, 1.0)
    return vectors * scale * (reach / length.log1p().max())


def level_line(w: torch.Tensor, level: float | torch.Tensor, half: float = 9.0) -> torch.Tensor:
    """Ends (2, 2) of a piece of the line of points x with w . x = level, ``half`` to each side."""
    across = torch.stack([-w[1], w[0]]) / w.norm()
    return level * w / w.square().sum() + half * torch.stack([-across, across])
