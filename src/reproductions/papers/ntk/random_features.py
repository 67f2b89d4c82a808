"""A model that is linear in its parameters: random functions, and their tangent kernel.

Jacot, Gabriel and Hongler 2018, Section 3.1: P functions f^(p) are drawn once, with non-centered
covariance E f^(p)(x) f^(p)(x') = K(x, x'), and the parameters only weigh them,

    f_theta = (1 / sqrt P) sum_p theta_p f^(p),   K~(x, x') = (1/P) sum_p f^(p)(x) f^(p)(x').

The tangent kernel K~ does not depend on theta, so gradient descent on theta is exactly kernel
gradient descent with it, and by the law of large numbers K~ tends to K at the rate P^(-1/2).

The functions here are Fourier features (Rahimi and Recht 2007), f = sqrt(2) cos(w . x / l + u) with
w ~ N(0, 1) and u uniform, for which K(x, x') = exp(-|x - x'|^2 / (2 l^2)). Everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from reproductions._validate import finite, positive_integer, within

__all__ = [
    "TrainedModel",
    "expected_deviation",
    "feature_deviation",
    "feature_kernel",
    "random_functions",
    "tangent_kernel",
    "train_model",
]

Model = Callable[[torch.Tensor], torch.Tensor]

#: values of functions held at a time: 32 MB
_CHUNK = 1 << 22


class TrainedModel(NamedTuple):
    """Tangent kernels (N, N) before and after training, and all outputs (steps + 1, N)."""

    before: torch.Tensor
    after: torch.Tensor
    outputs: torch.Tensor


def random_functions(
    x: torch.Tensor, n_functions: int, *, length_scale: float, generator: torch.Generator
) -> torch.Tensor:
    """Return the values f^(p)(x) of random Fourier features, (n_functions, N).

    Args:
        x: points, (N, n_0).
        n_functions: P.
        length_scale: l, greater than 0, in units of x.
        generator: draws the functions.

    Raises:
        ValueError: points of another shape, no function, a length scale that is not positive.
    """
    x = _points(x)
    positive_integer("n_functions", n_functions)
    length_scale = within("length_scale", length_scale, 0.0, open_low=True).item()
    options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    frequencies = torch.randn(n_functions, x.shape[1], **options)
    phases = 2.0 * math.pi * torch.rand(n_functions, 1, **options)
    return math.sqrt(2.0) * (frequencies @ x.T / length_scale + phases).cos()


def feature_kernel(x: torch.Tensor, *, length_scale: float) -> torch.Tensor:
    """Return K(x, x') = exp(-|x - x'|^2 / (2 l^2)) on points (N, n_0), (N, N).

    Raises:
        ValueError: points of another shape, a length scale that is not positive.
    """
    return (-0.5 * _squared_distances(x, length_scale)).exp()


def feature_deviation(
    x: torch.Tensor,
    counts: Sequence[int],
    *,
    n_draws: int,
    length_scale: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return |K~ - K|_F / |K|_F for each number P of functions and each draw, (counts, draws).

    Args:
        x: points, (N, n_0).
        counts: numbers P of functions.
        n_draws: independent draws of each.
        length_scale: l.
        generator: source of all draws.

    Raises:
        ValueError: points of another shape, a count below 1, a length scale that is not positive.
    """
    positive_integer("n_draws", n_draws)
    kernel = feature_kernel(x, length_scale=length_scale)
    rows = []
    for count in counts:
        positive_integer("counts", count)
        together = max(1, min(n_draws, _CHUNK // (count * len(kernel))))
        found = []
        for start in range(0, n_draws, together):
            size = min(together, n_draws - start)
            values = random_functions(
                x, size * count, length_scale=length_scale, generator=generator
            ).unflatten(0, (size, count))
            tangent = values.mT @ values / count
            found.append(torch.linalg.matrix_norm(tangent - kernel))
        rows.append(torch.cat(found))
    return torch.stack(rows) / torch.linalg.matrix_norm(kernel)


def expected_deviation(
    x: torch.Tensor, counts: Sequence[int], *, length_scale: float
) -> torch.Tensor:
    """Return the root mean square of :func:`feature_deviation` over draws, exactly, (counts,).

    One function contributes Var f(x) f(x') = 1 + e^(-2 d) / 2 - e^(-d), d = |x - x'|^2 / l^2, and P
    independent ones a P-th of it: what is measured has to have this level, not only a slope.
    Arguments and errors as there.
    """
    d = _squared_distances(x, length_scale)
    variance = (1.0 + 0.5 * (-2.0 * d).exp() - (-d).exp()).sum()
    counts = torch.tensor([positive_integer("counts", count) for count in counts])
    kernel = feature_kernel(x, length_scale=length_scale)
    return (variance / counts).sqrt() / torch.linalg.matrix_norm(kernel)


def tangent_kernel(model: Model, parameters: torch.Tensor) -> torch.Tensor:
    """Return sum_p df(x)/dtheta_p df(x')/dtheta_p, (N, N), of a model (P,) -> (N,).

    By automatic differentiation, so that nothing of a model's form is taken for granted.
    """
    jacobian = torch.autograd.functional.jacobian(model, parameters.detach(), vectorize=True)
    return jacobian @ jacobian.T


def train_model(
    model: Model,
    parameters: torch.Tensor,
    y: torch.Tensor,
    *,
    n_steps: int,
    learning_rate: float,
) -> TrainedModel:
    """Descend the gradient of C = 1/(2N) sum (f - y)^2; return tangent kernels and outputs.

    The gradient is that of the parameters, from automatic differentiation: for a model that is
    linear in them the kernel does not move at all, for any other one it does.

    Args:
        model: maps parameters (P,) to outputs on the data, (N,).
        parameters: theta to start from, (P,); left as they are.
        y: targets, (N,).
        n_steps: steps of gradient descent.
        learning_rate: eta; time is the number of steps times eta.

    Raises:
        ValueError: targets and outputs of different shapes, no step, a rate that is not positive.
    """
    positive_integer("n_steps", n_steps)
    learning_rate = within("learning_rate", learning_rate, 0.0, open_low=True).item()
    y = finite("y", y)
    theta = parameters.detach().clone()
    before = tangent_kernel(model, theta)
    outputs = []
    for _ in range(n_steps):
        theta.requires_grad_()
        f = model(theta)
        if f.shape != y.shape:
            raise ValueError(
                f"y must be {tuple(f.shape)}, as the outputs are, got {tuple(y.shape)}"
            )
        cost = 0.5 * (f - y).square().mean()
        (gradient,) = torch.autograd.grad(cost, theta)
        theta = theta.detach() - learning_rate * gradient
        outputs.append(f.detach())
    outputs.append(model(theta))
    return TrainedModel(before, tangent_kernel(model, theta), torch.stack(outputs))


def _points(x):
    x = finite("x", x)
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"x must be (N, n_0), neither of them 0, got {tuple(x.shape)}")
    return x


def _squared_distances(x, length_scale):
    x = _points(x) / within("length_scale", length_scale, 0.0, open_low=True).item()
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
