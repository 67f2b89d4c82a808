"""Tangent kernel of finite networks: structured form against Jacobians from torch.func."""

from __future__ import annotations

import math
import time
from functools import partial
from itertools import pairwise

import torch
from _harness import Case, benchmark
from torch.func import grad, jacrev, jvp, vjp, vmap

from reproductions.kernels.structured_ntk import gradient_step_, structured_ntk, sweep

BETA = 0.1
FEATURES = 100


def networks(widths, replicas=None, dtype=torch.float32, device="cpu"):
    """Weights and biases, iid N(0, 1); drawn in float64 so that dtypes share the draw."""
    generator = torch.Generator().manual_seed(0)
    lead = () if replicas is None else (replicas,)

    def normal(*shape):
        drawn = torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)
        return drawn.to(device, dtype)

    pairs = list(pairwise(widths))
    return [normal(m, n) for n, m in pairs], [normal(m) for _, m in pairs]


def inputs(n, features, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, features, generator=generator, dtype=torch.float64).to(device, dtype)


def output(parameters, x):
    """The network at one input (n_0,), as a function of its parameters, for torch.func."""
    weights, biases = parameters
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = w @ x / math.sqrt(len(x)) + BETA * b
        x = torch.relu(z)
        if layer == len(weights) - 1:
            return z[0]


def contraction(parameters, x):
    """Theta as PyTorch's tutorial forms it: Jacobians of every tensor, contracted one by one."""
    jacobians = vmap(jacrev(output), (None, 0))(parameters, x)
    parts = [j.flatten(1) for group in jacobians for j in group]
    return sum(j @ j.T for j in parts)


def vector_products(parameters, x):
    """The tutorial's other form: for every pair, pull back at one and push at the other."""

    def entry(first, second):
        def product(v):
            _, pull = vjp(lambda p: output(p, first), parameters)
            return jvp(lambda p: output(p, second), (parameters,), pull(v))[1]

        return product(x.new_ones(()))

    return vmap(lambda first: vmap(lambda second: entry(first, second))(x))(x)


def ours(parameters, x, **options):
    return structured_ntk(*parameters, x, bias_scale=BETA, **options)


def agreement(widths, n, replicas=None):
    """Greatest difference of the two forms in float64, relative to the greatest entry."""
    parameters = networks(widths, replicas, torch.float64)
    x = inputs(n, widths[0], torch.float64)
    form = contraction if replicas is None else vmap(contraction, (0, None))
    value, wanted = ours(parameters, x), form(parameters, x)
    difference = ((value - wanted).abs().max() / wanted.abs().max()).item()
    if not difference < 1e-12:
        raise AssertionError(f"agreement must be at most 1e-12 in float64, got {difference}")
    return difference


def size(widths):
    return sum((n + 1) * m for n, m in pairwise(widths))


def close(outputs):
    """float32 results of one shape agree; agreement in float64 is among the facts."""
    for name, value in outputs.items():
        error = (value - outputs["ours"]).abs().max() / outputs["ours"].abs().max()
        assert error < 1e-4, f"{name}: {error}"


# Counted in multiply-adds the structured form does 25, 38, 56, 76 and 95 times less at these widths
# (papers/ntk/costs.py), so the target is out of reach of arithmetic alone where the network is as
# narrow as the inputs are many.
RATIO = {"ratio": "at least 60 x"}
AGREEMENT = {"agreement": "at most 1e-12 in float64"}


def single(n, width, peers, targets):
    """Theta of one network with three hidden layers of ``width`` units, n inputs, float32."""
    widths = (FEATURES, width, width, width, 1)
    parameters, x = networks(widths), inputs(n, FEATURES)
    return Case(
        ours=partial(ours, parameters, x),
        peers={name: partial(form, parameters, x) for name, form in peers.items()},
        check=close,
        facts={
            "inputs": n,
            "width": width,
            "parameters": size(widths),
            "agreement in float64": agreement(widths, min(n, 64)),
        },
        targets=targets,
    )


def register(width):
    @benchmark(f"tangent kernel: 256 inputs, width {width}")
    def case() -> Case:
        return single(256, width, {"torch.func Jacobians": contraction}, RATIO | AGREEMENT)


for _width in (64, 128, 256, 512, 1024):
    register(_width)


@benchmark("tangent kernel: 32 inputs, width 128")
def products() -> Case:
    peers = {
        "torch.func Jacobians": contraction,
        "torch.func vector products": vector_products,
    }
    return single(32, 128, peers, AGREEMENT)


