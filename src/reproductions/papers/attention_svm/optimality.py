"""Scores of tokens, margins of a selection, and whether the selection is locally optimal.

Tarzanagh, Li, Thrampoulidis and Oymak 2023.
"""

from __future__ import annotations

import torch

from reproductions._validate import finite, number

from .att_svm import att_svm
from .constraints import checked, checked_selection, checked_tokens, common_batch

__all__ = ["is_locally_optimal", "margins", "optimal", "scores", "support"]


def scores(tokens: torch.Tensor, labels: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Token scores gamma_it = y_i v^T x_it: the larger, the smaller the loss if t is selected.

    Args:
        tokens: x_it, (..., n, T, d).
        labels: y_i = +-1, (..., n).
        head: v, (..., d).

    Returns:
        (..., n, T).

    Raises:
        ValueError: shapes that do not fit, values that are not finite, other labels.
    """
    tokens, labels, head = finite("tokens", tokens), finite("labels", labels), finite("head", head)
    if tokens.ndim < 3:
        raise ValueError(f"tokens must be (..., n, T, d), got {(*tokens.shape,)}")
    n, _, d = tokens.shape[-3:]
    labels, batch = checked("labels", labels, (n,), tokens.shape[:-3])
    head, _ = checked("head", head, (d,), batch)
    if not (labels.abs() == 1).all():
        got = labels[labels.abs() != 1][0].item()
        raise ValueError(f"labels must be +1 or -1, got {got:g}")
    return labels[..., None] * (tokens @ head[..., None, :, None])[..., 0]


def optimal(tokens: torch.Tensor, labels: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """The token of largest score in each sequence, (..., n); arguments as for :func:`scores`."""
    return scores(tokens, labels, head).argmax(-1)


def margins(
    W: torch.Tensor, tokens: torch.Tensor, queries: torch.Tensor, selected: torch.Tensor
) -> torch.Tensor:
    """By how much the logit of the selected token exceeds each: (x_i,sel - x_it)^T W z_i.

    Args:
        W: (..., d, d); NaN is let through, the mark of an infeasible problem.
        tokens: x_it, (..., n, T, d).
        queries: z_i, (..., n, d).
        selected: sel_i, (..., n), int64.

    Returns:
        (..., n, T), 0 at the selected tokens.

    Raises:
        ValueError: shapes that do not fit, tokens or queries that are not finite, a zero query, a
            selected token out of range.
    """
    tokens, queries, batch = checked_tokens(tokens, queries)
    n, n_tokens, d = tokens.shape[-3:]
    selected, batch = checked_selection(selected, n, n_tokens, batch)
    W, _ = checked("W", number("W", W), (d, d), batch)
    at = selected[..., None, None]
    lead = common_batch("selected", tokens.shape[:-3], selected.shape[:-1])
    chosen = tokens.expand(*lead, n, n_tokens, d).gather(-2, at.expand(*lead, n, 1, d))
    return ((chosen - tokens) @ (queries @ W.mT)[..., None])[..., 0]


def support(
    W: torch.Tensor,
    tokens: torch.Tensor,
    queries: torch.Tensor,
    selected: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    slack: float = 1e-6,
) -> torch.Tensor:
    """Whether the constraint of a token is tight, its margin at most 1 + ``slack``.

    Arguments and errors as for :func:`margins`, W a solution of the max-margin problem.

    Args:
        mask: (..., n, T), True where a token may be attended to; all by default.

    Returns:
        (..., n, T) booleans, False at selected and masked tokens and where W is NaN.
    """
    margin = margins(W, tokens, queries, selected)
    tight = margin <= 1 + slack
    if mask is not None:
        tight = tight & checked("mask", mask, tight.shape[-2:], tight.shape[:-2], torch.bool)[0]
    return tight.scatter(-1, selected.expand(tight.shape[:-1])[..., None], False)


def is_locally_optimal(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor,
    selected: torch.Tensor,
    *,
    W: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Whether gamma_i,sel > gamma_it for all i and all support tokens t of the selection.

    Descent on W approaches the max-margin direction of such selections; any other is left for a
    support token with a score as high.

    Args:
        tokens: x_it, (..., n, T, d).
        labels: y_i = +-1, (..., n).
        queries: z_i, (..., n, d).
        head: v, (..., d).
        selected: sel_i, (..., n), int64.
        W: (..., d, d), the solution whose tight constraints count; by default that of
            :func:`att_svm`. For descent on K and Q that of ``att_svm_nuclear``.
        mask: (..., n, T), True where a token may be attended to; all by default.

    Returns:
        (...) booleans, False where the selection is infeasible.

    Raises:
        ValueError: as :func:`scores`, :func:`margins` and :func:`att_svm`.
    """
    if W is None:
        W = att_svm(tokens, queries, selected, mask=mask).W
    tight = support(W, tokens, queries, selected, mask=mask)
    gamma = scores(tokens, labels, head)
    lead = common_batch("labels", tight.shape[:-2], gamma.shape[:-2])
    at = selected.expand(*lead, gamma.shape[-2])[..., None]
    gamma = gamma.expand(*lead, *gamma.shape[-2:])
    below = gamma < gamma.gather(-1, at)
    return (below | ~tight).all((-2, -1)) & torch.as_tensor(W).isfinite().all((-2, -1))
