"""All networks at once: one ``baddbmm`` a layer, one gradient of the summed loss.

The sum over replicas has no cross terms, so its gradient holds every network's own gradient, and a
network that has run into NaN leaves the others alone.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .spec import NORM_EPSILON, Parameters, Spec, dropout_affine

__all__ = ["outputs", "sgd_step"]

ACTIVATION = {"selu": functional.selu, "relu": functional.relu, "tanh": torch.tanh}


def _normalize(t, gain, shift, weight) -> torch.Tensor:
    """Batch normalization of each replica with the rows its weight marks as there."""
    replicas, batch, units = t.shape
    if weight is None and batch > 1:
        # units of all replicas side by side are channels of one batch_norm, 3x faster than var_mean
        wide = t.transpose(0, 1).reshape(batch, replicas * units)
        gain, shift = gain.flatten(), shift.flatten()
        wide = functional.batch_norm(wide, None, None, gain, shift, training=True, eps=NORM_EPSILON)
        return wide.view(batch, replicas, units).transpose(0, 1)
    rows = t.new_ones(replicas, batch, 1) if weight is None else weight.unsqueeze(-1)
    count = rows.sum(1, keepdim=True).clamp(min=1.0)
    mean = (t * rows).sum(1, keepdim=True) / count
    variance = ((t - mean).square() * rows).sum(1, keepdim=True) / count
    return torch.addcmul(shift, t - mean, (variance + NORM_EPSILON).rsqrt() * gain)


def _network(spec, theta, x, uniforms, rate, weight, record) -> torch.Tensor:
    replicas = theta.weights[0].shape[0]
    h = x if x.dim() == 3 else x.expand(replicas, *x.shape)
    if uniforms is not None:
        rate = rate.view(-1, 1, 1)
        value, a, b = dropout_affine(spec.dropout, rate)
    for layer in range(spec.n_hidden):
        z = torch.baddbmm(theta.biases[layer], h, theta.weights[layer])
        if record is not None:
            record.append(z)
        if spec.norm == "before":
            z = _normalize(z, theta.gains[layer], theta.shifts[layer], weight)
        h = ACTIVATION[spec.activation](z)
        if spec.norm == "after":
            h = _normalize(h, theta.gains[layer], theta.shifts[layer], weight)
        if uniforms is not None:
            h = torch.addcmul(b, a, torch.where(uniforms[layer] >= rate, h, value))
    return torch.baddbmm(theta.biases[-1], h, theta.weights[-1])


def outputs(
    spec: Spec,
    parameters: Parameters,
    inputs: torch.Tensor,
    record: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Logits (replicas, batch, out), without dropout; see ``ReplicaMLP.__call__``."""
    return _network(spec, parameters, inputs, None, None, None, record)


def sgd_step(
    spec: Spec,
    parameters: Parameters,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor | None,
    learning_rate: torch.Tensor,
    uniforms: list[torch.Tensor] | None,
    dropout_rate: torch.Tensor,
) -> tuple[Parameters, torch.Tensor]:
    """One step of gradient descent; see ``ReplicaMLP.train_step``."""
    theta = parameters.map(lambda t: t.detach().requires_grad_())
    logits = _network(spec, theta, inputs, uniforms, dropout_rate, weight, None)
    replicas, batch, _ = logits.shape
    targets = targets.expand(replicas, batch)
    rows = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    rows = rows.view(replicas, batch)
    if weight is None:
        losses = rows.mean(1)
    else:
        there = weight > 0
        losses = torch.where(there, rows, 0.0).sum(1) / there.sum(1).clamp(min=1)
    tensors = tuple(theta)
    gradients = iter(torch.autograd.grad(losses.sum(), tensors))
    step = -learning_rate.view(-1, 1, 1)
    return theta.map(lambda t: torch.addcmul(t.detach(), next(gradients), step)), losses.detach()
