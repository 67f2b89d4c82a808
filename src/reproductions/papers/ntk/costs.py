"""What an exact tangent kernel costs, counted: from the Jacobian, and from its structure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from reproductions._validate import positive_integer

from .networks import checked_widths

__all__ = ["KernelCost", "jacobian_cost", "structured_cost"]


class KernelCost(NamedTuple):
    """Multiply-adds of matrix products, and numbers held at once beside network and kernel."""

    operations: int
    numbers: int


def _sizes(widths: Sequence[int], n_inputs: int) -> tuple[int, int]:
    """Numbers of weights and of biases, the arguments checked."""
    widths = checked_widths(widths)
    positive_integer("n_inputs", n_inputs)
    return sum(a * b for a, b in pairwise(widths)), sum(widths[1:])


def jacobian_cost(widths: Sequence[int], n_inputs: int) -> KernelCost:
    """The Jacobian J (N, P) of one output, then J J^T.

    One forward and one backward pass through W weights, 2 N W, and one Gram matrix over all P
    parameters, N^2 P; J takes N P numbers. Its entries, products of two numbers, are not counted.

    Args:
        widths: n_0, ..., n_L.
        n_inputs: N.

    Raises:
        ValueError: fewer than two widths; a width or ``n_inputs`` below 1.
    """
    weights, biases = _sizes(widths, n_inputs)
    parameters = weights + biases
    return KernelCost(2 * n_inputs * weights + n_inputs**2 * parameters, n_inputs * parameters)


def structured_cost(widths: Sequence[int], n_inputs: int) -> KernelCost:
    """The sum over layers of (A^T A / n + beta^2) * (G^T G) for one output.

    One forward and one backward pass through W weights, 2 N W, and two Gram matrices a layer,
    N^2 sum (n_l + n_{l+1}); A and G take N sum (n_l + n_{l+1}) numbers. What need not be formed,
    the derivative by the inputs and products with the last G of ones, is counted all the same.
    Arguments and errors as for :func:`jacobian_cost`.
    """
    weights, _ = _sizes(widths, n_inputs)
    sides = sum(widths[:-1]) + sum(widths[1:])
    return KernelCost(2 * n_inputs * weights + n_inputs**2 * sides, n_inputs * sides)
