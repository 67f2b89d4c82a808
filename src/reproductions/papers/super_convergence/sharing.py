"""Cut many networks into stacks so that a few workers are done at about the same time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

__all__ = ["even_parts", "share_out"]

T = TypeVar("T")

#: a step of a stack costs as much as one of so many networks more than it holds
OVERHEAD = 0.25


def share_out(
    groups: Sequence[tuple[int, Sequence[T]]], *, largest: int, workers: int
) -> list[list[T]]:
    """Stacks in the order in which idle workers should take them, the most work first.

    A group is cut into as few stacks as ``largest`` allows, or into a multiple of the number of
    workers where the last worker is done earlier for that. A stack of m networks that take n steps
    is reckoned as n (m + ``OVERHEAD``).

    Args:
        groups: (number of steps, networks) of networks that can be stacked.
        largest: networks of a stack, at most.
        workers: stacks that are trained at a time.
    """
    order = sorted(groups, key=lambda group: group[0] * len(group[1]), reverse=True)
    plan = [
        (n_steps, even_parts(members, -(-len(members) // largest))) for n_steps, members in order
    ]
    for k, (n_steps, parts) in enumerate(plan):
        members = [member for part in parts for member in part]
        more = min(-(-len(parts) // workers) * workers, len(members))
        other = [*plan[:k], (n_steps, even_parts(members, more)), *plan[k + 1 :]]
        if _duration(other, workers) < _duration(plan, workers):
            plan = other
    return [part for _, part in _by_work(plan)]


def even_parts(members: Sequence[T], n_parts: int) -> list[list[T]]:
    """Cut a list into so many parts of nearly equal length."""
    size, rest = divmod(len(members), n_parts)
    ends = [k * size + min(k, rest) for k in range(n_parts + 1)]
    return [list(members[a:b]) for a, b in pairwise(ends)]


def _by_work(plan: Sequence[tuple[int, list[list[T]]]]) -> list[tuple[float, list[T]]]:
    """(work, stack), the most work first."""
    stacks = [(n * (len(part) + OVERHEAD), part) for n, parts in plan for part in parts]
    return sorted(stacks, key=lambda stack: stack[0], reverse=True)


def _duration(plan: Sequence[tuple[int, list[list[T]]]], workers: int) -> float:
    """When the last worker is done if whoever is idle takes the next stack."""
    done = [0.0] * workers
    for work, _ in _by_work(plan):
        first = min(range(workers), key=done.__getitem__)
        done[first] += work
    return max(done)
