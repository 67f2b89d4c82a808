"""Ghost batch normalization, residual sum and rectifier: one call against separate operators."""

from __future__ import annotations

from functools import partial

import torch
from _harness import Case, benchmark
from torch.nn.functional import batch_norm

from reproductions.kernels.ghost_norm import ghost_norm

STEPS = 20


def layer(batch, channels, side, dtype=torch.float32, device="cpu"):
    """x, scale, shift and residual with gradients, and the gradient of y; channels last."""
    generator = torch.Generator().manual_seed(0)

    def images():
        drawn = torch.randn(batch, channels, side, side, generator=generator)
        return drawn.to(device, dtype).contiguous(memory_format=torch.channels_last)

    vectors = (torch.randn(channels, generator=generator).to(device) for _ in range(2))
    leaves = [t.requires_grad_() for t in (images(), *vectors, images())]
    return leaves, images()


def ours(x, scale, shift, residual, group_size=None, backend="auto"):
    how = {"group_size": group_size, "residual": residual, "relu": True, "backend": backend}
    return ghost_norm(x, scale, shift, **how)[0]


def separate(x, scale, shift, residual, group_size=None):
    """As a residual network is usually written, a batch normalization for each group."""
    parts = [
        batch_norm(part, None, None, scale, shift, training=True)
        for part in x.split(group_size or len(x))
    ]
    y = parts[0] if len(parts) == 1 else torch.cat(parts)
    return torch.relu(y + residual)


def there_and_back(function, leaves, dy):
    """y and all gradients."""
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def close(outputs, tolerance):
    """Within ``tolerance`` of the norm: where y is nearly 0, rounding decides if dy passes."""
    for name, found in outputs.items():
        for one, two in zip(found, outputs["ours"], strict=True):
            error = (one.float() - two.float()).norm() / two.float().norm()
            if not error < tolerance:
                raise AssertionError(f"{name} must agree within {tolerance}, got {error}")


@benchmark("ghost norm: forward and backward, 100 images of 96 channels")
def on_cpu() -> Case:
    leaves, dy = layer(100, 96, 8)
    forms = {
        "ours": ours,
        "separate operators": separate,
        "naive": partial(ours, backend="naive"),
    }

    def repeated(function):
        for _ in range(STEPS):
            found = there_and_back(function, leaves, dy)
        return found

    calls = {name: partial(repeated, function) for name, function in forms.items()}
    return Case(
        ours=calls.pop("ours"),
        peers=calls,
        check=partial(close, tolerance=2e-3),
        facts={"batch": 100, "channels": 96, "pixels": 64, "passes": STEPS},
        targets={"ratio": "at least as fast as separate operators"},
    )


def on_gpu() -> Case:
    """A layer of the first stage of ResNet-56 at a batch of 1000 in groups of 125, captured."""
    batch, channels, side, group_size = 1000, 16, 32, 125
    leaves, dy = layer(batch, channels, side, torch.bfloat16, "cuda")
    forms = {
        "ours": partial(ours, group_size=group_size),
        "a batch normalization a group": partial(separate, group_size=group_size),
        "batched": partial(ours, group_size=group_size, backend="batched"),
    }

    def captured(function):
        """Replay ``STEPS`` passes, there and back, from one CUDA graph."""
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            there_and_back(function, leaves, dy)
        torch.cuda.current_stream().wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = there_and_back(function, leaves, dy)

        def replay():
            for _ in range(STEPS):
                graph.replay()
            torch.cuda.synchronize()
            return found

        return replay

    calls = {name: captured(function) for name, function in forms.items()}
    calls["ours"]()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    calls["ours"]()
    end.record()
    end.synchronize()
    # forward x twice, residual, y; backward dy, x, y, masked dy, and again masked dy, x, dx
    traffic = 11 * leaves[0].numel() * leaves[0].element_size()
    milliseconds = start.elapsed_time(end) / STEPS
    return Case(
        ours=calls.pop("ours"),
        peers=calls,
        check=partial(close, tolerance=0.1),
        facts={
            "batch": batch,
            "group": group_size,
            "channels": channels,
            "pixels": side**2,
            "passes": STEPS,
            "GB/s": round(traffic / milliseconds / 1e6),
        },
    )


if torch.cuda.is_available():
    benchmark("ghost norm on the GPU: 1000 images in groups of 125, bfloat16")(on_gpu)
