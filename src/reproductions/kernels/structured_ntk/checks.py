"""What the arguments must be: one sentence each where they are not."""

from __future__ import annotations

import math

import torch

from reproductions._validate import choice, finite, within

from .activations import NAMES

__all__ = ["prepare", "same_networks", "shapes"]


def prepare(weights, biases, x, z, bias_scale, activation, output):
    """Check all arguments of ``structured_ntk``; return bias_scale and the pair of outputs."""
    scale = within("bias_scale", bias_scale, 0.0)
    if scale.numel() != 1:
        raise ValueError(f"bias_scale must be one number, got shape {tuple(scale.shape)}")
    if not callable(activation):
        choice("activation", activation, NAMES)
    named = [(f"weights[{layer}]", w) for layer, w in enumerate(weights)]
    named += [(f"biases[{layer}]", b) for layer, b in enumerate(biases)]
    named += [("x", x)] + ([("z", z)] if z is not None else [])
    for name, tensor in named:
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, got {x.dtype}")
    for name, tensor in named:
        for what in ("dtype", "device"):
            if getattr(tensor, what) != getattr(x, what):
                raise ValueError(
                    f"{name} must have the {what} of x, {getattr(x, what)}; "
                    f"got {getattr(tensor, what)}"
                )
    outputs = output if isinstance(output, tuple) else (output, output)
    if len(outputs) != 2:
        raise ValueError(f"output must be an integer or a pair of integers, got {output!r}")
    for k in outputs:
        shapes(weights, biases, x, k)
    _finite("x", x)
    if z is not None:
        if z.dim() != 2 or z.shape[1] != x.shape[1]:
            raise ValueError(f"z must have shape (M, {x.shape[1]}), got {tuple(z.shape)}")
        _finite("z", z)
    return scale.item(), outputs


def _finite(name, tensor):
    """As ``finite``, in one pass if all is in order."""
    if tensor.numel():
        low, high = (bound.item() for bound in tensor.detach().aminmax())
        if not (low > -math.inf and high < math.inf):
            finite(name, tensor)


def shapes(weights, biases, x, output):
    """Raise where the shapes do not chain; return whether there is a replica axis."""
    if not len(weights) or len(weights) != len(biases):
        raise ValueError(
            f"weights and biases must be as many, at least one each; "
            f"got {len(weights)} and {len(biases)}"
        )
    lead = weights[0].shape[:-2]
    if weights[0].dim() not in (2, 3):
        raise ValueError(
            "weights[0] must have shape (n_1, n_0) or (replicas, n_1, n_0), "
            f"got {tuple(weights[0].shape)}"
        )
    if x.dim() != 2 or x.shape[1] != weights[0].shape[-1]:
        raise ValueError(
            f"x must have shape (N, {weights[0].shape[-1]}) for weights[0] of shape "
            f"{tuple(weights[0].shape)}, got {tuple(x.shape)}"
        )
    width = x.shape[1]
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        if w.shape[:-2] != lead:
            raise ValueError(
                f"weights[{layer}] must have the replicas of weights[0]; "
                f"got shapes {tuple(w.shape)} and {tuple(weights[0].shape)}"
            )
        if w.shape[-1] != width:
            raise ValueError(
                f"weights[{layer}] must take what weights[{layer - 1}] puts out ({width} units); "
                f"got shapes {tuple(w.shape)} and {tuple(weights[layer - 1].shape)}"
            )
        width = w.shape[-2]
        if 0 in w.shape:
            raise ValueError(f"weights[{layer}] must not be empty, got shape {tuple(w.shape)}")
        if b.shape != (*lead, width):
            raise ValueError(
                f"biases[{layer}] must have shape {(*lead, width)} for weights[{layer}] of shape "
                f"{tuple(w.shape)}, got {tuple(b.shape)}"
            )
    if output is None:
        if width != 1:
            raise ValueError(
                f"output must name one of the network's {width} outputs (0 to {width - 1}), "
                "got None"
            )
    elif isinstance(output, bool) or not isinstance(output, int) or not 0 <= output < width:
        raise ValueError(f"output must be an integer from 0 to {width - 1}, got {output!r}")
    return len(lead) == 1


def same_networks(sweep, other):
    """Raise where two sweeps are of networks of different shapes."""
    for layer, pair in enumerate(zip(sweep.signals, other.signals, strict=False)):
        if pair[0].shape[:-1] != pair[1].shape[:-1]:
            raise ValueError(
                f"other must be a sweep of the same networks; signals[{layer}] have shapes "
                f"{tuple(pair[0].shape)} and {tuple(pair[1].shape)}"
            )
    if len(sweep.signals) != len(other.signals):
        raise ValueError(
            f"other must be a sweep of the same networks; got {len(sweep.signals)} "
            f"and {len(other.signals)} layers"
        )
