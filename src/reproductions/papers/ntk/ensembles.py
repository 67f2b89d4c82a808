"""Ensembles of random networks: one experiment at several widths, and what its spread tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from reproductions._validate import positive_integer

from .limits import Law
from .networks import seeds_from

__all__ = [
    "covariance_scores",
    "coverage",
    "excess_kurtosis",
    "in_errors",
    "kernel_bias",
    "least_step",
    "over_widths",
    "pooled",
    "scaled_bias",
]

T = TypeVar("T")


def over_widths(
    experiment: Callable[..., T], ensembles: Mapping[int, int], seed: int, *args, **options: Any
) -> dict[int, T]:
    """``experiment(width, seeds, *args, **options)`` for every width, with seeds of its own.

    Args:
        experiment: ``initial_kernels``, ``movement``, ``trace`` and the like.
        ensembles: width -> number of networks.
        seed: of the whole; a width keeps its networks when others are added.

    Raises:
        ValueError: a width or a number of networks below 1, a negative ``seed``; errors of the
            experiment.
    """
    positive_integer("seed", seed, low=0)
    found = {}
    for width, n in ensembles.items():
        positive_integer("width", width)
        mixed = np.random.SeedSequence([seed, width]).generate_state(1).item()
        found[width] = experiment(width, seeds_from(mixed, n), *args, **options)
    return found


def pooled(
    groups: Sequence[Mapping[int, T]], measure: Callable[[T, int], torch.Tensor]
) -> dict[int, torch.Tensor]:
    """``measure(result, k)`` of group k's result at every width, all groups joined.

    Raises:
        ValueError: no groups, or groups of different widths.
    """
    named = [set(group) for group in groups]
    if not named or any(widths != named[0] for widths in named):
        found = ", ".join(str(sorted(widths)) for widths in named)
        raise ValueError(f"groups must have results at the same widths, got {found or 'none'}")
    return {
        width: torch.cat([measure(group[width], k) for k, group in enumerate(groups)])
        for width in groups[0]
    }


def covariance_scores(outputs: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """How many standard errors E f(x) f(x') of an ensemble (R, N) is from ``covariance`` (N, N).

    The mean of f is zero by symmetry (the last layer's parameters are symmetric), so the moment is
    taken about zero. Positive where the ensemble has more than ``covariance``.

    Raises:
        ValueError: shapes that do not fit, fewer than two networks.
    """
    _at_least_two("outputs", outputs)
    if outputs.ndim != 2 or covariance.shape != (outputs.shape[1], outputs.shape[1]):
        raise ValueError(
            f"covariance must be (N, N) for outputs (R, N), "
            f"got {tuple(covariance.shape)} and {tuple(outputs.shape)}"
        )
    products = outputs[:, :, None] * outputs[:, None, :]
    standard_error = products.std(0) / len(outputs) ** 0.5
    return (products.mean(0) - covariance) / standard_error


def excess_kurtosis(outputs: torch.Tensor) -> torch.Tensor:
    """E f^4 / (E f^2)^2 - 3 over an ensemble (R, N), averaged over the inputs; 0 for a Gaussian.

    Moments are about zero, as in :func:`covariance_scores`. Raises a ValueError for fewer than two
    networks.
    """
    _at_least_two("outputs", outputs)
    second, fourth = outputs.square().mean(0), outputs.pow(4).mean(0)
    return (fourth / second.square() - 3.0).mean()


def kernel_bias(kernels: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of kernels (R, ...) minus the limit (...), and its standard error.

    Raises:
        ValueError: shapes that do not fit, fewer than two kernels.
    """
    _at_least_two("kernels", kernels)
    if limit.shape != kernels.shape[1:]:
        raise ValueError(
            f"limit must have the shape of one kernel, {tuple(kernels.shape[1:])}, "
            f"got {tuple(limit.shape)}"
        )
    return kernels.mean(0) - limit, kernels.std(0) / len(kernels) ** 0.5


def scaled_bias(
    kernels: Mapping[int, torch.Tensor], limit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Width times bias, the widths weighted by their precision, and its standard error.

    If the bias is c / n, every width's n * bias is an estimate of c; this is the best of their
    averages. Arguments as for :func:`kernel_bias`, one ensemble a width.
    """
    scaled = [(n, *kernel_bias(k, limit)) for n, k in kernels.items()]
    weight = torch.stack([(n * se) ** -2 for n, _, se in scaled])
    value = torch.stack([n * gap for n, gap, _ in scaled])
    return (weight * value).sum(0) / weight.sum(0), weight.sum(0) ** -0.5


def coverage(outputs: torch.Tensor, law: Law, *, least_sd: float = 0.05) -> torch.Tensor:
    """Whether each of R functions (R, M) is between the law's 10th and 90th percentile, as 0 and 1.

    Only where the law's standard deviation is above ``least_sd``: (R, number of such points). If
    the functions follow the law, the mean over R is 0.8.

    Raises:
        ValueError: a law of another number of points than the functions, or of several times;
            ``least_sd`` so large that no point is left.
    """
    if outputs.ndim != 2 or law.mean.shape != outputs.shape[1:]:
        raise ValueError(
            f"outputs must be (R, M) for a law at one time with a mean (M,), "
            f"got {tuple(outputs.shape)} and {tuple(law.mean.shape)}"
        )
    counted = law.sd > least_sd
    if not counted.any():
        raise ValueError(
            f"least_sd must be less than the law's largest, {law.sd.max().item():g}, "
            f"got {least_sd:g}"
        )
    low, high = law.quantile(0.1), law.quantile(0.9)
    return ((outputs >= low) & (outputs <= high)).double()[:, counted]


def in_errors(values: torch.Tensor) -> float:
    """Mean of an ensemble (R,) in units of its standard error."""
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values must be (R,) with R of at least 2, got {tuple(values.shape)}")
    return float(values.mean() / (values.std() / len(values) ** 0.5))


def least_step(values: Mapping[int, torch.Tensor]) -> float:
    """Smallest step of the mean from one ensemble (R,) to the next, in its standard errors.

    Positive only if the means ascend all the way. NaN if a value is, such as a half-time that was
    not reached.

    Raises:
        ValueError: fewer than two ensembles, fewer than two values in one.
    """
    rows = list(values.values())
    if len(rows) < 2:
        raise ValueError(f"values must name at least two ensembles, got {list(values)}")
    for key, row in values.items():
        if row.ndim != 1 or len(row) < 2:
            raise ValueError(
                f"values[{key}] must be (R,) with R of at least 2, got {tuple(row.shape)}"
            )
    means = [row.mean() for row in rows]
    errors = [row.var() / len(row) for row in rows]
    steps = [
        (means[k + 1] - means[k]) / (errors[k] + errors[k + 1]).sqrt() for k in range(len(rows) - 1)
    ]
    # unlike Python's min, this one does not pass over NaN
    return torch.stack(steps).min().item()


def _at_least_two(name: str, ensemble: torch.Tensor) -> None:
    # a single one has no spread
    if not ensemble.ndim or len(ensemble) < 2:
        raise ValueError(
            f"{name} must have a row for each of at least 2 networks, got {tuple(ensemble.shape)}"
        )
