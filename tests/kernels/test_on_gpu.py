"""Every Triton form and the training step on a real GPU, against the same on the CPU."""

import itertools

import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.kernels.gaussian_moments import gaussian_moments
from reproductions.kernels.ghost_norm import ghost_norm
from reproductions.kernels.replica import LeNetSpec, ReplicaLeNet, ReplicaResNet, ResidualSpec
from reproductions.kernels.structured_ntk import structured_ntk
from reproductions.kernels.token_descent import token_descent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")

GPU = "cuda"


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def distance(found, wanted):
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return float((found - wanted).abs().max() / (1 + wanted.abs().max()))


def test_gaussian_moments():
    mean, variance = 3 * normal(1000), normal(1000, seed=1).square() + 1e-3
    how = {"alpha": 1.6733, "scale": 1.0507}
    wanted = gaussian_moments(mean, variance, **how, backend="batched")
    found = gaussian_moments(mean.to(GPU), variance.to(GPU), **how, backend="triton")
    for a, b in zip(found, wanted, strict=True):
        assert distance(a, b) < 1e-9


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_dual_kernel(dtype, error):
    x = normal(130, 7).to(dtype)
    how = {"depth": 3, "bias_scale": 0.1}
    wanted = dual_kernel(x.double(), **how, backend="batched")
    found = dual_kernel(x.to(GPU), **how, backend="triton")
    for a, b in zip(found, wanted, strict=True):
        assert distance(a, b) < error


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-3)])
def test_structured_ntk(dtype, error):
    widths = (3, 65, 33, 1)
    weights = [normal(2, b, a).to(dtype) for a, b in itertools.pairwise(widths)]
    biases = [normal(2, b, seed=1).to(dtype) for b in widths[1:]]
    x = normal(130, 3).to(dtype)
    wanted = structured_ntk(
        [w.double() for w in weights], [b.double() for b in biases], x.double(), bias_scale=0.3,
        activation="erf", backend="batched",
    )  # fmt: skip
    found = structured_ntk(
        [w.to(GPU) for w in weights], [b.to(GPU) for b in biases], x.to(GPU), bias_scale=0.3,
        activation="erf", backend="triton",
    )  # fmt: skip
    assert distance(found, wanted) < error


def test_token_descent():
    data = normal(30, 6, 8, 10), normal(30, 6).sign(), normal(30, 6, 10), normal(30, 10)
    how = {"learning_rate": 0.1, "n_steps": 50, "record": (0, 1, 50)}
    start = torch.zeros(10, 10, dtype=torch.float64)
    wanted = token_descent(*data, start, **how, backend="batched")
    found = token_descent(*(t.to(GPU) for t in data), start.to(GPU), **how, backend="triton")
    assert distance(found.W, wanted.W) < 1e-10


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(16, 32), (32, 16), (64, 8), (48, 5)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_ghost_norm(dtype, error, channels, size, residual):
    x = (normal(20, channels, size, size) + 3).to(dtype)
    scale, shift = normal(channels, seed=1).float(), normal(channels, seed=2).float()
    skip = normal(20, channels, size, size, seed=3).to(dtype)
    dy = normal(20, channels, size, size, seed=4).to(dtype)

    def run(device, kind, backend):
        leaves = [t.to(device, kind(t)).requires_grad_() for t in (x, scale, shift, skip)]
        leaves = leaves if residual else leaves[:3]
        images = leaves[0].to(memory_format=torch.channels_last)
        y, mean, variance = ghost_norm(
            images, *leaves[1:3], group_size=5, residual=leaves[3] if residual else None,
            relu=True, backend=backend,
        )  # fmt: skip
        gradients = torch.autograd.grad(y, leaves, dy.to(device, y.dtype))
        # of a mask at the edge of rounding nothing can be said
        return [mean, variance, y, *gradients]

    wanted = run("cpu", lambda t: torch.float64, "naive")
    found = run(GPU, lambda t: t.dtype, "triton")
    for a, b in zip(found[:3], wanted[:3], strict=True):
        assert distance(a, b) < error
    for a, b in zip(found[3:], wanted[3:], strict=True):
        off = (a.double().cpu() - b).abs() > error * (1 + b.abs().max())
        assert float(off.double().mean()) < 2e-3


@pytest.mark.parametrize("down", ["narrow", "wide"])
def test_residual_networks(down):
    spec = ResidualSpec(blocks=(2, 1, 1), down=down)
    images, labels = normal(20, 3, 32, 32).float(), torch.arange(20) % 10
    found = []
    for device in ("cpu", GPU):
        network = ReplicaResNet(spec, (0, 1), group_size=10, device=device)
        found.append(network.gradients(images.to(device), labels.to(device)))
    (losses, gradient), (gpu_losses, gpu_gradient) = found
    # convolutions run in tf32 there
    assert distance(gpu_losses, losses) < 1e-2
    assert float((gpu_gradient.cpu() - gradient).norm() / gradient.norm()) < 5e-2


# convolutions of float32 run in tf32 there, and where two pixels nearly tie the maximum is another
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 5e-2)])
def test_lenets(dtype, error):
    images, labels = normal(20, 1, 28, 28).to(dtype), torch.arange(20) % 10
    found = []
    for device in ("cpu", GPU):
        networks = ReplicaLeNet(LeNetSpec(), (0, 1), dtype=dtype, device=device)
        logits = networks.logits(images.to(device))
        found.append((logits, *networks.gradients(images.to(device), labels.to(device))))
    (logits, losses, gradient), (gpu_logits, gpu_losses, gpu_gradient) = found
    assert distance(gpu_logits, logits) < error
    assert distance(gpu_losses, losses) < error
    assert float((gpu_gradient.cpu() - gradient).norm() / gradient.norm()) < error
