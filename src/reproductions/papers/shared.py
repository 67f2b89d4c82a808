"""What the modules of several papers need."""

from __future__ import annotations

import math

import torch

from reproductions._validate import positive_integer

__all__ = ["log_steps"]


def log_steps(last: int, n: int) -> list[int]:
    """0 and at most ``n`` step numbers from 1 to ``last``, evenly spaced in their logarithm.

    Early on, where that would be less than a step, several of them are one. Raises a ValueError for
    ``last`` below 1 and for ``n`` below 2, which could not hold both ends.
    """
    positive_integer("last", last)
    positive_integer("n", n, low=2)
    steps = torch.logspace(0, math.log10(last), n, dtype=torch.float64).round()
    return sorted({0, *steps.long().tolist()})
