"""Forward, backward, Gram and gradient step of stacked networks: batched matrix products.

Everything is linear algebra on layer inputs A_l and signals G_l, tensors (R, n, N) for R replicas:

    forward    Z_l = W_l A_l / sqrt(n_l) + beta b_l,           A_{l+1} = f(Z_l)
    backward   G_{l-1} = f'(Z_{l-1}) * (W_l^T G_l) / sqrt(n_l)
    kernel     Theta = sum_l (A_l^T A_l / n_l + beta^2) * (G_l^T G_l)
    step       W_l -= lr (G_l r) A_l^T / sqrt(n_l),            b_l -= lr beta sum_i G_l r_i

No autograd graph and no Jacobian; the results are detached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from .activations import function, pair
from .checks import same_networks, shapes

__all__ = ["Sweep", "forward", "gradient_step_", "gram", "kernel", "sweep"]

# At up to so many inputs a product with the units side by side in memory beats one with the inputs
# side by side (MKL, 50 to 512 units: 1.2 to 1.7 times at 4 and 8 inputs; at 16 it is slower).
_FEW_INPUTS = 8
# A batched product into a strided view runs matrix by matrix; below so many entries a matrix it is
# faster to form the product apart and to subtract it.
_SMALL_MATRIX = 4096
# Rows of a kernel formed at a time: enough for an efficient product, few enough for the scratch to
# stay small beside the kernel.
_BLOCK = 128
# Bytes that the activations of the replicas at work may take: many replicas drown the interpreter's
# overhead, too many leave the caches. Accelerators get more of them.
_SCRATCH = {"cpu": 1 << 24}
_SCRATCH_ELSEWHERE = 1 << 28


class Sweep(NamedTuple):
    """One forward and one backward pass over N inputs; ``...`` is the replica axis, or nothing."""

    outputs: torch.Tensor
    """f, (..., N)."""
    inputs: tuple[torch.Tensor, ...]
    """A_l, (..., n_l, N): what enters layer l. A_0 is x transposed, one memory for all replicas."""
    signals: tuple[torch.Tensor, ...]
    """G_l, (..., n_{l+1}, N): the derivative of f with respect to what layer l puts out."""


@torch.no_grad()
def sweep(
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    x: torch.Tensor,
    *,
    bias_scale: float,
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu",
    output: int | None = None,
) -> Sweep:
    """Return outputs, layer inputs and signals at x: one forward pass and one backward pass.

    Arguments as for :func:`structured_ntk`, ``output`` an index or None. Only shapes are checked:
    this is what a training loop calls.

    Raises:
        ValueError: shapes that do not chain, an output that is not there, an unknown activation,
            or one that is not differentiable element by element.
    """
    stacked = shapes(weights, biases, x, output)
    apply, pull_back = pair(activation)
    weights, biases = _lift(stacked, weights), _lift(stacked, biases)
    k, last = output or 0, len(weights) - 1
    a = x.T.expand(len(weights[0]), -1, -1)
    inputs, slopes = [a], []
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        a, slope = apply(_layer(w, a, b, bias_scale))
        inputs.append(a)
        slopes.append(slope)
    f = _layer(weights[-1][:, k : k + 1], a, biases[-1][:, k : k + 1], bias_scale)[:, 0]

    n_out = weights[-1].shape[1]
    one_hot = x.new_zeros(n_out, len(x))
    one_hot[k] = 1
    signals = [one_hot.expand(len(f), -1, -1)]
    if last:
        # W^T G of a one-hot G is a row of W, the same for every input
        row = weights[-1][:, k, :, None] / math.sqrt(weights[-1].shape[-1])
        signals.append(pull_back(row, inputs[-1], slopes[-1]))
    nothing = x.new_zeros(1)
    for layer in range(last - 1, 0, -1):
        w = weights[layer]
        g = _layer(w.mT, signals[-1], nothing, 0.0, fan_in=w.shape[-1])
        signals.append(pull_back(g, inputs[layer], slopes[layer - 1]))
    signals.reverse()
    if stacked:
        return Sweep(f, tuple(inputs), tuple(signals))
    return Sweep(f[0], tuple(a[0] for a in inputs), tuple(g[0] for g in signals))


@torch.no_grad()
def forward(
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    x: torch.Tensor,
    *,
    bias_scale: float,
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu",
    output: int | None = None,
) -> torch.Tensor:
    """Return the outputs f (..., N) at x (N, n_0): the forward pass of :func:`sweep` alone.

    No layer is kept but the present one. Arguments and errors as for :func:`sweep`.
    """
    stacked = shapes(weights, biases, x, output)
    apply = function(activation)
    weights, biases = _lift(stacked, weights), _lift(stacked, biases)
    k = output or 0
    a = x.T.expand(len(weights[0]), -1, -1)
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        a = apply(_layer(w, a, b, bias_scale))
    f = _layer(weights[-1][:, k : k + 1], a, biases[-1][:, k : k + 1], bias_scale)[:, 0]
    return f if stacked else f[0]


@torch.no_grad()
def gram(sweep: Sweep, other: Sweep | None = None, *, bias_scale: float) -> torch.Tensor:
    """Return Theta (..., N, M) between the N inputs of one sweep and the M of another.

    Theta = sum_l (A_l^T C_l / n_l + beta^2) * (G_l^T H_l), with C_l and H_l of the other sweep.

    Args:
        sweep: from :func:`sweep`.
        other: a sweep of the same networks, at other inputs or for another output; None for the
            same one, and the result is exactly symmetric then.
        bias_scale: beta, the one the sweeps were made with.

    Raises:
        ValueError: the sweeps are not of networks of one shape.
    """
    symmetric = other is None
    other = sweep if symmetric else other
    same_networks(sweep, other)
    stacked = sweep.outputs.dim() == 2
    a, g, c, h = (_lift(stacked, part) for part in (*sweep[1:], *other[1:]))
    replicas, n, m = len(a[0]), a[0].shape[-1], c[0].shape[-1]
    square = a[0].new_full((1, 1, 1), bias_scale**2)
    if n <= _BLOCK:
        theta = _gram_rows(a, g, c, h, square)
        if symmetric:
            theta = theta.add(theta.mT).mul_(0.5)
        return theta if stacked else theta[0]
    theta = a[0].new_empty(replicas, n, m)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        # of a symmetric kernel, what lies on the diagonal or above
        left = start if symmetric else 0
        rows = _gram_rows(
            *([t[:, :, start:stop] for t in part] for part in (a, g)),
            *([t[:, :, left:] for t in part] for part in (c, h)),
            square,
        )
        if symmetric:
            corner = rows[:, :, : stop - start]
            corner.copy_(corner.add(corner.mT).mul_(0.5))
            theta[:, stop:, start:stop] = rows[:, :, stop - start :].mT
        theta[:, start:stop, left:] = rows
    return theta if stacked else theta[0]


def kernel(weights, biases, x, z, bias_scale, activation, outputs, contract=gram) -> torch.Tensor:
    """Return Theta (..., N, M) for checked arguments; ``z`` may be None, ``outputs`` is a pair.

    ``contract`` makes the kernel of finished sweeps. Replicas are taken so many at a time; they
    share no arithmetic, so that number does not show in the result.
    """
    how = {"bias_scale": bias_scale, "activation": activation}

    def one_go(weights, biases):
        first = sweep(weights, biases, x, output=outputs[0], **how)
        if z is None and outputs[0] == outputs[1]:
            return contract(first, bias_scale=bias_scale)
        second = sweep(weights, biases, x if z is None else z, output=outputs[1], **how)
        return contract(first, second, bias_scale=bias_scale)

    if weights[0].dim() == 2:
        return one_go(weights, biases)
    replicas, n, m = len(weights[0]), len(x), len(x if z is None else z)
    units = sum(w.shape[1] for w in weights)
    each = x.element_size() * (2 * units * (n + m) + 3 * min(n, _BLOCK) * m)
    together = max(1, _SCRATCH.get(x.device.type, _SCRATCH_ELSEWHERE) // max(each, 1))
    if together >= replicas:
        return one_go(weights, biases)
    theta = x.new_empty(replicas, n, m)
    for start in range(0, replicas, together):
        piece = slice(start, start + together)
        theta[piece] = one_go([w[piece] for w in weights], [b[piece] for b in biases])
    return theta


@torch.no_grad()
def gradient_step_(
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    sweep: Sweep,
    residual: torch.Tensor,
    *,
    learning_rate: float,
    bias_scale: float,
) -> None:
    """Take one step of gradient descent, in place, from a sweep of the present parameters.

    W_l -= lr (G_l r) A_l^T / sqrt(n_l) and b_l -= lr beta sum_i G_l r_i: the gradient of C is
    sum_i r_i df(x_i)/dtheta with r_i = dC/df(x_i), which is (f(x_i) - y_i)/N for
    C = 1/(2N) sum_i (f(x_i) - y_i)^2.

    Args:
        weights: W_l (..., n_{l+1}, n_l), changed in place; views into a larger buffer are allowed.
        biases: b_l (..., n_{l+1}), changed in place.
        sweep: of these parameters at the training inputs.
        residual: r (..., N), already divided by N.
        learning_rate: lr.
        bias_scale: beta, the one the sweep was made with.

    Raises:
        ValueError: the residual is not of the shape of the outputs, or the sweep is of networks of
            another shape.
    """
    if residual.shape != sweep.outputs.shape:
        raise ValueError(
            f"residual must have the shape of the outputs, {tuple(sweep.outputs.shape)}, "
            f"got {tuple(residual.shape)}"
        )
    if len(weights) != len(sweep.inputs) or len(biases) != len(sweep.inputs):
        raise ValueError(
            f"sweep must be of these networks: it has {len(sweep.inputs)} layers, "
            f"got {len(weights)} weights and {len(biases)} biases"
        )
    parts = (weights, biases, sweep.inputs, sweep.signals)
    for layer, (w, b, a, g) in enumerate(zip(*parts, strict=True)):
        wanted = (*g.shape[:-1], a.shape[-2])
        if w.shape != wanted or b.shape != wanted[:-1]:
            raise ValueError(
                f"sweep must be of these networks: it wants weights[{layer}] of shape {wanted}, "
                f"got {tuple(w.shape)} and biases[{layer}] of shape {tuple(b.shape)}"
            )
    stacked = residual.dim() == 2
    residual = residual if stacked else residual.unsqueeze(0)
    for w, b, a, g in zip(*(_lift(stacked, part) for part in parts), strict=True):
        pulled = g * residual.unsqueeze(-2)
        b.sub_(pulled.sum(-1), alpha=learning_rate * bias_scale)
        rate = learning_rate / math.sqrt(w.shape[-1])
        if w.is_contiguous() or w.shape[1] * w.shape[2] > _SMALL_MATRIX:
            w.baddbmm_(pulled, a.mT, alpha=-rate)
        else:
            w.sub_(pulled @ a.mT, alpha=rate)


def _lift(stacked, tensors):
    """Tensors with a replica axis in front."""
    return tensors if stacked else [t.unsqueeze(0) for t in tensors]


def _layer(w, a, b, bias_scale, fan_in=None):
    """w a / sqrt(fan_in) + bias_scale b, (R, n', N)."""
    scale = 1 / math.sqrt(fan_in or w.shape[-1])
    if a.shape[-1] <= _FEW_INPUTS:
        return torch.baddbmm(b.unsqueeze(-2), a.mT, w.mT, beta=bias_scale, alpha=scale).mT
    return torch.baddbmm(b.unsqueeze(-1), w, a, beta=bias_scale, alpha=scale)


def _gram_rows(a, g, c, h, square):
    """The sum over layers, (R, rows, columns); every product is formed once and in place."""
    last = len(a) - 1
    # A_0 is the same for all replicas
    shared = torch.baddbmm(square, a[0][:1].mT, c[0][:1], alpha=1 / a[0].shape[1])
    if not last and g[0].shape[1] == 1:
        return shared.repeat(len(a[0]), 1, 1)
    theta = g[0].mT @ h[0]
    theta.mul_(shared)
    if not last:
        return theta
    first, second = torch.empty_like(theta), torch.empty_like(theta)
    for layer in range(1, last + 1):
        scale = 1 / a[layer].shape[1]
        if layer == last and g[layer].shape[1] == 1:
            # G = 1: the last product with it is no product
            theta.baddbmm_(a[layer].mT, c[layer], alpha=scale).add_(square)
            break
        torch.baddbmm(square, a[layer].mT, c[layer], alpha=scale, out=first)
        torch.bmm(g[layer].mT, h[layer], out=second)
        theta.addcmul_(first, second)
    return theta
