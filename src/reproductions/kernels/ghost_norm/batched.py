"""Ghost batch normalization by PyTorch's batch normalization, one call a group.

The operator leaves the statistics it uses in a layer's running averages: with a momentum of 1 they
are those of the group, at no further pass. What follows it works in place, since neither its
gradient nor that of the sum needs what they put out.
"""

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
    """Return y, mean and variance for checked arguments."""
    dtype = x.dtype
    # of bfloat16 the operator rounds what it puts out and, backward, sums what it has rounded
    x = x.to(scale.dtype)

    def group(part, mean, variance):
        return torch.batch_norm(part, scale, shift, mean, variance, True, 1.0, epsilon, True)

    mean, variance = averages = scale.new_zeros(2, len(x) // group_size, len(scale))
    if len(mean) == 1:
        y = group(x, mean[0], variance[0])
    else:
        y = torch.cat([group(*part) for part in zip(x.split(group_size), *averages, strict=True)])
    # running averages are of the unbiased variance, which a single value has not
    count = group_size * x.shape[2] * x.shape[3]
    variance = variance * ((count - 1) / count) if count > 1 else mean - mean
    if residual is not None:
        y = y.add_(residual)
    if relu:
        y = y.relu_()
    return y.to(dtype), mean, variance
