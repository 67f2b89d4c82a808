"""Training toward f_0 plus one principal component, and how long the way takes (Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from reproductions._validate import number, positive_integer
from reproductions.kernels.structured_ntk import gram, sweep

from .networks import in_blocks, joined, widths_of
from .training import descend

__all__ = ["Trace", "half_times", "predicted_half_times", "trace"]


class Trace(NamedTuple):
    """Training toward f* = f_0 + size f^(2), the paper's Figure 3.

    ``along`` (R, T + 1) is the part of f* - f_t along f^(2), ``across`` (R, T + 1) the norm of the
    part of f_t - f_0 that is orthogonal to it, at the times 0, eta, ..., T eta; ``rates``
    (R, T // every + 1) is the kernel's own rate f2^T Theta_t f2 / N^2 at the start and every
    ``every`` steps, ``traces`` at the same steps the sum of its eigenvalues, tr Theta_t / N. Norms
    are root mean squares over the data. With h_t the orthogonal part itself, gradient flow obeys

        d along / dt = -rate(t) along + f2^T Theta_t h_t / N^2,

    and gradient descent does up to an error proportional to the learning rate.
    """

    along: torch.Tensor
    across: torch.Tensor
    rates: torch.Tensor
    traces: torch.Tensor


def trace(
    width: int,
    seeds: Sequence[int],
    x: torch.Tensor,
    direction: torch.Tensor,
    *,
    size: float = 0.5,
    depth: int,
    learning_rate: float,
    steps: int,
    every: int,
    **options,
) -> Trace:
    """Train toward f_0 + size * direction and split the way in a part along and a part across.

    Args:
        width: n, units of a hidden layer.
        seeds: one a network.
        x: training inputs, (N, n_0).
        direction: f^(2) on them, (N,), of unit norm in the sense mean(f2^2) = 1.
        size: how far f* is.
        depth: L, layers of weights.
        learning_rate: step in time.
        steps: T.
        every: steps from one look at the kernel to the next.
        options: as for ``movement``.

    Raises:
        ValueError: a ``direction`` of another shape or norm, ``every`` below 1; as for ``draw`` and
            :func:`descend`.
    """
    positive_integer("every", every)
    direction = number("direction", direction)
    if direction.shape != x.shape[:1]:
        raise ValueError(f"direction must have shape ({len(x)},), got {tuple(direction.shape)}")
    unit = direction.square().mean()
    if not abs(unit - 1.0) < 1e-6:
        raise ValueError(
            f"direction must have mean square 1, got {unit:g}; divide it by its root mean square"
        )
    results = []
    for nets in in_blocks(widths_of(x.shape[-1], width, depth), seeds, **options):
        start = nets.outputs(x)
        path, rates, traces = [], [], []

        def observe(step, now, path=path, rates=rates, traces=traces, beta=nets.bias_scale) -> None:
            path.append(now.outputs)
            if step % every == 0:
                f2 = direction.to(now.outputs)
                theta = gram(now, bias_scale=beta)
                rates.append(theta @ f2 @ f2 / len(f2) ** 2)
                traces.append(theta.diagonal(dim1=1, dim2=2).mean(1))

        goal = start + size * direction.to(start)
        descend(nets, x, goal, learning_rate=learning_rate, steps=steps, observe=observe)
        observe(steps, sweep(nets.weights, nets.biases, x.to(start), **nets.options))
        moved = (torch.stack(path, dim=1) - start[:, None]).double()
        f2 = direction.to(moved)
        gone = (moved * f2).mean(-1)
        across = (moved - gone[..., None] * f2).square().mean(-1).sqrt()
        seen = (torch.stack(part, dim=1) for part in (rates, traces))
        results.append(Trace(size - gone, across, *seen))
    return joined(results)


def half_times(along: torch.Tensor, learning_rate: float) -> torch.Tensor:
    """Time at which |along| (R, T + 1) first is half of its start, (R,); NaN if never.

    Between two steps log |along| is taken to be linear. ``learning_rate`` is the time of a step.
    """
    # rises through zero where half is left
    level = math.log(0.5) - (along / along[:, :1]).abs().log()
    reached = level >= 0
    at = reached.int().argmax(1)
    rows = torch.arange(len(level), device=level.device)
    before, after = level[rows, (at - 1).clamp(min=0)], level[rows, at]
    time = (at - 1 + before / (before - after)) * learning_rate
    return torch.where(reached.any(1), time, math.nan)


def predicted_half_times(rates: torch.Tensor, learning_rate: float, every: int) -> torch.Tensor:
    """Half-times if d along / dt = -rate(t) along, with rates (R, K) every ``every`` steps.

    By steps as in gradient descent, along ← (1 - eta rate) along, rates interpolated linearly. NaN
    where the half is not reached by the last of the rates.

    Raises:
        ValueError: ``every`` below 1.
    """
    positive_integer("every", every)
    steps = torch.arange((rates.shape[1] - 1) * every, dtype=rates.dtype)
    left = (steps / every).long()
    share = steps / every - left
    each = torch.lerp(rates[:, left], rates[:, left + 1], share)
    along = (1.0 - learning_rate * each).cumprod(1)
    start = along.new_ones(len(along), 1)
    return half_times(torch.cat([start, along], 1), learning_rate)
