"""The constraints of max-margin token selection, in no more coordinates than they need.

A constraint is <D, W> = delta^T W z >= 1 with D = delta z^T, delta the difference of two tokens of
a sequence and z its query. Solutions are combinations of the D's, so a side with fewer vectors than
d needs only as many coordinates; neither norm notices the change of basis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reproductions._validate import finite

__all__ = [
    "Constraints",
    "between",
    "checked",
    "checked_selection",
    "checked_tokens",
    "common_batch",
    "of_selection",
]


@dataclass(frozen=True, eq=False)
class Constraints:
    """m constraints for each of B problems; a problem with fewer is padded with zeros.

    Attributes:
        deltas: (B, m, p), coordinates of the differences of tokens, p <= d.
        queries: (B, m, q), coordinates of the query of each constraint, q <= d.
        active: (B, m), False for padding.
        place: (B, m), where a constraint is among the n T tokens of its problem.
        n_tokens: (n, T).
        left, right: orthonormal columns (B, d, p) and (B, d, q); None for the identity.
    """

    deltas: torch.Tensor
    queries: torch.Tensor
    active: torch.Tensor
    place: torch.Tensor
    n_tokens: tuple[int, int]
    left: torch.Tensor | None
    right: torch.Tensor | None

    @property
    def rows(self) -> torch.Tensor:
        """The matrices D as vectors, (B, m, p q)."""
        return (self.deltas[..., :, None] * self.queries[..., None, :]).flatten(2)

    def values(self, W: torch.Tensor) -> torch.Tensor:
        """<D_j, W> of matrices (B, p, q), one a constraint: (B, m)."""
        return ((self.deltas @ W) * self.queries).sum(2)

    def least(self, W: torch.Tensor) -> torch.Tensor:
        """Smallest of the values of each problem, (B,)."""
        return self.values(W).masked_fill(~self.active, torch.inf).amin(1)

    def combine(self, multipliers: torch.Tensor) -> torch.Tensor:
        """sum_j mu_j D_j of multipliers (B, m): (B, p, q)."""
        return (self.deltas * multipliers[..., None]).mT @ self.queries

    def part(self, which: torch.Tensor) -> Constraints:
        """The problems that an index or a mask names, still in these coordinates."""
        deltas, queries, active, place = (
            t[which] for t in (self.deltas, self.queries, self.active, self.place)
        )
        left, right = (None if t is None else t[which] for t in (self.left, self.right))
        return Constraints(deltas, queries, active, place, self.n_tokens, left, right)

    def lift(self, w: torch.Tensor, batch: torch.Size) -> torch.Tensor:
        """Matrices (*batch, d, d) from vectors of coordinates (B, p q)."""
        W = w.unflatten(1, (self.deltas.shape[2], self.queries.shape[2]))
        if self.left is not None:
            W = self.left @ W
        if self.right is not None:
            W = W @ self.right.mT
        return W.reshape(*batch, *W.shape[1:])

    def spread(self, values: torch.Tensor, batch: torch.Size) -> torch.Tensor:
        """Values of the constraints (B, m) at their tokens, zero elsewhere: (*batch, n, T)."""
        n, n_tokens = self.n_tokens
        placed = values.new_zeros(len(values), n * n_tokens).scatter_add_(1, self.place, values)
        return placed.reshape(*batch, n, n_tokens)


def between(
    tokens: torch.Tensor, queries: torch.Tensor, reference: torch.Tensor, active: torch.Tensor
) -> Constraints:
    """The constraints of (x_ref - x_t) z^T for the tokens t of B problems that ``active`` names.

    Args:
        tokens: (B, n, T, d).
        queries: (B, n, d).
        reference: the token of each sequence that its others are compared with, (B, n).
        active: (B, n, T).
    """
    n, n_tokens, d = tokens.shape[1:]
    at = reference[..., None, None].expand(-1, -1, 1, d)
    deltas = (tokens.gather(2, at) - tokens).flatten(1, 2)
    active = active.flatten(1)
    # the active ones first, then padding up to the greatest number of them
    m = max(active.sum(1).tolist(), default=0) or 1
    place = (~active).long().argsort(dim=1, stable=True)[:, :m]
    active = active.gather(1, place)
    deltas = deltas.gather(1, place[..., None].expand(-1, -1, d)) * active[..., None]
    deltas, left = _coordinates(deltas)
    queries, right = _coordinates(queries)
    sequence = (place // n_tokens)[..., None].expand(-1, -1, queries.shape[2])
    queries = queries.gather(1, sequence)
    return Constraints(deltas, queries, active, place, (n, n_tokens), left, right)


def _coordinates(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Coordinates (B, m, min(m, d)) of rows (B, m, d), and their basis (B, d, m) where m < d."""
    if rows.shape[1] >= rows.shape[2]:
        return rows, None
    basis, r = torch.linalg.qr(rows.mT)
    return r.mT, basis


