"""Activations and their derivatives, applied while sweeping through a network.

Of each there are two functions: ``apply``, z -> (f(z), what the derivative needs besides), which
may write over z; and ``pull_back``, (signal, f(z), that) -> signal times f'(z), where the signal
may have one column for all inputs.
"""

from __future__ import annotations

import math

import torch

from reproductions._validate import choice

__all__ = ["NAMES", "function", "pair"]


def _relu(z):
    return z.relu_(), None


def _relu_back(signal, a, _):
    # of the output, which is positive where z is: the derivative at 0 is 0
    return torch.ops.aten.threshold_backward(signal, a, 0)


def _tanh(z):
    return z.tanh_(), None


def _tanh_back(signal, a, _):
    return torch.ops.aten.tanh_backward(signal, a)


def _erf(z):
    slope = z.square().neg_().exp_().mul_(2 / math.sqrt(math.pi))
    return z.erf_(), slope


def _slope_back(signal, _, slope):
    # not in place: of a linear callable autograd's derivative is one number, expanded
    return signal * slope


def _linear(z):
    return z, None


def _linear_back(signal, a, _):
    return signal.expand_as(a)


PAIRS = {
    "relu": (_relu, _relu_back),
    "erf": (_erf, _slope_back),
    "tanh": (_tanh, _tanh_back),
    "linear": (_linear, _linear_back),
}
NAMES = tuple(PAIRS)
FUNCTIONS = {
    "relu": torch.Tensor.relu_,
    "erf": torch.Tensor.erf_,
    "tanh": torch.Tensor.tanh_,
    "linear": lambda z: z,
}


def function(activation):
    """Return z -> f(z), which may write over z, of a name or a callable."""
    if callable(activation):
        return lambda z: _elementwise(activation(z), z)
    return FUNCTIONS[choice("activation", activation, NAMES)]


def pair(activation):
    """Return ``apply`` and ``pull_back`` of a name or a callable.

    Of a callable the derivative comes from autograd, once a layer, in ``apply``.
    """
    if not callable(activation):
        return PAIRS[choice("activation", activation, NAMES)]

    def apply(z):
        with torch.enable_grad():
            z.requires_grad_()
            a = _elementwise(activation(z), z)
            if not a.requires_grad:
                raise ValueError(
                    f"activation must be differentiable by autograd, got {activation!r}"
                )
            (slope,) = torch.autograd.grad(a.sum(), z)
        return a.detach(), slope

    return apply, _slope_back


def _elementwise(a, z):
    if not isinstance(a, torch.Tensor) or a.shape != z.shape:
        got = tuple(a.shape) if isinstance(a, torch.Tensor) else a
        raise ValueError(
            f"activation must keep the shape of its argument, {tuple(z.shape)}; got {got}"
        )
    return a