@benchmark("tangent kernels: 32000 networks of width 8, 5 inputs")
def many() -> Case:
    widths = (2, 8, 8, 8, 1)
    parameters, x = networks(widths, 32_000), inputs(5, 2)
    return Case(
        ours=partial(ours, parameters, x),
        peers={"torch.func Jacobians": partial(vmap(contraction, (0, None)), parameters, x)},
        check=close,
        facts={
            "networks": 32_000,
            "parameters": size(widths),
            "agreement in float64": agreement(widths, 5, 1000),
        },
        targets=AGREEMENT,
    )


@benchmark("tangent kernel: 2000 inputs, width 4096, float64")
def memory() -> Case:
    widths = (FEATURES, 4096, 4096, 4096, 1)
    parameters = networks(widths, dtype=torch.float64)
    x = inputs(2000, FEATURES, torch.float64)
    return Case(
        ours=partial(ours, parameters, x),
        facts={
            "inputs": 2000,
            "width": 4096,
            "parameters": size(widths),
            "GiB the Jacobian would take": round(size(widths) * 2000 * 8 / 2**30, 1),
        },
        targets={"memory": "under 2000 MiB at the peak"},
    )


STEPS = 20


@benchmark("gradient steps: 24 networks of width 256, 16 inputs")
def training() -> Case:
    widths, rate = (2, 256, 256, 256, 1), 0.5
    x, y = inputs(16, 2), inputs(16, 1)[:, 0]

    def by_hand(parameters):
        weights, biases = ([t.clone() for t in part] for part in parameters)
        for _ in range(STEPS):
            found = sweep(weights, biases, x, bias_scale=BETA)
            residual = (found.outputs - y) / len(x)
            gradient_step_(weights, biases, found, residual, learning_rate=rate, bias_scale=BETA)
        return weights[1]

    def loss(parameters):
        f = vmap(output, (None, 0))(parameters, x)
        return (f - y).square().mean() / 2

    def stacked_loss(weights, biases):
        a = x.T.expand(len(weights[0]), -1, -1)
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            z = torch.baddbmm(b[..., None], w, a, beta=BETA, alpha=1 / math.sqrt(w.shape[2]))
            a = torch.relu(z)
            if layer == len(weights) - 1:
                return (z[:, 0] - y).square().mean(1).sum() / 2

    def by_autograd(parameters):
        tensors = [t.clone().requires_grad_() for part in parameters for t in part]
        half = len(tensors) // 2
        for _ in range(STEPS):
            gradients = torch.autograd.grad(stacked_loss(tensors[:half], tensors[half:]), tensors)
            with torch.no_grad():
                for t, g in zip(tensors, gradients, strict=True):
                    t.sub_(g, alpha=rate)
        return tensors[1].detach()

    def by_vmap(parameters):
        weights, biases = parameters
        for _ in range(STEPS):
            found = vmap(grad(loss))((weights, biases))
            weights, biases = (
                [t - rate * g for t, g in zip(part, gradients, strict=True)]
                for part, gradients in zip((weights, biases), found, strict=True)
            )
        return weights[1]

    forms = {"ours": by_hand, "stacked, autograd": by_autograd, "torch.func vmap": by_vmap}

    def check(_):
        parameters = networks(widths, 24)
        weights = {name: form(parameters) for name, form in forms.items()}
        for name, value in weights.items():
            torch.testing.assert_close(
                value, weights["ours"], rtol=0, atol=1e-4, msg=lambda m, f=name: f"{f}: {m}"
            )

    parameters = networks(widths, 24)
    timed = {name: partial(form, parameters) for name, form in forms.items()}
    return Case(
        ours=timed.pop("ours"),
        peers=timed,
        check=check,
        facts={"networks": 24, "width": 256, "inputs": 16, "steps": STEPS},
    )


def on_gpu() -> Case:
    """Both forms for GPUs, with the rate of arithmetic among the facts."""
    n, widths = 4096, (FEATURES, 4096, 4096, 4096, 1)
    parameters = networks(widths, device="cuda")
    x = inputs(n, FEATURES, device="cuda")

    def synchronized(backend):
        value = ours(parameters, x, backend=backend)
        torch.cuda.synchronize()
        return value

    # forward and backward, then half of every layer's two products: the kernel is symmetric
    flop = 4 * n * size(widths) + n * n * (sum(widths[:-1]) + sum(widths[1:-1]))
    rates = {}
    for backend in ("triton", "batched"):
        synchronized(backend)
        start = time.perf_counter()
        synchronized(backend)
        rates[f"TFLOP/s, {backend}"] = round(flop / (time.perf_counter() - start) / 1e12, 1)
    return Case(
        ours=partial(synchronized, "triton"),
        peers={"batched": partial(synchronized, "batched")},
        check=close,
        facts={"inputs": n, "width": 4096, "parameters": size(widths), **rates},
    )


if torch.cuda.is_available():
    benchmark("tangent kernel on the GPU: 4096 inputs, width 4096")(on_gpu)