def of_selection(
    tokens: torch.Tensor,
    queries: torch.Tensor,
    selected: torch.Tensor,
    mask: torch.Tensor | None,
) -> tuple[Constraints, torch.Size]:
    """Check the arguments; the constraints of the selected tokens, and the batch shape."""
    tokens, queries, batch = checked_tokens(tokens, queries)
    n, n_tokens, d = tokens.shape[-3:]
    selected, batch = checked_selection(selected, n, n_tokens, batch)
    if mask is None:
        mask = torch.ones(n, n_tokens, dtype=torch.bool)
    mask, batch = checked("mask", mask, (n, n_tokens), batch, torch.bool)
    selected = selected.expand(*batch, n).reshape(-1, n)
    mask = mask.expand(*batch, n, n_tokens).reshape(-1, n, n_tokens)
    if not mask.gather(2, selected[..., None]).all():
        raise ValueError("selected must name tokens that mask allows, got one that is masked")
    system = between(
        tokens.expand(*batch, n, n_tokens, d).reshape(-1, n, n_tokens, d),
        queries.expand(*batch, n, d).reshape(-1, n, d),
        selected,
        mask.scatter(2, selected[..., None], False),
    )
    return system, batch


def checked_tokens(
    tokens: torch.Tensor, queries: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
    """Return tokens (..., n, T, d) and queries (..., n, d) in float64, and their batch shape."""
    tokens, queries = finite("tokens", tokens), finite("queries", queries)
    if tokens.ndim < 3 or 0 in tokens.shape[-3:]:
        raise ValueError(f"tokens must be (..., n, T, d), none of them 0; got {(*tokens.shape,)}")
    n, _, d = tokens.shape[-3:]
    queries, batch = checked("queries", queries, (n, d), tokens.shape[:-3])
    zero = (queries == 0).all(-1)
    if zero.any():
        raise ValueError(f"queries must not be zero, got {int(zero.sum())} that are")
    return tokens, queries, batch


def checked_selection(
    selected: torch.Tensor, n: int, n_tokens: int, batch: torch.Size
) -> tuple[torch.Tensor, torch.Size]:
    """Return selected tokens (..., n), each from 0 to T - 1, and the batch shape with them."""
    selected, batch = checked("selected", selected, (n,), batch, torch.int64)
    bad = (selected < 0) | (selected >= n_tokens)
    if bad.any():
        got = selected[bad][0].item()
        raise ValueError(f"selected must be from 0 to {n_tokens - 1}, got {got}")
    return selected, batch


def checked(
    name: str,
    value: torch.Tensor,
    shape: tuple[int, ...],
    batch: torch.Size,
    dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Size]:
    """Return ``value`` (..., *shape), of ``dtype`` if one is given, and the batch shape with it."""
    value = torch.as_tensor(value)
    if dtype is not None and value.dtype != dtype:
        raise ValueError(f"{name} must be a tensor of {dtype}, got {value.dtype}")
    lead = value.ndim - len(shape)
    if lead < 0 or value.shape[lead:] != shape:
        wanted = ", ".join(("...", *map(str, shape)))
        raise ValueError(f"{name} must be ({wanted}), got {(*value.shape,)}")
    return value, common_batch(name, batch, value.shape[:lead])


def common_batch(name: str, batch: torch.Size, other: torch.Size) -> torch.Size:
    """Return the shape that the leading axes of ``name`` and of the other arguments share."""
    try:
        return torch.broadcast_shapes(batch, other)
    except RuntimeError:
        raise ValueError(
            f"{name} must have leading axes that fit {(*batch,)}, got {(*other,)}"
        ) from None
