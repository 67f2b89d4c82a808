"""The definition: one derivative per parameter, by autograd, in float64.

The network is (Jacot, Gabriel and Hongler 2018, section 3)

    a^(0) = x,   z^(l+1) = W^(l) a^(l) / sqrt(n_l) + beta b^(l),   a^(l) = f(z^(l)),   output z^(L)

and its tangent kernel is Theta_jk(x, x') = sum_p d_p z_j^(L)(x) d_p z_k^(L)(x') over all
parameters p (section 4).
"""

from __future__ import annotations

import torch

__all__ = ["jacobian", "kernel"]

ACTIVATION = {
    "relu": torch.relu,
    "erf": torch.erf,
    "tanh": torch.tanh,
    "linear": lambda z: z,
}


def _outputs(parameters, x, bias_scale, activation):
    """z^(L) (N, n_L) at x (N, n_0); parameters are the weights, then the biases."""
    layers = len(parameters) // 2
    z = x
    for layer in range(layers):
        a = z if layer == 0 else activation(z)
        weight, bias = parameters[layer], parameters[layers + layer]
        z = a @ weight.T / a.shape[1] ** 0.5 + bias_scale * bias
    return z


def jacobian(weights, biases, x, bias_scale, activation, output) -> torch.Tensor:
    """Return d z_output^(L)(x_i) / d theta_p, float64 (N, P), of one network."""
    activation = ACTIVATION.get(activation, activation)
    parameters = [t.detach().double().requires_grad_() for t in (*weights, *biases)]
    with torch.enable_grad():
        f = _outputs(parameters, x.double(), bias_scale, activation)[:, output]
    if not len(x):
        return f.new_empty(0, sum(t.numel() for t in parameters))
    # row i of the identity picks f(x_i)
    each = torch.eye(len(x), dtype=f.dtype, device=f.device)
    rows = torch.autograd.grad(f, parameters, each, is_grads_batched=True)
    return torch.cat([g.flatten(1) for g in rows], 1)


def kernel(weights, biases, x, z, bias_scale, activation, outputs) -> torch.Tensor:
    """Return Theta (..., N, M) for checked arguments; ``z`` may be None, ``outputs`` is a pair."""
    if weights[0].dim() == 3:
        pairs = zip(zip(*weights, strict=True), zip(*biases, strict=True), strict=True)
        each = [kernel(w, b, x, z, bias_scale, activation, outputs) for w, b in pairs]
        return torch.stack(each)
    z = x if z is None else z
    first, second = (
        jacobian(weights, biases, t, bias_scale, activation, k or 0)
        for t, k in zip((x, z), outputs, strict=True)
    )
    return (first @ second.T).to(x.dtype)
