"""Limit kernels of 1000 points: tiles in cache against a layer loop over whole matrices."""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from _harness import Case, benchmark

from reproductions.kernels.dual_kernel import dual_kernel

BETA = 0.1


def points(n: int = 1000, features: int = 100, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, features, generator=generator, dtype=torch.float64).to(device)


def plain(x: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The recursion of the rectifier in float64, one matrix operation after the other."""
    sigma = torch.addmm(x.new_tensor(BETA**2), x, x.T, alpha=1 / x.shape[1])
    theta = sigma
    for _ in range(depth - 1):
        r = sigma.diagonal().sqrt()
        scale = r[:, None] * r
        cosine = (sigma / scale).clamp_(-1, 1)
        rest = math.pi - torch.acos(cosine)
        sine = (1 - cosine * cosine).sqrt_()
        sigma = scale * (sine + rest * cosine) / (2 * math.pi) + BETA**2
        theta = theta * rest / (2 * math.pi) + sigma
    return sigma, theta


def differences(found, wanted) -> tuple[float, float]:
    """Greatest difference off the diagonal and on it, of either kernel."""
    error = torch.stack([(a - b).abs() for a, b in zip(found, wanted, strict=True)])
    diagonal = error.diagonal(dim1=1, dim2=2)
    on = diagonal.max().item()
    diagonal.zero_()
    return error.max().item(), on


def close(outputs):
    """Every peer is ours off the diagonal; on it acos makes an angle of 1e-8 of a last digit."""
    for name, output in outputs.items():
        off, on = differences(output, outputs["ours"])
        assert off < 1e-12, (name, off)
        assert on < 1e-7, (name, on)


def register(depth: int) -> None:
    @benchmark(f"limit kernels: 1000 points, depth {depth}")
    def case() -> Case:
        x = points()
        ours, loop = partial(dual_kernel, x, depth=depth, bias_scale=BETA), partial(plain, x, depth)
        off, on = differences(loop(), ours())
        return Case(
            ours=ours,
            peers={"plain torch loop": loop},
            check=close,
            facts={
                "points": len(x),
                "features": x.shape[1],
                "depth": depth,
                "difference off the diagonal": off,
                "difference on the diagonal": on,
                "MiB of the two kernels": round(2 * 8 * len(x) ** 2 / 2**20, 1),
            },
            targets={"ratio": "at least 2 x", "agreement": "at most 1e-12 off the diagonal"},
        )


for _depth in (3, 4, 10):
    register(_depth)


@benchmark("limit kernels: 1000 points, every depth up to 10")
def depths() -> Case:
    x = points()

    def one_by_one():
        each = [dual_kernel(x, depth=depth, bias_scale=BETA) for depth in range(1, 11)]
        return tuple(torch.stack(kernel) for kernel in zip(*each, strict=True))

    def check(outputs):
        for one, other in zip(*outputs.values(), strict=True):
            assert (one == other).all()

    return Case(
        ours=partial(dual_kernel, x, depth=10, bias_scale=BETA, all_depths=True),
        peers={"one call a depth": one_by_one},
        check=check,
        facts={"points": len(x), "depths": 10},
    )


@benchmark("limit kernels: 8000 points, depth 4")
def memory() -> Case:
    x = points(8000)
    return Case(
        ours=partial(dual_kernel, x, depth=4, bias_scale=BETA),
        facts={"points": len(x), "MiB of the two kernels": round(2 * 8 * len(x) ** 2 / 2**20)},
        targets={"memory": "at most 500 MiB beyond the two kernels"},
    )


def on_gpu() -> Case:
    """Both forms for GPUs; the fused one in parts of the memory's bandwidth."""
    x = points(20_000, device="cuda")

    def synchronized(backend):
        kernels = dual_kernel(x, depth=4, bias_scale=BETA, backend=backend)
        torch.cuda.synchronize()
        return kernels

    def seconds(call):
        call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    matrix = 8 * len(x) ** 2
    source = torch.empty(len(x), len(x), dtype=torch.float64, device="cuda")
    bandwidth = 2 * matrix / seconds(source.clone)
    # Half a matrix of cosines is read, two matrices are written.
    part = 2.5 * matrix / seconds(partial(synchronized, "triton")) / bandwidth
    return Case(
        ours=partial(synchronized, "triton"),
        peers={"batched": partial(synchronized, "batched")},
        check=close,
        facts={
            "points": len(x),
            "depth": 4,
            "GB/s of a copy": round(bandwidth / 1e9),
            "fraction of it, the product of the points included": round(part, 3),
        },
    )


if torch.cuda.is_available():
    benchmark("limit kernels on the GPU: 20000 points, depth 4")(on_gpu)
