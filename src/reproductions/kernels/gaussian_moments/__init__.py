"""Mean and variance of SELU(z) for a Gaussian z: the moment map of self-normalizing networks."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch

from reproductions._validate import choice, number, within

from . import batched, naive

__all__ = ["Moments", "gaussian_moments", "moments_and_derivatives", "parts"]

BACKENDS = ("auto", "naive", "batched", "triton")


class Moments(NamedTuple):
    """Moments of SELU(z), z ~ N(m, x), and their derivatives with respect to m and x."""

    mean: torch.Tensor
    variance: torch.Tensor
    mean_m: torch.Tensor
    mean_x: torch.Tensor
    variance_m: torch.Tensor
    variance_x: torch.Tensor


def gaussian_moments(
    mean: torch.Tensor | float,
    variance: torch.Tensor | float,
    *,
    alpha: torch.Tensor | float,
    scale: torch.Tensor | float,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the variance of SELU(z) for z ~ N(mean, variance).

    SELU(z) = scale z for z > 0 and scale alpha (e^z - 1) for z <= 0; ``alpha=1, scale=1`` is the
    ELU, ``alpha=0`` a rectifier. Klambauer et al. 2017, Eqs. (4)-(5), in a form that neither
    overflows nor cancels: relative error below 1e-9 for |mean| <= 30 and variance in [1e-8, 1e6]
    (of the mean near its zero: absolute), in practice 1e-11. That holds for alpha up to 20 (SELU's
    is 1.67); beyond, the variance loses digits in proportion, and for ``alpha=0`` it has fewer
    where ``mean`` is more than 20 standard deviations below zero.

    Args:
        mean: means of z, any shape; finite. Units of the preactivation.
        variance: variances of z, at least 0, broadcast against ``mean``. At 0 the result is the
            limit, (SELU(mean), 0).
        alpha: saturation in units of ``scale``, at least 0; a float or a tensor that broadcasts.
        scale: slope of the linear side, greater than 0; a float or a tensor that broadcasts.
        backend: ``"naive"`` (quadrature, for tests), ``"batched"`` (closed form in torch),
            ``"triton"`` (closed form in one kernel, for CUDA) or ``"auto"``: Triton for CUDA
            tensors where it is installed, batched otherwise.

    Returns:
        Mean and variance, float64, of the common broadcast shape, on the arguments' device.
        Differentiable once with respect to ``mean`` and ``variance`` (closed form, no quadrature
        error); alpha and scale are constants.

    Raises:
        ValueError: an argument is out of range, NaN or infinite; alpha or scale wants a gradient;
            an unknown backend; Triton asked for where it is not installed.
    """
    arguments, shape, how = _prepare(mean, variance, alpha, scale, backend)
    if torch.is_grad_enabled():
        for name, value in (("alpha", arguments[2]), ("scale", arguments[3])):
            if value.requires_grad:
                raise ValueError(f"{name} must be detached (it has no gradient here), got {value}")
    if torch.is_grad_enabled() and any(a.requires_grad for a in arguments[:2]):
        first, second = _Differentiable.apply(*arguments, *how)
    else:
        first, second = _evaluate(*arguments, *how, with_derivatives=False)
    return first.reshape(shape), second.reshape(shape)


def moments_and_derivatives(
    mean: torch.Tensor | float,
    variance: torch.Tensor | float,
    *,
    alpha: torch.Tensor | float,
    scale: torch.Tensor | float,
    backend: str = "auto",
) -> Moments:
    """Return the moments of SELU(z), z ~ N(mean, variance), with the four first derivatives.

    One pass over the special functions for all six numbers; the derivatives follow from Price's
    theorem (d/dm E h = E h', d/dx E h = E h''/2). Arguments, shapes and errors as for
    :func:`gaussian_moments`; the naive backend has no derivatives. The result is detached.
    """
    if backend == "naive":
        raise ValueError("backend must be auto, batched or triton for derivatives; got 'naive'")
    arguments, shape, how = _prepare(mean, variance, alpha, scale, backend)
    arguments = [a.detach() for a in arguments]
    out = _evaluate(*arguments, *how, with_derivatives=True)
    return Moments(*(value.reshape(shape) for value in out))


def parts(mean: torch.Tensor | float, variance: torch.Tensor | float) -> batched.Parts:
    """Return what both moments are sums of, independent of alpha and scale (``batched.Parts``).

    ``E f = scale (E z_+ - alpha E e)`` and
    ``Var f = scale^2 (Var z_+ + alpha^2 Var e + 2 alpha E z_+ E e)`` with z_+ = max(z, 0) and
    e = max(1 - e^z, 0): what solving for alpha and scale needs. Shapes broadcast; variance >= 0.
    """
    (mean, variance, *_), shape, _ = _prepare(mean, variance, 1.0, 1.0, "batched")
    values = batched.parts(mean.detach(), variance.detach())
    return batched.Parts(*(value.reshape(shape) for value in values))


