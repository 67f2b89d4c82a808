"""One network of each width on its way, at a list of times: what the interactive figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from reproductions._validate import finite, positive_integer

from .networks import draw, widths_of
from .training import descend

__all__ = ["Trajectory", "rounded", "trajectory"]


class Trajectory(NamedTuple):
    """``function`` (T, M) on the probe, ``kernel`` (T, M) between an anchor and the probe."""

    function: torch.Tensor
    kernel: torch.Tensor


def trajectory(
    width: int,
    seeds: Sequence[int],
    x: torch.Tensor,
    y: torch.Tensor,
    probe: torch.Tensor,
    anchor: torch.Tensor,
    *,
    at: Sequence[int],
    depth: int,
    learning_rate: float,
    **options,
) -> Trajectory:
    """Train the network of the first seed and look at it after the steps ``at`` (ascending).

    Args:
        width: units of a hidden layer.
        seeds: the first one is used.
        x: inputs (N, n_0).
        y: targets (N,).
        probe: where to look, (M, n_0).
        anchor: other argument of the kernel, (1, n_0).
        at: numbers of steps, 0 for the network as it is drawn.
        depth: layers of weights.
        learning_rate: step in time.
        options: those of ``draw``.

    Raises:
        ValueError: ``at`` that is empty, negative or does not ascend; an ``anchor`` of several
            rows; as for ``draw`` and ``descend``.
    """
    for k, step in enumerate(at):
        positive_integer(f"at[{k}]", step, low=0)
    if not len(at) or any(a >= b for a, b in pairwise(at)):
        raise ValueError(f"at must name steps in ascending order, got {list(at)}")
    if anchor.shape != (1, x.shape[-1]):
        raise ValueError(f"anchor must be (1, {x.shape[-1]}), got {tuple(anchor.shape)}")
    net = draw(widths_of(x.shape[-1], width, depth), seeds[:1], **options)
    function, kernel = [], []
    done = 0
    for step in at:
        descend(net, x, y, learning_rate=learning_rate, steps=step - done)
        done = step
        function.append(net.outputs(probe)[0])
        kernel.append(net.kernel(anchor, probe)[0, 0])
    return Trajectory(torch.stack(function).double().cpu(), torch.stack(kernel).double().cpu())


def rounded(values: torch.Tensor, digits: int = 3) -> list:
    """Nested lists of the values with few digits, for a page that carries them as text.

    Raises a ValueError for NaN and infinities, for which JSON has no words.
    """
    return torch.round(finite("values", values), decimals=digits).tolist()
