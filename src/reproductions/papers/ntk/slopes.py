"""Exponents in the width, from replicas: least squares on logarithms, and a bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from reproductions._validate import choice, finite, positive_integer, within

__all__ = ["Slope", "width_slope"]

STATISTICS = ("rms", "mean")

#: resampled values held at a time: 32 MB
_CHUNK = 1 << 22


class Slope(NamedTuple):
    """Exponent of a power law, its 95 % bootstrap interval and bootstrap standard deviation."""

    slope: float
    low: float
    high: float
    sd: float


def width_slope(
    values: torch.Tensor | Sequence[torch.Tensor],
    widths: Sequence[float] | torch.Tensor,
    *,
    statistic: str = "rms",
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Slope:
    """Return the least-squares slope of log(statistic over the replicas) against log(width).

    The interval resamples the replicas with replacement, independently for every width, and takes
    the 2.5 and 97.5 percentiles of the slopes. With few replicas it is too narrow, as bootstrap
    intervals are: the variance it sees at a width is (R - 1) / R of the unbiased one.

    Args:
        values: one number per width and replica, (W, R), or W vectors of any lengths from 2.
        widths: W widths, greater than 0, at least two of them different.
        statistic: ``"rms"`` (root mean square) or ``"mean"``.
        n_bootstrap: resamples.
        seed: of the resampling.

    Raises:
        ValueError: shapes that do not fit, a width with fewer than two replicas, values that are
            not finite, a statistic that is not positive at some width or in some resample.
    """
    choice("statistic", statistic, STATISTICS)
    positive_integer("n_bootstrap", n_bootstrap, low=2)
    widths = within("widths", widths, 0.0, open_low=True).cpu()
    rows = [finite("values", row).cpu() for row in values]
    if widths.ndim != 1 or len(rows) != len(widths) or len(widths.unique()) < 2:
        raise ValueError(
            f"widths must name at least two different widths, one for each row of values; "
            f"got {widths.tolist()} for {len(rows)} rows"
        )
    if any(row.ndim != 1 or len(row) < 2 for row in rows):
        shapes = [tuple(row.shape) for row in rows]
        raise ValueError(f"values must hold at least two replicas per width, got rows of {shapes}")
    generator = torch.Generator().manual_seed(seed)
    if statistic == "rms":
        rows = [row.square() for row in rows]
    found = torch.stack([row.mean() for row in rows])
    resampled = torch.stack([_resampled_means(row, n_bootstrap, generator) for row in rows])
    smallest = torch.minimum(found, resampled.amin(1))
    if not (smallest > 0).all():
        raise ValueError(
            f"values must have a positive {statistic} in every resample, "
            f"got {smallest.min():g} at width {widths[smallest.argmin()]:g}"
        )
    x = widths.log()
    x = x - x.mean()
    # the root of the mean square halves its logarithm
    x = x / (x.square().sum() * (2.0 if statistic == "rms" else 1.0))
    slopes = x @ resampled.log()
    low, high = torch.quantile(slopes, slopes.new_tensor([0.025, 0.975])).tolist()
    return Slope((x @ found.log()).item(), low, high, slopes.std().item())


def _resampled_means(row: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """Means (n,) of n resamples of a vector."""
    means = [
        row[torch.randint(len(row), (size, len(row)), generator=generator)].mean(1)
        for size in _pieces(n, max(1, _CHUNK // len(row)))
    ]
    return torch.cat(means)


def _pieces(n: int, size: int) -> list[int]:
    """Sizes of pieces of at most ``size`` that make up ``n``."""
    return [min(size, n - start) for start in range(0, n, size)]
