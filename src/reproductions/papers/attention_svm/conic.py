"""The same programs given to a general conic solver, as the authors do, and ranks of solutions."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch

from reproductions._validate import choice, finite, within

from .constraints import checked_selection, checked_tokens

__all__ = ["conic_svm", "numerical_rank"]

_NORMS = {"frobenius": "fro", "nuclear": "nuc"}


def conic_svm(
    tokens: torch.Tensor,
    queries: torch.Tensor,
    selected: torch.Tensor,
    *,
    norm: str,
    solver: str,
) -> torch.Tensor:
    """Minimize |W| subject to (x_selected - x_t)^T W z >= 1 with CVXPY, one problem at a time.

    The nuclear norm becomes a semidefinite program, the Frobenius norm a second-order cone. The
    solver's accuracy is left at its default, which is what this function is for: compare with
    ``att_svm`` and ``att_svm_nuclear``, whose solutions carry certificates.

    Args:
        tokens: (..., n, T, d).
        queries: (..., n, d).
        selected: (..., n).
        norm: ``"frobenius"`` or ``"nuclear"``.
        solver: a name that CVXPY knows, such as ``"SCS"`` or ``"CLARABEL"``.

    Returns:
        W of shape (..., d, d), NaN where the solver found no solution or gave up.

    Raises:
        ValueError: another norm, a solver that is not installed, tokens, queries and selected as
            ``att_svm`` refuses them.
    """
    import cvxpy  # takes a second to import

    choice("norm", norm, _NORMS)
    choice("solver", solver, cvxpy.installed_solvers())
    tokens, queries, batch = checked_tokens(tokens, queries)
    n, n_tokens, d = tokens.shape[-3:]
    selected, batch = checked_selection(selected, n, n_tokens, batch)
    solutions = torch.full((*batch, d, d), torch.nan, dtype=torch.float64)
    for found, x, z, alpha in zip(
        solutions.view(-1, d, d),
        tokens.expand(*batch, -1, -1, -1).reshape(-1, n, n_tokens, d).numpy(),
        queries.expand(*batch, -1, -1).reshape(-1, n, d).numpy(),
        selected.expand(*batch, -1).reshape(-1, n).tolist(),
        strict=True,
    ):
        w = cvxpy.Variable((d, d))
        margins = [(x[i, a] - np.delete(x[i], a, axis=0)) @ w @ z[i] for i, a in enumerate(alpha)]
        program = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.norm(w, _NORMS[norm])), [m >= 1 for m in margins]
        )
        with suppress(cvxpy.SolverError):
            program.solve(solver=solver)
        if w.value is not None:
            found.copy_(torch.as_tensor(w.value))
    return solutions


def numerical_rank(w: torch.Tensor, tolerance: float, *, relative: bool = True) -> torch.Tensor:
    """Count the singular values of W (..., d, d) above a tolerance.

    With ``relative`` the tolerance is in units of the largest singular value, and absolute
    otherwise.

    Raises:
        ValueError: a tolerance that is not greater than 0, a W that is not finite, as that of an
            infeasible problem.
    """
    within("tolerance", tolerance, 0.0, open_low=True)
    values = torch.linalg.svdvals(finite("w", w))
    return (values > (tolerance * values[..., :1] if relative else tolerance)).sum(-1)
