"""Learning-rate schedules as plain vectors (Smith and Topin 2017; Smith 2017, arXiv:1506.01186).

Every function returns a float64 vector of ``n_steps`` rates. Entry t is the rate of the update from
iteration t to t + 1, as in Caffe, so the entries are t = 0, ..., n_steps - 1: a curve that reaches
a value "at the end" reaches it at t = n_steps, one step after its last entry.
``torch.optim.lr_scheduler.OneCycleLR`` lays the same shapes over t = 0, ..., n_steps - 1 instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from reproductions._validate import finite, positive_integer, within

__all__ = [
    "cosine",
    "cyclical_momentum",
    "inverse_decay",
    "linear_decay",
    "one_cycle",
    "piecewise_constant",
    "range_test",
    "triangular",
    "warmed_up",
]


def triangular(n_steps: int, low: float, high: float, n_cycles: int = 1) -> torch.Tensor:
    """Triangular cycles between two rates (Smith 2017; Caffe's policy ``triangular``).

    With s = n_steps / (2 n_cycles), which need not be whole, c = floor(t / 2s) and
    x = |t/s - 2c - 1|: eta(t) = low + (high - low) max(0, 1 - x).

    Args:
        n_steps: iterations of all cycles together.
        low: rate at both ends of a cycle.
        high: rate in its middle.
        n_cycles: number of cycles.

    Returns:
        (n_steps,), float64.

    Raises:
        ValueError: for n_steps or n_cycles below 1, a negative rate, or low above high.
    """
    positive_integer("n_steps", n_steps)
    positive_integer("n_cycles", n_cycles)
    low, high = _ordered(low, high)
    # t/s - 2c in whole numbers: no rounding can move a step into the next cycle
    phase = ((2 * n_cycles * torch.arange(n_steps)) % (2 * n_steps)).double() / n_steps
    return low + (high - low) * (1 - (phase - 1).abs())


def one_cycle(
    n_steps: int, low: float, high: float, *, anneal: float = 0.1, final: float | None = None
) -> torch.Tensor:
    """The 1cycle policy: one triangle, then a fall far below its foot (arXiv:1708.07120v3).

    Linear between the knots (0, low), (N1 / 2, high), (N1, low), (n_steps, final), with
    N1 = (1 - anneal) n_steps.

    Args:
        n_steps: iterations in all.
        low: rate at both feet of the triangle.
        high: largest rate.
        anneal: share of the iterations given to the last fall; 0 leaves the bare triangle.
        final: rate at the end, at most ``low``; low / 100 by default.

    Returns:
        (n_steps,), float64. A knot between two iterations is met by neither, so ``high`` itself
        occurs only where N1 / 2 is whole.

    Raises:
        ValueError: for n_steps below 1, rates that are negative or out of order, or anneal outside
            [0, 1).
    """
    positive_integer("n_steps", n_steps)
    low, high = _ordered(low, high)
    final = low / 100 if final is None else _number("final", final)
    if final > low:
        raise ValueError(f"final must be at most low = {low:g}, got {final:g}")
    share = _share("anneal", anneal)
    t = torch.arange(n_steps, dtype=torch.float64)
    foot = (1 - share) * n_steps
    rise = low + (high - low) * (1 - (2 * t / foot - 1).abs())
    if share == 0:
        return rise
    fall = low + (final - low) * (t - foot) / (n_steps - foot)
    return torch.where(t < foot, rise, fall)


def piecewise_constant(
    n_steps: int, rate: float, drops: Sequence[float] = (5 / 8, 7 / 8), factor: float = 0.1
) -> torch.Tensor:
    """Constant rates with sudden drops (Caffe's ``multistep``); the paper's drops by default.

    The first iteration t with t >= drop n_steps is the first at the lower rate: of 80,000
    iterations, 50,000 and 70,000.

    Args:
        n_steps: iterations in all.
        rate: first rate.
        drops: increasing shares of ``n_steps`` in (0, 1).
        factor: what each drop multiplies the rate by.

    Returns:
        (n_steps,), float64.

    Raises:
        ValueError: for n_steps below 1, a negative rate or factor, or drops that do not increase
            in (0, 1).
    """
    positive_integer("n_steps", n_steps)
    rate, factor = _number("rate", rate), _number("factor", factor)
    if not isinstance(drops, Iterable):
        raise ValueError(f"drops must be a sequence of shares such as (0.5, 0.75), got {drops!r}")
    shares = [_number("drops", drop) for drop in drops]
    if any(not a < b for a, b in zip([0.0, *shares], [*shares, 1.0], strict=True)):
        raise ValueError(f"drops must increase in (0, 1), got {tuple(shares)}")
    # 0.07 * 100 is a little more than 7 in floating point, and the drop belongs to step 7
    steps = torch.tensor([math.ceil(share * n_steps - 1e-9 * n_steps) for share in shares])
    n_drops = (torch.arange(n_steps)[:, None] >= steps).sum(1)
    return rate * torch.tensor(factor, dtype=torch.float64) ** n_drops


def inverse_decay(
    n_steps: int, rate: float, *, gamma: float = 1e-4, power: float = 0.75
) -> torch.Tensor:
    """Caffe's policy ``inv``: eta(t) = rate (1 + gamma t)^(-power), by default as for its LeNet.

    Args:
        n_steps: iterations in all.
        rate: first rate.
        gamma: inverse of the number of iterations after which 2^(-power) of it is left.
        power: exponent of the fall.

    Returns:
        (n_steps,), float64.

    Raises:
        ValueError: for n_steps below 1, or a negative rate, gamma or power.
    """
    positive_integer("n_steps", n_steps)
    rate, gamma, power = (
        _number(name, value) for name, value in (("rate", rate), ("gamma", gamma), ("power", power))
    )
    return rate * (1 + gamma * torch.arange(n_steps, dtype=torch.float64)) ** -power


def range_test(n_steps: int, high: float) -> torch.Tensor:
    """Rates of a learning-rate range test: eta(t) = high t / n_steps, from 0 up.

    Args:
        n_steps: iterations of the test.
        high: rate that the iteration after the last would have.

    Returns:
        (n_steps,), float64.

    Raises:
        ValueError: for n_steps below 1 or a negative rate.
    """
    positive_integer("n_steps", n_steps)
    return _number("high", high) * torch.arange(n_steps, dtype=torch.float64) / n_steps


def cosine(n_steps: int, rate: float, *, warmup: float = 0.05) -> torch.Tensor:
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2017, without restarts).

    Of W = round(warmup n_steps) steps of warm-up the last has the full rate; from there
    eta = rate (1 + cos(pi x)) / 2, x rising from 0 to 1 at t = n_steps.

    Args:
        n_steps: iterations in all.
        rate: largest rate.
        warmup: share of the iterations used to warm up.

    Returns:
        (n_steps,), float64, all positive.

    Raises:
        ValueError: for n_steps below 1, a negative rate, or warmup outside [0, 1).
    """
    return _decay(n_steps, rate, warmup, lambda x: (1 + torch.cos(math.pi * x)) / 2)


def linear_decay(n_steps: int, rate: float, *, warmup: float = 0.05) -> torch.Tensor:
    """Linear warm-up, then a straight line to zero at t = n_steps.

    Args:
        n_steps: iterations in all.
        rate: largest rate.
        warmup: share of the iterations used to warm up, as in ``cosine``.

    Returns:
        (n_steps,), float64, all positive.

    Raises:
        ValueError: for n_steps below 1, a negative rate, or warmup outside [0, 1).
    """
    return _decay(n_steps, rate, warmup, lambda x: 1 - x)


def cyclical_momentum(
    n_steps: int, high: float, low: float, *, anneal: float = 0.1
) -> torch.Tensor:
    """Momentum in opposite phase to ``one_cycle``: high -> low -> high, then high.

    Args:
        n_steps: iterations in all.
        high: momentum where the rate is low, below 1.
        low: momentum where the rate is largest.
        anneal: share of the iterations after the triangle, as in ``one_cycle``.

    Returns:
        (n_steps,), float64.

    Raises:
        ValueError: for n_steps below 1, momenta outside [0, 1) or out of order, or anneal outside
            [0, 1).
    """
    positive_integer("n_steps", n_steps)
    low, high = _ordered(low, high)
    if high >= 1:
        raise ValueError(f"high must be below 1, got {high:g}")
    return high - one_cycle(n_steps, 0.0, high - low, anneal=anneal)


def warmed_up(schedule: torch.Tensor, n_steps_of_warmup: int) -> torch.Tensor:
    """A schedule whose first n entries are ramped: entry t is multiplied by (t + 1) / n, t < n.

    Args:
        schedule: (n_steps,) rates.
        n_steps_of_warmup: n, at most n_steps; 0 and 1 change nothing.

    Returns:
        (n_steps,), float64; the schedule itself is left alone.

    Raises:
        ValueError: for a schedule that is no finite vector, or n outside 0, ..., n_steps.
    """
    schedule = finite("schedule", schedule)
    if schedule.ndim != 1:
        raise ValueError(f"schedule must be a vector, got shape {tuple(schedule.shape)}")
    n = positive_integer("n_steps_of_warmup", n_steps_of_warmup, low=0)
    if n > len(schedule):
        raise ValueError(f"n_steps_of_warmup must be at most {len(schedule)} steps, got {n}")
    ramp = torch.arange(1, n + 1, dtype=torch.float64, device=schedule.device) / max(n, 1)
    return torch.cat([schedule[:n] * ramp, schedule[n:]])


def _decay(n_steps: int, rate: float, warmup: float, shape) -> torch.Tensor:
    positive_integer("n_steps", n_steps)
    rate = _number("rate", rate)
    n_warmup = round(_share("warmup", warmup) * n_steps)
    peak = max(n_warmup - 1, 0)
    t = torch.arange(n_steps, dtype=torch.float64)
    return warmed_up(rate * shape(((t - peak) / (n_steps - peak)).clamp(min=0)), n_warmup)


def _number(name: str, value: float) -> float:
    """One number of at least 0."""
    tensor = within(name, value, 0.0)
    if tensor.numel() != 1:
        raise ValueError(f"{name} must be one number, got shape {tuple(tensor.shape)}")
    return tensor.item()


def _ordered(low: float, high: float) -> tuple[float, float]:
    low, high = _number("low", low), _number("high", high)
    if low > high:
        raise ValueError(f"low must be at most high = {high:g}, got {low:g}")
    return low, high


def _share(name: str, value: float) -> float:
    share = _number(name, value)
    if share >= 1:
        raise ValueError(f"{name} must be in [0, 1), got {share:g}")
    return share
