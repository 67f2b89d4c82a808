"""Max-margin token selection in the nuclear norm, Att-SVM*, with a certificate.

Tarzanagh, Li, Thrampoulidis and Oymak 2023: with W = K Q^T and gradient descent on K and Q, it is
the matrix of least nuclear norm that separates the selected tokens.

With D_j the matrices of the m constraints, and the nuclear norm half the least trace of a positive
semidefinite matrix that has W in its corner, the problem and its dual are

    min 1/2 tr X,         X = [[P, W], [W^T, Q]] >= 0,      s_j = <D_j, W> - 1 >= 0,
    max sum_j lambda_j,   S = 1/2 [[1, -M], [-M^T, 1]] >= 0,  M = sum_j lambda_j D_j,  lambda >= 0,

S >= 0 saying that no singular value of M is above 1. Both are solved together by an interior-point
method: Mehrotra's predictor and corrector in the direction of Helmberg, Kojima and Monteiro. As D_j
has rank one, its linear system is four entrywise products of m x m Gram matrices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from reproductions._validate import within

from .att_svm import minimum_norm
from .constraints import Constraints, of_selection

__all__ = ["NuclearSVM", "att_svm_nuclear"]

MAX_STEPS = 100
# of the tolerance: what rounding off small singular values may cost is left over
CLOSER = 0.01
# how far to go towards the boundary
FRACTION = 0.98
# entries of an m x m matrix over the problems solved together: larger ones leave the cache
BLOCK = 2**17


class NuclearSVM(NamedTuple):
    """Solution of a max-margin problem in the nuclear norm.

    Attributes:
        W: (..., d, d), its least margin 1; NaN where infeasible.
        gap: (...), bound on (|W|_* - least possible) / |W|_*, from a feasible point of the dual
            problem. inf where infeasible.
    """

    W: torch.Tensor
    gap: torch.Tensor


def att_svm_nuclear(
    tokens: torch.Tensor,
    queries: torch.Tensor,
    selected: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    tolerance: float = 1e-9,
) -> NuclearSVM:
    """Return argmin |W|_* with (x_i,sel - x_it)^T W z_i >= 1 for all i and t != sel_i.

    Arguments as for :func:`att_svm`, which decides what is infeasible. Of the matrices within
    ``tolerance`` the one returned has those singular values set to zero that the dual solution
    calls zero, so that its rank can be counted.

    Args:
        tolerance: on the relative gap. It is met or the gap returned says that rounding did not
            permit it.

    Raises:
        ValueError: as :func:`att_svm`; a ``tolerance`` that is not positive.
        RuntimeError: as :func:`att_svm`.
    """
    tolerance = within("tolerance", tolerance, 0.0, open_low=True).item()
    system, batch = of_selection(tokens, queries, selected, mask)
    w, _ = minimum_norm(system.rows, system.active)
    feasible = w.isfinite().all(1)
    gap = torch.where(feasible, 0.0, torch.inf).to(w.dtype)
    # without a constraint W = 0 is the solution already
    todo = (feasible & system.active.any(1)).nonzero()[:, 0]
    shape = (system.deltas.shape[2], system.queries.shape[2])
    size = max(BLOCK // system.active.shape[1] ** 2, 1)
    for block in todo.split(size) if len(todo) else ():
        W, gap[block] = _solve(system.part(block), w[block].unflatten(1, shape), tolerance)
        w[block] = W.flatten(1)
    return NuclearSVM(system.lift(w, batch), gap.reshape(batch))


def _solve(
    system: Constraints, frobenius: torch.Tensor, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """W (B, p, q) and gap (B,), given the solutions in the Frobenius norm."""
    # a unit in which the nuclear norm sought is of order 1, however small the margins
    unit = torch.linalg.matrix_norm(frobenius, "nuc")[:, None, None]
    system = replace(system, deltas=system.deltas * unit)
    W, multipliers = _interior_point(system, frobenius / unit, CLOSER * tolerance)
    M = system.combine(multipliers)
    dual = multipliers.sum(1) / torch.linalg.matrix_norm(M, 2)
    u, sigma, vt = torch.linalg.svd(W, full_matrices=False)
    # Near the end X S = mu 1: of a singular value and of what M's falls short of 1 there, one is
    # small, and zero at the solution.
    short = 1 - ((u.mT @ M) * vt).sum(2)
    fewer = (u * torch.where(sigma > short * sigma[:, :1], sigma, 0.0)[:, None]) @ vt
    (W, gap), (fewer, its_gap) = (_feasible(system, V, dual) for V in (W, fewer))
    better = its_gap <= gap.clamp_min(tolerance)
    W = torch.where(better[:, None, None], fewer, W)
    return W * unit, torch.where(better, its_gap, gap)


def _feasible(
    system: Constraints, W: torch.Tensor, dual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """W scaled to a least margin of 1, and its gap to the value of the dual problem."""
    W = W / system.least(W)[:, None, None]
    return W, (1 - dual / torch.linalg.matrix_norm(W, "nuc")).clamp_min(0.0)


class _Point(NamedTuple):
    """Where the method is: X (B, N, N) with N = p + q, s and lambda (B, m)."""

    X: torch.Tensor
    s: torch.Tensor
    multipliers: torch.Tensor


def _interior_point(
    system: Constraints, frobenius: torch.Tensor, tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """W (B, p, q) and lambda (B, m), their gap ``tolerance`` or as small as rounding permits."""
    n_problems, p, q = frobenius.shape
    W, multipliers = torch.empty_like(frobenius), torch.empty_like(system.deltas[..., 0])
    left, point = torch.arange(n_problems), _start(system, frobenius)
    identity = torch.eye(p + q, dtype=W.dtype)
    for _ in range(MAX_STEPS):
        S = 0.5 * (identity - _corner(system.combine(point.multipliers)))
        primal, dual = _trace(point.X) / 2, point.multipliers.sum(1)
        (x_factor, x_failed), (s_factor, s_failed) = map(torch.linalg.cholesky_ex, (point.X, S))
        # what cannot be factored is nearer to the boundary than rounding permits: stay before it
        inside = (x_failed == 0) & (s_failed == 0)
        at = left[inside]
        W[at], multipliers[at] = point.X[inside, :p, p:], point.multipliers[inside]
        done = (primal - dual <= tolerance * primal) | ~inside
        if done.all():
            break
        if done.any():
            left, system = left[~done], system.part(~done)
            point = _Point(*(t[~done] for t in point))
            x_factor, s_factor = x_factor[~done], s_factor[~done]
        point = _advance(system, point, x_factor, s_factor)
    return W, multipliers


def _start(system: Constraints, frobenius: torch.Tensor) -> _Point:
    """Inside both cones: twice the solution in the Frobenius norm, and half of what M may be."""
    W = 2 * frobenius / system.least(frobenius)[:, None, None]
    X = _corner(W)
    X.diagonal(dim1=1, dim2=2).add_(1.5 * torch.linalg.matrix_norm(W, 2)[:, None])
    s = torch.where(system.active, system.values(W) - 1, 1.0)
    multipliers = torch.where(system.active, 1 / s, 0.0)
    largest = torch.linalg.matrix_norm(system.combine(multipliers), 2)[:, None]
    return _Point(X, s, multipliers / (2 * largest))


def _advance(
    system: Constraints, point: _Point, x_factor: torch.Tensor, s_factor: torch.Tensor
) -> _Point:
    """One step of every problem, given the Cholesky factors of X and S."""
    X, s, multipliers = point
    p, active = system.deltas.shape[2], system.active
    gap = _trace(X) / 2 - multipliers.sum(1)
    Y = torch.cholesky_inverse(s_factor)
    inverse = torch.where(active, 1 / multipliers, 0.0)
    schur = _schur(system, X, Y) + torch.diag_embed(torch.where(active, s * inverse, 1.0))
    schur_factor = _cholesky(schur)

    def values(V):
        return system.values(V[:, :p, p:])

    def change(short):
        """Changes of X, s, S and lambda that raise <D_j, W> - s_j by ``short``."""
        d_lambda = torch.cholesky_solve((short * active)[..., None], schur_factor)[..., 0]
        d_S = -0.5 * _corner(system.combine(d_lambda))
        return -_symmetric(X @ d_S @ Y), -s * inverse * d_lambda, d_S, d_lambda

    def direction(mu, x_second, s_second):
        # to X S = mu and s lambda = mu, less the given products of changes, at lambda as it is ...
        d_X = mu[:, None, None] * Y - X - x_second
        d_s = (mu[:, None] - s_second) * inverse - s * active
        d_S, d_lambda = torch.zeros_like(X), torch.zeros_like(s)
        # ... then to <D_j, W> - s_j = 1 by changing lambda, twice because of rounding
        for _ in range(2):
            more = change(1 + s + d_s - values(X + d_X))
            d_X, d_s, d_S, d_lambda = map(torch.add, (d_X, d_s, d_S, d_lambda), more)
        return d_X, d_s, d_S, d_lambda

    def lengths(d_X, d_s, d_S, d_lambda):
        primal = torch.minimum(_cone_length(x_factor, d_X), _length(s, d_s))
        dual = torch.minimum(_cone_length(s_factor, d_S), _length(multipliers, d_lambda))
        return primal, dual

    d_X, d_s, d_S, d_lambda = direction(torch.zeros_like(gap), torch.zeros_like(X), 0 * s)
    a, b = (t.clamp_max(1.0) for t in lengths(d_X, d_s, d_S, d_lambda))
    predicted = (gap + a * _trace(d_X) / 2 - b * d_lambda.sum(1)) / gap
    mu = gap / (X.shape[1] + active.sum(1)) * predicted.clamp(0.0, 1.0).square()
    d_X, d_s, d_S, d_lambda = direction(mu, _symmetric(d_X @ d_S @ Y), d_s * d_lambda)
    a, b = ((FRACTION * t).clamp_max(1.0)[:, None] for t in lengths(d_X, d_s, d_S, d_lambda))
    return _Point(X + a[..., None] * d_X, s + a * d_s, multipliers + b * d_lambda)


def _schur(system: Constraints, X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """<D_i, X D_j Y> of the constraints as symmetric N x N matrices, (B, m, m)."""
    a, b, p = system.deltas, system.queries, system.deltas.shape[2]
    (x_aa, x_ab, x_bb), (y_aa, y_ab, y_bb) = (
        (a @ V[:, :p, :p] @ a.mT, a @ V[:, :p, p:] @ b.mT, b @ V[:, p:, p:] @ b.mT) for V in (X, Y)
    )
    return (x_aa * y_bb + x_bb * y_aa + x_ab.mT * y_ab + x_ab * y_ab.mT) / 4


def _cholesky(V: torch.Tensor) -> torch.Tensor:
    """Cholesky factors, of a larger diagonal where equal constraints and rounding require one."""
    factor, failed = torch.linalg.cholesky_ex(V)
    for digits in range(15, 7, -1):
        again = (failed > 0).nonzero()[:, 0]
        if not len(again):
            break
        more = V[again] + torch.diag_embed(10.0**-digits * V[again].diagonal(dim1=1, dim2=2))
        factor[again], failed[again] = torch.linalg.cholesky_ex(more)
    return factor


def _corner(W: torch.Tensor) -> torch.Tensor:
    """[[0, W], [W^T, 0]]."""
    p, q = W.shape[1:]
    V = W.new_zeros(len(W), p + q, p + q)
    V[:, :p, p:], V[:, p:, :p] = W, W.mT
    return V


def _symmetric(V: torch.Tensor) -> torch.Tensor:
    return (V + V.mT) / 2


def _trace(V: torch.Tensor) -> torch.Tensor:
    return V.diagonal(dim1=1, dim2=2).sum(1)


def _length(v: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Largest a with v + a change >= 0, (B,)."""
    return torch.where(change < 0, -v / change, torch.inf).amin(1)


def _cone_length(factor: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Largest a with L L^T + a change positive semidefinite, (B,)."""
    half = torch.linalg.solve_triangular(factor, change, upper=False)
    whole = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    lowest = torch.linalg.eigvalsh(_symmetric(whole))[:, :1]
    return _length(torch.ones_like(lowest), lowest)
