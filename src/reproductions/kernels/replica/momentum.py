"""Gradient descent with momentum on matrices of parameters, one row a network.

Three forms that agree for a constant rate without Nesterov's look-ahead, and no longer when the
rate changes from step to step:

    caffe     v <- m v - r (g + d theta),   theta <- theta + v
    torch     v <- m v + (g + d theta),     theta <- theta - r v
    nesterov  v' = m v - r (g + d theta),   theta <- theta + (1 + m) v' - m v     (Caffe's form)
"""

from __future__ import annotations

import torch

from reproductions._validate import choice

__all__ = ["MOMENTUM_FORMS", "momentum_step"]

MOMENTUM_FORMS = ("caffe", "torch", "nesterov")

Rate = torch.Tensor | float


def momentum_step(
    parameters: torch.Tensor,
    velocity: torch.Tensor,
    gradient: torch.Tensor,
    rate: Rate,
    *,
    momentum: Rate,
    decay: Rate = 0.0,
    multiplier: Rate = 1.0,
    form: str = "caffe",
) -> torch.Tensor:
    """Take one step in place and return the increment of the parameters.

    Args:
        parameters: theta, (replicas, n).
        velocity: v, the same shape; starts at zero.
        gradient: g, the same shape; overwritten.
        rate: learning rate r, a number, a scalar tensor or a column (replicas, 1).
        momentum: m, likewise.
        decay: weight decay d, likewise or (replicas, n); it enters the gradient (L2).
        multiplier: factor of the rate for each parameter, (n,) or a number.
        form: ``caffe``, ``torch`` or ``nesterov``.

    Returns:
        theta_{t+1} - theta_t; for ``caffe`` this is ``velocity`` itself, not a copy.

    Raises:
        ValueError: an unknown form.
    """
    choice("form", form, MOMENTUM_FORMS)
    gradient.add_(parameters * decay)
    if form == "torch":
        velocity.mul_(momentum).add_(gradient)
        increment = velocity * (-rate * multiplier)
        parameters.add_(increment)
        return increment
    gradient.mul_(rate * multiplier)
    if form == "nesterov":
        increment = velocity * -momentum
        velocity.mul_(momentum).sub_(gradient)
        increment.add_(velocity * (1 + momentum))
        parameters.add_(increment)
        return increment
    velocity.mul_(momentum).sub_(gradient)
    parameters.add_(velocity)
    return velocity
