"""Ghost batch normalization as the equation reads, by autograd."""

from __future__ import annotations

import torch

__all__ = ["normalize"]


def normalize(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    group_size: int,
    residual: torch.Tensor | None,
    relu: bool,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return y, mean and variance for checked arguments (Hoffer et al. 2017, algorithm 1)."""
    groups = x.to(scale.dtype).reshape(-1, group_size, *x.shape[1:])
    over = (1, 3, 4)
    mean = groups.mean(over, keepdim=True)
    variance = (groups - mean).square().mean(over, keepdim=True)
    normalized = (groups - mean) / (variance + epsilon).sqrt()
    y = scale[:, None, None] * normalized + shift[:, None, None]
    y = y.reshape(x.shape)
    if residual is not None:
        y = y + residual.to(y.dtype)
    if relu:
        y = y.relu()
    return y.to(x.dtype), mean.detach().flatten(1), variance.detach().flatten(1)
