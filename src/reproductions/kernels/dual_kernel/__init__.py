"""Kernels of infinitely wide networks: the NNGP kernel and the neural tangent kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch

from reproductions._validate import choice, finite, positive_integer, within

from . import batched, naive
from .points import variance

__all__ = ["dual_kernel"]

BACKENDS = ("auto", "naive", "batched", "triton")


def dual_kernel(
    x: torch.Tensor,
    z: torch.Tensor | None = None,
    *,
    depth: int,
    bias_scale: float,
    weight_variance: float = 1.0,
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu",
    all_depths: bool = False,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the limit kernels Sigma^(L) (NNGP) and Theta^(L) (neural tangent kernel) of an MLP.

    A network of L = ``depth`` weight layers, all weights and biases N(0, 1), computes
    sqrt(s/n_l) W^(l) a + beta b^(l) in every layer and sigma(.) between layers. As its widths grow
    its outputs at initialization become Gaussian with covariance Sigma^(L), and its tangent kernel,
    the sum over all parameters of df(x)/dp df(x')/dp, becomes Theta^(L):

        Sigma^(1) = s x.x'/n_0 + beta^2,        Sigma^(l+1) = s E[sigma(u) sigma(v)] + beta^2,
        Theta^(1) = Sigma^(1),   Theta^(l+1) = s Theta^(l) E[sigma'(u) sigma'(v)] + Sigma^(l+1),

    (u, v) centered Gaussian with covariance Sigma^(l) restricted to {x, x'}. Jacot, Gabriel and
    Hongler 2018, Proposition 1 and Theorem 1 (there s = 1; s = 2 is He's initialization).

    Rectifier and error function are closed forms with a relative error below 1e-12, also where x
    and x' agree in all but their last digits or are nearly opposite. Three exceptions: near a zero
    of a kernel the error is relative to sqrt(Sigma(x, x) Sigma(x', x')), and so it is for nearly
    opposite points under Triton; for ``"erf"`` it grows as 1e-16 (s + beta^2). A zero vector has
    Sigma = Theta = 0 with the rectifier where beta = 0.

    Any other activation must be smooth. Its expectations are Hermite series of at most 1024 terms;
    it is refused where these leave out more than 1e-10 of E[sigma(u)^2] or E[sigma'(u)^2], as with
    a kink, a jump or a flank that is steep on the scale of u: tanh is accepted up to variances of
    about 10, GELU and softplus beyond 30.

    Args:
        x: points, (N, n_0), finite; computed in float64. Units of the input.
        z: more points, (M, n_0), on the device of ``x``; by default ``x`` again. Then the result is
            symmetric to the last bit, and its diagonal exact.
        depth: L, the number of weight layers (one more than hidden layers), at least 1.
        bias_scale: beta, at least 0.
        weight_variance: s, greater than 0.
        activation: sigma: ``"relu"``, ``"erf"`` or a smooth function that maps a float64 tensor
            elementwise and is differentiable by autograd.
        all_depths: return the kernels of every depth 1, ..., L, for little more than those of L.
        backend: ``"naive"`` (as in the papers, for tests: half the digits are lost where two
            points nearly agree), ``"batched"`` (torch, any device), ``"triton"`` (one CUDA kernel;
            rectifier and error function) or ``"auto"``: Triton for CUDA tensors and those two
            activations where it is installed, batched otherwise.

    Returns:
        Sigma and Theta, float64, each (N, M), or (L, N, M) with ``all_depths`` (entry l - 1 is
        depth l), on the device of ``x``; detached: there are no gradients through this function.

    Raises:
        ValueError: an argument has the wrong shape, is out of range, NaN or infinite; an activation
            is unknown or not smooth; the kernels overflow; an unknown backend, or Triton where it
            is missing or the activation is a function.
    """
    choice("backend", backend, BACKENDS)
    positive_integer("depth", depth)
    smooth = callable(activation)
    if not smooth and activation not in ("relu", "erf"):
        raise ValueError(
            f"activation must be 'relu', 'erf' or a smooth function such as torch.tanh;"
            f" got {activation!r}"
        )
    x = _points("x", x)
    if z is not None:
        z = _points("z", z)
        if (z.shape[1], z.device) != (x.shape[1], x.device):
            raise ValueError(
                f"z must have as many columns as x and its device, {x.shape[1]} on {x.device};"
                f" got {z.shape[1]} on {z.device}"
            )
    bias_scale = _number("bias_scale", bias_scale, low=0.0)
    weight_variance = _number("weight_variance", weight_variance, low=0.0, open_low=True)
    for name, points in (("x", x), ("z", z)):
        if points is not None and len(points):
            _check_range(name, points, depth, bias_scale, weight_variance, activation)
    if backend in ("auto", "triton"):
        backend = _choose(backend, x, smooth)
    if backend == "triton":
        from . import triton as form
    else:
        form = {"naive": naive, "batched": batched}[backend]
    return form.dual_kernel(
        x,
        z,
        depth=depth,
        bias_scale=bias_scale,
        weight_variance=weight_variance,
        activation=activation,
        all_depths=all_depths,
    )


def _points(name, value):
    """Check a matrix of points; return it in float64, contiguous and detached."""
    value = finite(name, value).detach()
    if value.ndim != 2 or not value.shape[1]:
        raise ValueError(
            f"{name} must have shape (points, features) with at least one feature,"
            f" got {tuple(value.shape)}"
        )
    return value.contiguous()


def _number(name, value, **bounds):
    """Check a number; return a float."""
    value = within(name, value, **bounds)
    if value.numel() != 1:
        raise ValueError(f"{name} must be one number, got shape {tuple(value.shape)}")
    return value.item()


def _check_range(name, points, depth, bias_scale, weight_variance, activation):
    """Refuse what overflows float64."""
    v = theta = variance(points, bias_scale, weight_variance).max().item()
    if not math.isfinite(v):
        raise ValueError(
            f"{name} must have rows with finite squared norms, got an entry"
            f" {points.abs().max().item():.3g}; rescale it"
        )
    if activation != "relu":
        return
    for layer in range(2, depth + 1):
        v = weight_variance / 2 * v + bias_scale**2
        theta = weight_variance / 2 * theta + v
        if not math.isfinite(theta):
            raise ValueError(
                f"depth must be below {layer}, where the kernels overflow with"
                f" weight_variance={weight_variance:g}; got {depth}"
            )


def _choose(backend, x, smooth):
    """The form for ``"auto"`` and ``"triton"``."""
    if backend == "auto":
        return "triton" if x.is_cuda and not smooth and find_spec("triton") else "batched"
    if find_spec("triton") is None:
        raise ValueError("backend must be naive or batched where triton is missing; got 'triton'")
    if smooth:
        raise ValueError(
            "backend must be naive or batched where the activation is a function; got 'triton'"
        )
    return backend
