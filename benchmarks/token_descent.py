"""Normalized descent of one attention layer: batches against a loop with autograd."""

from __future__ import annotations

from functools import partial

import torch
from _harness import Case, benchmark
from torch import nn

from reproductions.kernels.token_descent import token_descent

EPSILON = 2.220446049250313e-16
RATE = 0.1
PROBLEMS, STEPS = 100, 2000
# What the loop is timed on, and scaled up from.
FEW, SHORT = 2, 500


def problems(batch, n=6, T=8, d=10, device="cpu"):
    """Tokens, labels, queries and heads: unit vectors in random directions, labels +-1."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    def unit(*shape):
        return nn.functional.normalize(normal(*shape), dim=-1)

    drawn = unit(n, T, d), normal(n).sign(), unit(n, d), unit(d)
    return tuple(t.to(device) for t in drawn)


def starts(batch, d=10, *, pair):
    """W, or K and Q, uniform within 1/sqrt(d)."""
    generator = torch.Generator().manual_seed(1)
    drawn = [
        (2 * torch.rand(batch, d, d, generator=generator, dtype=torch.float64) - 1) / d**0.5
        for _ in range(2 if pair else 1)
    ]
    return tuple(drawn) if pair else drawn[0]


class Attention(nn.Module):
    """One attention layer as its users write it: linear maps, softmax, a head that is fixed."""

    def __init__(self, weights, head):
        super().__init__()
        self.head = head
        self.maps = nn.ModuleList()
        for weight in weights:
            self.maps.append(nn.Linear(*weight.T.shape, bias=False, dtype=torch.float64))
            self.maps[-1].weight.data.copy_(weight)

    def forward(self, tokens, queries):
        """The outputs (n,)."""
        queries = self.maps[0](queries)
        keys = self.maps[1](tokens) if len(self.maps) == 2 else tokens
        attention = torch.softmax(torch.einsum("ntm,nm->nt", keys, queries), -1)
        return torch.einsum("nt,ntd->nd", attention, tokens) @ self.head


def loop(data, start, steps, penalty):
    """Descend one problem after the other by autograd and SGD; return W, (B, d, d)."""
    found = []
    for b in range(len(data[0])):
        tokens, labels, queries, head = (t[b] for t in data)
        if isinstance(start, torch.Tensor):
            model = Attention([start[b]], head)
        else:
            model = Attention([start[1][b].T, start[0][b].T], head)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.log(1 + torch.exp(-labels * model(tokens, queries))).mean()
            for p in model.parameters():
                if penalty:
                    loss = loss + penalty * p.square().sum()
            loss.backward()
            for p in model.parameters():
                p.grad /= p.grad.norm() + EPSILON
            optimizer.step()
        weights = [layer.weight.detach() for layer in model.maps]
        found.append(weights[1].T @ weights[0] if len(weights) == 2 else weights[0])
    return torch.stack(found)


def ours(data, start, steps=STEPS, **options):
    return token_descent(*data, start, learning_rate=RATE, n_steps=steps, **options).W[-1]


def against_the_loop(*, pair, gradient, penalty=0.0, steps=200, tolerance, target):
    data, start = problems(PROBLEMS), starts(PROBLEMS, pair=pair)
    few = tuple(t[:FEW] for t in data)
    begin = tuple(t[:FEW] for t in start) if pair else start[:FEW]
    options = {"gradient": gradient, "penalty": penalty}
    wanted = loop(few, begin, steps, penalty)
    error = (ours(few, begin, steps, **options) - wanted).abs().max() / wanted.abs().max()
    if not error < tolerance:
        raise AssertionError(f"the loop must agree within {tolerance}, got {error}")
    name = "autograd, one by one"
    return Case(
        ours=partial(ours, data, start, **options),
        peers={name: partial(loop, few, begin, SHORT, penalty)},
        extrapolate={name: PROBLEMS / FEW * STEPS / SHORT},
        facts={
            "problems": PROBLEMS,
            "steps": STEPS,
            "n, T, d": [6, 8, 10],
            f"difference to the loop after {steps} steps": error.item(),
        },
        targets={"ratio": f"at least {target} x", "memory": "under 2000 MiB"},
    )


@benchmark("token descent: W, exact gradient")
def exact() -> Case:
    return against_the_loop(pair=False, gradient="exact", tolerance=1e-10, target=100)


@benchmark("token descent: W, same arithmetic")
def plain() -> Case:
    return against_the_loop(pair=False, gradient="plain", tolerance=1e-11, target=60)


@benchmark("token descent: (K, Q), same arithmetic")
def factors() -> Case:
    return against_the_loop(
        pair=True, gradient="plain", penalty=EPSILON, steps=100, tolerance=1e-10, target=60
    )


@benchmark("token descent: (K, Q), exact gradient")
def exact_factors() -> Case:
    return against_the_loop(pair=True, gradient="exact", steps=100, tolerance=1e-8, target=60)


def on_gpu() -> Case:
    """The whole census of global and local solutions: 1000 problems in each of ten dimensions."""
    sizes = (3, 4, 6, 8, 10, 20, 50, 100, 200, 300)
    batches = [problems(1000, d=d, device="cuda") for d in sizes]

    def census(backend, count=1000, steps=4000):
        runs = []
        for data, d in zip(batches, sizes, strict=True):
            W = torch.zeros(d, d, dtype=torch.float64, device="cuda")
            few = tuple(t[:count] for t in data)
            runs.append(ours(few, W, steps, backend=backend))
        torch.cuda.synchronize()
        return runs

    for one, two in zip(census("triton", 20, 200), census("batched", 20, 200), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-8)
    return Case(
        ours=partial(census, "triton"),
        peers={"batched": partial(census, "batched", steps=400)},
        extrapolate={"batched": 10},
        facts={"problems": 10_000, "steps": 4000, "n, T": [6, 8], "d": list(sizes)},
        targets={"time": "seconds"},
    )


if torch.cuda.is_available():
    benchmark("token descent on the GPU: 10000 problems")(on_gpu)
