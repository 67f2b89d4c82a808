"""Is the estimate more than an echo? Its controls, and what training runs make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .estimate import (
    estimate_under_noise,
    learning_rate_estimate,
    noise_estimate_curve,
    noise_ratio,
)
from .training import Outcome

__all__ = [
    "board",
    "noise_checks",
    "over_noise",
    "quadratic_error",
    "rate_in_use",
    "relative_estimate",
]


def rate_in_use(outcome: Outcome, lag: int) -> torch.Tensor:
    """Learning rate of the last update in every estimate, float64 (n_estimates,)."""
    n = len(outcome.estimates[lag])
    return outcome.recipe.rates[2 * lag - 1 :: lag][:n]


def relative_estimate(outcome: Outcome) -> dict[int, torch.Tensor]:
    """Estimates over the rate in use, lag -> float64 (n_estimates, seeds)."""
    return {
        lag: found.double() / rate_in_use(outcome, lag)[:, None]
        for lag, found in outcome.estimates.items()
    }


def over_noise(outcome: Outcome, lag: int) -> torch.Tensor:
    """Estimates over what noise alone gives in Caffe's form, float64 (n_estimates, seeds)."""
    alone = noise_estimate_curve(outcome.recipe.rates, outcome.recipe.momenta, lag)
    return outcome.estimates[lag].double() / alone.to(outcome.estimates[lag].device)[:, None]


def quadratic_error(generator: torch.Generator, *, momentum: float = 0.0) -> float:
    """Largest relative error of the estimate on quadratics a x^2 / 2 of one weight.

    Heavy ball from x = 1 with rates 0.01 to 1 over the curvature; without momentum the estimate is
    1/a exactly.

    Args:
        generator: draws curvatures between 1e-2 and 1e2.
        momentum: of the steps; the identity holds for 0 only.
    """
    n = 50
    curvature = 10 ** (4 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 2)
    rate = 10 ** (2 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 2) / curvature
    x, velocity = torch.ones(n, 1, dtype=torch.float64), 0.0
    path = [x]
    for _ in range(5):
        velocity = momentum * velocity - rate * curvature * x
        x = x + velocity
        path.append(x)
    found = learning_rate_estimate(path, learning_rate=rate[:, 0])
    # where the first step lands in the minimum there is no second one to measure
    moving = (1 - (rate * curvature)[:, 0]).abs() > 1e-3
    return float((found * curvature[:, 0] - 1)[:, moving].abs().max())


def noise_checks(generator: torch.Generator) -> Iterator[tuple[float, int, float]]:
    """(momentum, lag, simulated over predicted ratio) for the settings the chapter quotes."""
    for momentum, lag in ((0.0, 1), (0.9, 1), (0.9, 10), (0.95, 1)):
        simulated = noise_ratio(momentum, lag, n_weights=20_000, n_steps=600, generator=generator)
        yield momentum, lag, float(simulated / estimate_under_noise(momentum, lag))


def board(outcomes: Mapping[str, Outcome], *, lag: int, every: int = 3) -> dict[str, Any]:
    """Settings of the interactive figure: measured estimates of a few runs, median over seeds.

    Args:
        outcomes: label -> outcome of a run along a constant or triangular schedule.
        lag: of the estimates shown.
        every: keep every so many estimates, and the last.
    """
    runs = []
    for label, outcome in outcomes.items():
        rates = outcome.recipe.rates
        low, high = float(rates.min()), float(rates.max())
        found = outcome.estimates[lag].double().median(-1).values
        kept = torch.arange(len(found) - 1, -1, -every).flip(0)
        runs.append(
            {
                "label": label,
                "shape": "constant" if low == high else "one cycle",
                "low": round(low, 4),
                "high": round(high, 4),
                "anneal": 0,
                "momentum": float(outcome.recipe.momenta[0]),
                "lag": lag,
                "steps": ((kept + 2) * lag).tolist(),
                "estimate": [round(v, 4) for v in found[kept].tolist()],
                "rate": [round(v, 5) for v in rate_in_use(outcome, lag)[kept].tolist()],
            }
        )
    cycles = [k for k, run in enumerate(runs) if run["shape"] == "one cycle"]
    n_steps = max(len(outcome.recipe.rates) for outcome in outcomes.values())
    return {"n_steps": n_steps, "runs": runs, "start": cycles[0] if cycles else 0}
