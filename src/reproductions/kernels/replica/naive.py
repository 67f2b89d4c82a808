"""The obvious form: one network after another, as its equations are written.

    h_0 = x,   h_l = drop(norm(f(norm(h_{l-1} W_l + b_l)))),   logits = h_L W_{L+1} + b_{L+1},
    loss = mean over the batch of the cross entropy,   theta <- theta - learning_rate grad loss

with at most one of the two normalizations (Ioffe & Szegedy 2015, Algorithm 1) in place.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .spec import NORM_EPSILON, Parameters, Spec, dropout_affine

__all__ = ["outputs", "sgd_step"]

ACTIVATION = {"selu": functional.selu, "relu": functional.relu, "tanh": torch.tanh}


def _one(parameters: Parameters, replica: int) -> Parameters:
    return parameters.map(lambda t: t[replica].detach().clone())


def _network(spec, theta, x, uniforms, rate, record) -> torch.Tensor:
    h = x
    for layer in range(spec.n_hidden):

        def normalize(t, layer=layer):
            mean, variance = t.mean(0), t.var(0, correction=0)
            t = (t - mean) / torch.sqrt(variance + NORM_EPSILON)
            return theta.gains[layer] * t + theta.shifts[layer]

        z = h @ theta.weights[layer] + theta.biases[layer]
        if record is not None:
            record.append(z)
        if spec.norm == "before":
            z = normalize(z)
        h = ACTIVATION[spec.activation](z)
        if spec.norm == "after":
            h = normalize(h)
        if uniforms is not None:
            value, a, b = dropout_affine(spec.dropout, rate)
            kept = uniforms[layer] >= rate
            h = a * torch.where(kept, h, value) + b
    return h @ theta.weights[-1] + theta.biases[-1]


def outputs(
    spec: Spec,
    parameters: Parameters,
    inputs: torch.Tensor,
    record: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Logits (replicas, batch, out), without dropout; see ``ReplicaMLP.__call__``."""
    logits, hidden = [], []
    for g in range(parameters.weights[0].shape[0]):
        x = inputs if inputs.dim() == 2 else inputs[g]
        layers: list[torch.Tensor] = []
        logits.append(_network(spec, _one(parameters, g), x, None, None, layers))
        hidden.append(layers)
    if record is not None:
        record.extend(torch.stack(z) for z in zip(*hidden, strict=True))
    return torch.stack(logits)


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
    losses, stepped = [], []
    for g in range(parameters.weights[0].shape[0]):
        x = inputs if inputs.dim() == 2 else inputs[g]
        y = targets if targets.dim() == 1 else targets[g]
        noise = None if uniforms is None else [u[g] for u in uniforms]
        if weight is not None:
            rows = weight[g] > 0
            x, y = x[rows], y[rows]
            noise = None if noise is None else [u[rows] for u in noise]
        theta = _one(parameters, g).map(lambda t: t.requires_grad_())
        if len(x) == 0:
            losses.append(inputs.new_zeros(()))
            stepped.append(theta.map(torch.Tensor.detach))
            continue
        loss = functional.cross_entropy(_network(spec, theta, x, noise, dropout_rate[g], None), y)
        loss.backward()
        losses.append(loss.detach())
        stepped.append(theta.map(lambda t, g=g: t.detach() - learning_rate[g] * t.grad))
    flat = [torch.stack(tensors) for tensors in zip(*stepped, strict=True)]
    position = iter(flat)
    return parameters.map(lambda _: next(position)), torch.stack(losses)