def _prepare(mean, variance, alpha, scale, backend):
    """Check the arguments; return them flat, the common shape, and how to run.

    That is the least and the greatest variance, and the backend.
    """
    choice("backend", backend, BACKENDS)
    mean, _ = _checked("mean", mean)
    variance, extent = _checked("variance", variance, low=0.0)
    alpha, _ = _checked("alpha", alpha, low=0.0)
    scale, _ = _checked("scale", scale, low=0.0, open_low=True)
    device = next((a.device for a in (mean, variance) if a.ndim), mean.device)
    shape = torch.broadcast_shapes(mean.shape, variance.shape, alpha.shape, scale.shape)
    mean, variance = (a.to(device).expand(shape).reshape(-1) for a in (mean, variance))
    # Shared parameters stay 0-dimensional: the batched form multiplies by a number then.
    alpha, scale = (
        a.to(device).expand(shape).reshape(-1) if a.ndim else a.to(device) for a in (alpha, scale)
    )
    if backend == "auto":
        backend = "triton" if mean.is_cuda and find_spec("triton") else "batched"
    elif backend == "triton" and find_spec("triton") is None:
        raise ValueError("backend must be naive or batched where triton is missing; got 'triton'")
    return [mean, variance, alpha, scale], shape, (extent, backend)


def _checked(name, value, **bounds):
    """As ``within``, in one pass if all is in order; return the least and the greatest too."""
    tensor = number(name, value)
    if not tensor.numel():
        return tensor, (0.0, 0.0)
    low, high = (bound.item() for bound in tensor.detach().aminmax())
    if not (low > bounds.get("low", -math.inf) and high < math.inf):
        within(name, tensor, **bounds)
    return tensor, (low, high)


def _evaluate(mean, variance, alpha, scale, extent, backend, *, with_derivatives):
    """Return the flat results: two tensors, or six with the derivatives."""
    if backend == "naive":
        first, second = naive.moments(
            mean, variance.clamp(min=1e-280), alpha.expand(mean.shape), scale.expand(mean.shape)
        )
        return first, second.masked_fill_(variance == 0, 0.0)
    if backend == "triton":
        from . import triton

        return triton.elementwise(mean, variance, alpha, scale, with_derivatives=with_derivatives)
    n, results = len(mean), 6 if with_derivatives else 2
    # A tensor each, not rows of one: the caller may change one of them in place, or keep just one.
    out = [_uninitialized((n,), mean) for _ in range(results)]
    if not n:
        return tuple(out)
    size = min(batched.CHUNK.get(mean.device.type, batched.CHUNK_ELSEWHERE), n)
    scratch = _uninitialized((batched.ROWS - results, size), mean)
    low, high = extent
    bounds = extent if low > batched.SMALL and high <= batched.LARGE else None
    finish = batched.moments_and_derivatives if with_derivatives else batched.moments
    for start in range(0, n, size):
        piece = slice(start, start + size)
        m, x = mean[piece], variance[piece]
        a, c = (p[piece] if p.ndim else p.item() for p in (alpha, scale))
        rows = batched.rows([row[piece] for row in out], scratch[:, : len(m)].unbind())
        finish(batched.parts(m, x, bounds, rows), a, c)
    if low == 0:
        out[1].masked_fill_(variance == 0, 0.0)
    return tuple(out)


def _uninitialized(shape, like):
    """An uninitialized tensor; on the CPU numpy's, which asks the system for huge pages."""
    if like.is_cpu:
        return torch.from_numpy(np.empty(shape))
    return torch.empty(shape, dtype=like.dtype, device=like.device)


class _Differentiable(torch.autograd.Function):
    """The closed-form derivatives as a backward pass."""

    @staticmethod
    def forward(ctx, mean, variance, alpha, scale, extent, backend):
        arguments = mean, variance, alpha, scale, extent
        closed = "batched" if backend == "naive" else backend
        first, second, *derivatives = _evaluate(*arguments, closed, with_derivatives=True)
        if backend == "naive":
            first, second = _evaluate(*arguments, "naive", with_derivatives=False)
        ctx.save_for_backward(*derivatives)
        return first, second

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_mean, grad_variance):
        mean_m, mean_x, variance_m, variance_x = ctx.saved_tensors
        return (
            grad_mean * mean_m + grad_variance * variance_m,
            grad_mean * mean_x + grad_variance * variance_x,
            *[None] * 4,
        )
