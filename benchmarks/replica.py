"""Training steps of many small networks: stacked, one after another, and through torch.func."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from _harness import Case, benchmark
from torch.nn import functional

from reproductions.kernels.replica import ReplicaMLP

STEPS = 10
RATE = 1e-3


def vmap_steps(network: ReplicaMLP, inputs, targets, n_steps) -> Callable[[], torch.Tensor]:
    """The steps by PyTorch's own way to stack networks: ``vmap`` of ``grad``."""
    spec = network.spec
    activation = {"selu": functional.selu, "relu": torch.relu}[spec.activation]
    p = network.parameters
    state = [p.weights, p.biases, p.gains, p.shifts]

    def loss(theta, x, y):
        weights, biases, gains, shifts = theta
        h = x
        for layer in range(spec.n_hidden):
            h = activation(h @ weights[layer] + biases[layer])
            if spec.norm == "after":
                variance, mean = torch.var_mean(h, dim=0, correction=0)
                h = (h - mean) / torch.sqrt(variance + 1e-5) * gains[layer] + shifts[layer]
        return functional.cross_entropy(h @ weights[-1] + biases[-1], y)

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None))

    def steps() -> torch.Tensor:
        for _ in range(n_steps):
            found = gradient(tuple(state), inputs, targets)
            for k, grads in enumerate(found):
                state[k] = tuple(t - RATE * g for t, g in zip(state[k], grads, strict=True))
        return state[0][0]

    return steps


def case(replicas, depth, width, batch, features, classes, **options) -> Case:
    """Gradient steps of ``replicas`` networks on one batch, by three forms from one start."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, features, generator=generator)
    targets = torch.randint(classes, (batch,), generator=generator)
    widths = (features, *[width] * depth, classes)

    def forms(dtype: torch.dtype, n_steps: int) -> dict[str, Callable[[], torch.Tensor]]:
        x = inputs.to(dtype)

        def network(backend: str) -> ReplicaMLP:
            return ReplicaMLP(widths, range(replicas), backend=backend, dtype=dtype, **options)

        def steps(net: ReplicaMLP) -> torch.Tensor:
            for _ in range(n_steps):
                net.train_step(x, targets, RATE)
            return net.parameters.weights[0]

        return {
            "ours": partial(steps, network("batched")),
            "loop over networks": partial(steps, network("naive")),
            "torch.func vmap": vmap_steps(network("batched"), x, targets, n_steps),
        }

    def check(_):
        # in float64: training amplifies the rounding of float32, most of all with batch norm
        weights = {form: run() for form, run in forms(torch.float64, 2).items()}
        for form, found in weights.items():
            torch.testing.assert_close(
                found, weights["ours"], rtol=0, atol=1e-9, msg=lambda m, f=form: f"{f}: {m}"
            )

    timed = forms(torch.float32, STEPS)
    return Case(
        ours=timed.pop("ours"),
        peers=timed,
        check=check,
        facts={"replicas": replicas, "depth": depth, "width": width, "batch": batch},
    )


@benchmark("replicas: 20 SELU networks, depth 8, width 64, batch 128")
def folds() -> Case:
    return case(20, 8, 64, 128, 8, 2)


@benchmark("replicas: 16 SELU networks, depth 8, width 64, batch 32")
def tasks() -> Case:
    return case(16, 8, 64, 32, 13, 3)


@benchmark("replicas: 3 batch-norm networks, depth 16, width 128, batch 128")
def figure() -> Case:
    he = {"activation": "relu", "initialization": "he", "norm": "after"}
    return case(3, 16, 128, 128, 784, 10, **he)
