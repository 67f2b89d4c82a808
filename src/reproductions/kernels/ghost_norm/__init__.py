"""Ghost batch normalization, with the residual sum and the rectifier that follow it.

``naive`` reads like the equation, ``batched`` is PyTorch's own batch normalization group by group,
``triton`` passes over memory as few times as the formula allows: two launches forward, two back.
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import torch

from reproductions._validate import choice, positive_integer, within

from . import batched, naive

__all__ = ["ghost_norm"]

BACKENDS = ("auto", "naive", "batched", "triton")
_TYPES = (torch.float32, torch.float64, torch.bfloat16)
_TRITON_TYPES = (torch.float32, torch.bfloat16)


def ghost_norm(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    *,
    group_size: int | None = None,
    residual: torch.Tensor | None = None,
    relu: bool = False,
    epsilon: float = 1e-5,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalize each group of consecutive images by its own statistics.

    Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 1) over small parts of
    a large batch, "ghost batches" (Hoffer, Hubara and Soudry 2017, arXiv 1705.08741, algorithm 1):
    what training on several devices does when each normalizes its own share. For image i of group
    g, channel c and pixel p, with mean and biased variance over the images and pixels of the group,

        y_icp = f(scale_c (x_icp - mean_gc) / sqrt(variance_gc + epsilon) + shift_c + residual_icp)

    with f(z) = max(z, 0) (its derivative 0 at 0) for ``relu``, else f(z) = z. Differentiable in x,
    scale, shift and residual, once; not through the statistics returned. Nothing mixes channels, so
    several networks stacked along the channels are each normalized as if alone.

    Args:
        x: (batch, channels, height, width), float32, float64 or bfloat16; of the latter, statistics
            and y are computed in float32 and y is rounded once. Fastest in ``channels_last``.
        scale: (channels,), float32 or float64; used in the precision of the arithmetic.
        shift: (channels,), likewise.
        group_size: number of images of a group, a divisor of the batch; None for one group.
        residual: what is added before the rectifier, of the shape and dtype of x; or None.
        relu: whether the rectifier follows.
        epsilon: added to the variance, above 0.
        backend: ``"naive"`` (autograd, for tests), ``"batched"`` (torch, any device), ``"triton"``
            (CUDA, float32 and bfloat16) or ``"auto"``: Triton for CUDA tensors where it can, else
            batched.

    Returns:
        y, of x's shape and dtype, in ``channels_last`` if x is and contiguous otherwise; mean and
        biased variance, (groups, channels), detached, float64 for float64 and float32 otherwise.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an x without elements, ``group_size``
            that is no divisor of the batch, ``epsilon`` not above 0, an unknown ``backend``, Triton
            where it is missing or for float64.
    """
    choice("backend", backend, BACKENDS)
    _check(x, scale, shift, residual)
    # a plain good number is let through at once: the full check takes longer than small layers
    if not (isinstance(epsilon, float) and 0 < epsilon < math.inf):
        epsilon = float(within("epsilon", epsilon, 0.0, open_low=True))
    group_size = len(x) if group_size is None else positive_integer("group_size", group_size)
    if len(x) % group_size:
        raise ValueError(f"group_size must divide the batch of {len(x)} images, got {group_size}")
    obstacle = _triton_cannot(x) if backend == "triton" or (backend == "auto" and x.is_cuda) else ""
    if backend == "triton" and obstacle:
        raise ValueError(f"backend must be batched or auto where {obstacle}; got 'triton'")
    if backend == "triton" or (backend == "auto" and x.is_cuda and not obstacle):
        from . import triton as form
    else:
        form = naive if backend == "naive" else batched
    arithmetic = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale, shift = scale.to(arithmetic), shift.to(arithmetic)
    y, *statistics = form.normalize(x, scale, shift, group_size, residual, relu, epsilon)
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return y.contiguous(memory_format=layout), *statistics


def _check(
    x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, residual: torch.Tensor | None
) -> None:
    """Refuse what does not fit together; values are not looked at, which would wait for a GPU."""
    given = {"x": x, "scale": scale, "shift": shift}
    if residual is not None:
        given["residual"] = residual
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.device != x.device:
            raise ValueError(f"{name} must have the device of x, {x.device}; got {tensor.device}")
    if x.dim() != 4:
        raise ValueError(
            f"x must have shape (batch, channels, height, width), got {tuple(x.shape)}"
        )
    if not x.numel():
        raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}")
    if x.dtype not in _TYPES:
        raise ValueError(f"x must be float32, float64 or bfloat16, got {x.dtype}")
    for name in ("scale", "shift"):
        if given[name].shape != x.shape[1:2]:
            wanted, got = tuple(x.shape[1:2]), tuple(given[name].shape)
            raise ValueError(f"{name} must have one value a channel, shape {wanted}; got {got}")
        if given[name].dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} must be float32 or float64, got {given[name].dtype}")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"residual must have shape {tuple(x.shape)} and dtype {x.dtype}, those of x; "
            f"got {tuple(residual.shape)} and {residual.dtype}"
        )


def _triton_cannot(x: torch.Tensor) -> str:
    """Why not, in words, or nothing."""
    if find_spec("triton") is None:
        return "triton is missing"
    return "" if x.dtype in _TRITON_TYPES else f"x is {x.dtype}"
