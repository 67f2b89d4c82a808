"""The random problems of the paper's experiments, and its two problems in the plane.

Tokens, queries and the head are random directions. As in the authors' code each problem is drawn
in float32 from a generator seeded with its own number, in the order head, labels, tokens, queries,
and converted to float64, so that the problems are theirs, number by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from reproductions._validate import positive_integer

__all__ = [
    "Problems",
    "causal",
    "default_start",
    "draw",
    "factor_start",
    "plane",
    "seeds_from",
]


class Problems(NamedTuple):
    """A batch of B problems, in the order in which every function of this package takes them.

    Attributes:
        tokens: x_it, (B, n, T, d).
        labels: y_i = +-1, (B, n).
        queries: z_i, (B, n, d).
        head: v, (B, d).
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    queries: torch.Tensor
    head: torch.Tensor

    def part(self, which: torch.Tensor | slice) -> Problems:
        """The problems named by an index, a mask or a slice."""
        return Problems(*(t[which] for t in self))


def seeds_from(seed: int, count: int) -> range:
    """The numbers of ``count`` problems; ``seed`` 0 gives those of the authors, from 0 on.

    Raises:
        ValueError: a negative seed, or a count outside 1 to 100 000, the distance between seeds.
    """
    positive_integer("seed", seed, low=0)
    if positive_integer("count", count) > 100_000:
        raise ValueError(f"count must be at most 100000, got {count}")
    return range(100_000 * seed, 100_000 * seed + count)


def _unit(*shape: int, generator: torch.Generator) -> torch.Tensor:
    rows = torch.randn(shape, generator=generator)
    return rows / rows.norm(dim=-1, keepdim=True)


def draw(seeds: Sequence[int], *, n: int, n_tokens: int, d: int) -> Problems:
    """Draw one problem a seed: unit vectors for tokens, queries and head, labels by a fair coin.

    Args:
        seeds: one nonnegative integer a problem.
        n: sequences of a problem.
        n_tokens: T, tokens of a sequence, at least 2.
        d: dimension.

    Raises:
        ValueError: no seed, or one below 0; n or d below 1, n_tokens below 2.
    """
    positive_integer("n", n)
    positive_integer("n_tokens", n_tokens, low=2)
    positive_integer("d", d)
    drawn = []
    for seed in _checked(seeds):
        g = torch.Generator().manual_seed(seed)
        head = _unit(d, generator=g)
        labels = torch.where(torch.randn(n, generator=g) > 0, 1.0, -1.0)
        drawn.append((_unit(n, n_tokens, d, generator=g), labels, _unit(n, d, generator=g), head))
    return Problems(*(torch.stack(part).double() for part in zip(*drawn, strict=True)))


def plane(name: str) -> Problems:
    """Return one of the two problems in the plane that the paper draws, as a batch of one.

    ``"three tokens"``: two clouds of three tokens about (-1, 0) and (1, 0).
    ``"five tokens"``: two tokens placed by hand at (1, 0.5) and (1, -0.5), and four each about
    (-1, 0). All labels are +1. The settings are those of the authors' notebooks.

    Raises:
        ValueError: another name.
    """
    seeds = {"three tokens": 1, "five tokens": 3}
    if name not in seeds:
        raise ValueError(f"name must be one of {', '.join(seeds)}; got {name!r}")
    g = torch.Generator().manual_seed(seeds[name])
    head = _unit(2, generator=g)
    if name == "three tokens":
        tokens = 0.3 * torch.randn((2, 3, 2), generator=g)
        tokens += torch.tensor([[[-1.0, 0.0]], [[1.0, 0.0]]])
    else:
        tokens = 0.5 * torch.randn((2, 5, 2), generator=g)
        tokens[:, 0] = torch.tensor([[1.0, 0.5], [1.0, -0.5]])
        tokens[:, 1:] += torch.tensor([-1.0, 0.0])
    queries = _unit(2, 2, generator=g)
    return Problems(*(t.double()[None] for t in (tokens, torch.ones(2), queries, head)))


def default_start(seeds: Sequence[int], d: int) -> torch.Tensor:
    """Draw W(0) of shape (B, d, d) as PyTorch initializes a layer: uniform within 1/sqrt(d).

    The authors do not seed it; here each problem has a generator of its own.

    Raises:
        ValueError: no seed, or one below 0; d below 1.
    """
    return _uniform(seeds, d, d)


def factor_start(seeds: Sequence[int], d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw K(0) and Q(0), each (B, d, d), in the same way.

    Raises:
        ValueError: no seed, or one below 0; d below 1.
    """
    K, Q = _uniform(seeds, d, 2 * d).chunk(2, dim=2)
    return K.contiguous(), Q.contiguous()


def _uniform(seeds: Sequence[int], d: int, columns: int) -> torch.Tensor:
    positive_integer("d", d)
    drawn = []
    for seed in _checked(seeds):
        # another generator than that of the problem itself
        g = torch.Generator().manual_seed(1_000_003 * (seed + 1))
        drawn.append(torch.rand((d, columns), generator=g, dtype=torch.float64))
    return (2 * torch.stack(drawn) - 1) / d**0.5


def _checked(seeds: Sequence[int]) -> Sequence[int]:
    if not len(seeds):
        raise ValueError("seeds must name at least one problem, got none")
    for seed in seeds:
        positive_integer("seed", seed, low=0)
    return seeds


def causal(
    tokens: torch.Tensor, labels: torch.Tensor, *, all_positions: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make one row of every position of every sequence: its token is the query.

    Args:
        tokens: (..., n, T, d).
        labels: one for each position, (..., n, T).
        all_positions: let every position see the whole sequence; by default token t sees
            tokens 1 to t.

    Returns:
        tokens (..., nT, T, d), labels (..., nT), queries (..., nT, d), mask (..., nT, T).

    Raises:
        ValueError: tokens with fewer axes, labels of another shape.
    """
    if tokens.ndim < 3:
        raise ValueError(f"tokens must be (..., n, T, d), got {tuple(tokens.shape)}")
    *batch, n, length, d = tokens.shape
    if labels.shape != tokens.shape[:-1]:
        wanted, got = tuple(tokens.shape[:-1]), tuple(labels.shape)
        raise ValueError(f"labels must have the shape of the positions {wanted}, got {got}")
    rows = tokens.unsqueeze(-3).expand(*batch, n, length, length, d)
    seen = torch.ones(length, length, dtype=torch.bool, device=tokens.device)
    if not all_positions:
        seen = seen.tril()
    return (
        rows.reshape(*batch, n * length, length, d),
        labels.reshape(*batch, n * length),
        tokens.reshape(*batch, n * length, d),
        seen.repeat(n, 1).expand(*batch, n * length, length),
    )
