"""Max-margin token selection in the Frobenius norm, Att-SVM, solved to rounding.

Tarzanagh, Li, Thrampoulidis and Oymak 2023: gradient descent on the attention matrix W converges in
direction to the matrix of least norm that separates the tokens it selects from all others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from .constraints import of_selection

__all__ = ["AttSVM", "att_svm", "minimum_norm"]

# A margin below this, of constraints whose longest has norm 1 and of a W of norm 1, is rounding.
LEAST_MARGIN = 1e-7


class AttSVM(NamedTuple):
    """Solution of a max-margin problem in the Frobenius norm.

    Attributes:
        W: (..., d, d), NaN where there is none.
        feasible: (...), whether there is one.
        duals: mu_it, multipliers of the constraints, (..., n, T), zero where there is no
            constraint; |W|_F^2 = sum mu. NaN where there is no W.
    """

    W: torch.Tensor
    feasible: torch.Tensor
    duals: torch.Tensor


def att_svm(
    tokens: torch.Tensor,
    queries: torch.Tensor,
    selected: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
) -> AttSVM:
    """Return W^mm = argmin |W|_F with (x_i,sel - x_it)^T W z_i >= 1 for all i and t != sel_i.

    The conditions of Karush, Kuhn and Tucker hold to 1e-9 up to |W| |x| |z| of about 1e6:
    W = sum_it mu_it (x_i,sel - x_it) z_i^T with mu >= 0, and mu_it = 0 unless the constraint is
    tight.

    Leading axes broadcast, so one problem can be solved for many selections.

    Args:
        tokens: x_it, (..., n, T, d).
        queries: z_i, (..., n, d).
        selected: sel_i, (..., n), int64, from 0 to T - 1.
        mask: (..., n, T), True where a token may be attended to; all by default. Only these are
            compared with the selected one.

    Returns:
        W, whether it exists, and mu. Two equal tokens, one of them selected, cannot be separated:
        such a problem is infeasible and no error. So is one whose least margin with |W|_F = 1 is
        below 1e-7 of its longest |x_sel - x_t| |z|.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a zero query, a selected
            token out of range or masked.
        RuntimeError: the multipliers found do not solve the problem.
    """
    system, batch = of_selection(tokens, queries, selected, mask)
    w, mu = minimum_norm(system.rows, system.active)
    feasible = w.isfinite().all(1).reshape(batch)
    return AttSVM(system.lift(w, batch), feasible, system.spread(mu, batch))


def minimum_norm(rows: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return w = argmin |w| with <row_j, w> >= 1 for the active j, and mu with w = sum mu_j row_j.

    Args:
        rows: (B, m, k), zero where not active.
        active: (B, m).

    Returns:
        w (B, k) and mu (B, m), both NaN where infeasible.
    """
    # The rows without their rotation, which multipliers do not depend on. Eigenvalues of the Gram
    # matrix would do as well, at half the digits.
    columns = torch.linalg.qr(rows.mT, mode="r")[1]
    longest = columns.norm(dim=1).amax(1)[:, None]
    longest = torch.where(longest > 0, longest, 1.0)
    unit_columns = (columns / longest[..., None]).numpy()
    mu = np.zeros(active.shape)
    for b, used in enumerate(active.numpy()):
        if used.any():
            mu[b, used] = _multipliers(unit_columns[b][:, used])
    mu = torch.from_numpy(mu) / longest**2
    w = (mu[:, None] @ rows)[:, 0]

    def short():
        return 1 - (rows @ w[..., None])[..., 0]

    # W is a small difference of large terms where margins are small: refine what is left
    for _ in range(3):
        rest = torch.where(mu > 0, short(), 0.0)
        again = (rest.abs().amax(1) > 1e-11).nonzero()[:, 0]
        if not len(again):
            break
        for b in again:
            at = mu[b] > 0
            r = np.linalg.qr(columns[b, :, at].numpy(), mode="r")
            change = mu.new_tensor(np.linalg.solve(r, np.linalg.solve(r.T, rest[b, at].numpy())))
            mu[b, at] += change
            w[b] += change @ rows[b, at]
    most = short().masked_fill(~active, -torch.inf).amax(1)
    if (most > 1e-6).any() or (mu < -1e-9 * mu.amax(1, keepdim=True)).any():
        raise RuntimeError(
            f"nonnegative least squares must satisfy every constraint, but one is "
            f"{most.nan_to_num(0.0).max():.1e} short of 1; are tokens too near to one another?"
        )
    return w, mu.clamp_min_(0.0)


def _multipliers(columns: np.ndarray) -> np.ndarray:
    """mu of one problem, its constraints columns (q, m), the longest 1; NaN where infeasible.

    The nearest point to (0, 1) in the cone of the columns (a_j, 1), found by nonnegative least
    squares, leaves a rest in the direction (-w, 1) (least distance programming, Lawson and Hanson
    1974, chapter 23).
    """
    q, m = columns.shape
    cone, target = np.ones((q + 1, m)), np.zeros(q + 1)
    target[-1] = 1
    # In a unit of length in which |w| is large the rest drowns in rounding, so there are two.
    for unit in (1.0, 1e3 * LEAST_MARGIN):
        cone[:-1] = columns / unit
        u, _ = nnls(cone, target, maxiter=30 * m)
        # 1 / (1 + |w|^2) in that unit
        if 1 - u.sum() > 1e-6:
            return u * (u.sum() / ((columns @ u) ** 2).sum())
    return np.full(m, np.nan)
