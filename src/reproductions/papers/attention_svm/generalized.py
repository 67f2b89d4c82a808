"""Several tokens kept in a sequence: the generalized SVM and the finite part of W.

Tarzanagh, Li, Thrampoulidis and Oymak 2023: with a nonlinear head the attention may keep several
tokens. Then W = C W^mm + W^fin: the part that grows cuts off the other tokens and does not tell the
kept ones apart; the finite part gives these their attention.
"""

from __future__ import annotations

import torch

from reproductions._validate import within

from .att_svm import LEAST_MARGIN, AttSVM, minimum_norm
from .constraints import Constraints, between, checked, checked_tokens

__all__ = ["finite_part", "generalized_svm"]


def generalized_svm(tokens: torch.Tensor, queries: torch.Tensor, kept: torch.Tensor) -> AttSVM:
    """Return W^mm = argmin |W|_F that separates the kept tokens, all alike, from the others.

    (x_it - x_i,tau)^T W z_i is to be at least 1 if t is kept and tau is not, and 0 if both are
    kept. With one token kept in each sequence this is :func:`att_svm`, whose remarks on accuracy
    hold.

    Args:
        tokens: x_it, (..., n, T, d).
        queries: z_i, (..., n, d).
        kept: (..., n, T) booleans, at least one in each sequence.

    Returns:
        W, whether it exists, and multipliers: with r_i the first token kept in sequence i,
        W = sum_it mu_it (x_i,r_i - x_it) z_i^T, mu >= 0 where t is not kept, of either sign where
        it is. |W|_F^2 is the sum of mu over the tokens not kept.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a zero query, a sequence
            that keeps no token.
        RuntimeError: the multipliers found do not solve the problem.
    """
    system, equal, batch = _system(tokens, queries, kept)
    rows = system.rows
    # Least-norm solutions are combinations of the rows, less their part in the equalities' span.
    u, inverse, vt = _inverse(rows * equal[..., None])
    free = rows
    for _ in range(2):  # once leaves rounding of the size of what it took away
        free = free - (free @ vt.mT) @ vt
    unequal = system.active & ~equal
    longest = rows.norm(dim=2).amax(1)[:, None]
    # what is left of a token in the others' span is rounding, and no direction to separate it in
    free = free * (unequal & (free.norm(dim=2) > LEAST_MARGIN * longest))[..., None]
    w, mu = minimum_norm(free, unequal)
    pull = vt @ (mu[:, None] @ rows).mT
    mu = mu - (u @ (inverse[..., None] * pull))[..., 0] * equal
    feasible = w.isfinite().all(1).reshape(batch)
    return AttSVM(system.lift(w, batch), feasible, system.spread(mu, batch))


def finite_part(
    tokens: torch.Tensor, queries: torch.Tensor, attention: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """Return W^fin = argmin |W|_F that gives the kept tokens their attention, among themselves.

    (x_it - x_i,tau)^T W z_i = log(s_it / s_i,tau) for all t, tau kept in i. Where tokens are so
    dependent that no W has these ratios, the least squares solution over the ratios to the first
    kept token of a sequence. Zero where one token is kept in each.

    Args:
        tokens: x_it, (..., n, T, d).
        queries: z_i, (..., n, d).
        attention: s_it, (..., n, T), from 0 to 1, positive where kept.
        kept: (..., n, T) booleans, at least one in each sequence.

    Returns:
        (..., d, d).

    Raises:
        ValueError: as :func:`generalized_svm`; attention outside [0, 1], or zero at a kept token.
    """
    attention, kept = within("attention", attention, 0.0, 1.0), torch.as_tensor(kept)
    attention, batch = checked("attention", attention, kept.shape[-2:], kept.shape[:-2])
    attention, kept = (t.expand(*batch, *kept.shape[-2:]) for t in (attention, kept))
    system, equal, batch = _system(tokens, queries, kept)
    if (attention[kept] == 0).any():
        raise ValueError("attention must be positive where a token is kept, got 0")
    log = attention.log()
    ratios = log.gather(-1, kept.long().argmax(-1, keepdim=True)) - log
    ratios = ratios.expand(*batch, *system.n_tokens).reshape(
        len(equal), kept.shape[-2] * kept.shape[-1]
    )
    ratios = torch.where(equal, ratios.gather(1, system.place), 0.0)
    u, inverse, vt = _inverse(system.rows * equal[..., None])
    w = vt.mT @ (inverse[..., None] * (u.mT @ ratios[..., None]))
    return system.lift(w[..., 0], batch)


def _system(
    tokens: torch.Tensor, queries: torch.Tensor, kept: torch.Tensor
) -> tuple[Constraints, torch.Tensor, torch.Size]:
    """Check the arguments; differences to the first kept tokens, which are between kept ones."""
    tokens, queries, batch = checked_tokens(tokens, queries)
    n, n_tokens, d = tokens.shape[-3:]
    kept, batch = checked("kept", kept, (n, n_tokens), batch, torch.bool)
    if not kept.any(-1).all():
        raise ValueError("kept must name at least one token in each sequence, got none in one")
    kept = kept.expand(*batch, n, n_tokens).reshape(-1, n, n_tokens)
    first = kept.long().argmax(-1)
    system = between(
        tokens.expand(*batch, n, n_tokens, d).reshape(-1, n, n_tokens, d),
        queries.expand(*batch, n, d).reshape(-1, n, d),
        first,
        torch.ones_like(kept).scatter_(2, first[..., None], False),
    )
    return system, kept.flatten(1).gather(1, system.place) & system.active, batch


def _inverse(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular vectors U (B, m, r) and V^T (B, r, k) of rows, and 1 / sigma, 0 where sigma is 0."""
    u, sigma, vt = torch.linalg.svd(rows, full_matrices=False)
    positive = sigma > 1e-12 * sigma[:, :1]
    return u, torch.where(positive, 1 / sigma, 0.0), vt * positive[..., None]
