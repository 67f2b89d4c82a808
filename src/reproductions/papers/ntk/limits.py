"""Infinitely wide networks in training: a linear flow, and the Gaussian law of its outcome.

Under the cost C = 1/(2N) sum_i (f(x_i) - y_i)^2 gradient flow moves the outputs by

    d f_t(x)/dt = -(1/N) sum_i Theta(x, x_i) (f_t(x_i) - y_i),

and with a Theta that stays what it is this is solved by one exponential for each eigenpair
(lambda, v) of Theta / N on the data (Jacot, Gabriel and Hongler 2018, Section 5). The paper defines
Delta^i as the components of f* - f_0 and adds them to f*; the trajectory it prints needs those of
f_0 - f*, which is what is used here:

    f_t = f* + exp(-t Theta / N) (f_0 - f*)      on the data.

Time is the number of steps times the learning rate. Everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from reproductions._validate import choice, finite, number, within
from reproductions.kernels.dual_kernel import dual_kernel

__all__ = [
    "Law",
    "circle",
    "gaussian_law",
    "posterior",
    "spectral_decay",
    "spectral_filter",
    "spectral_flow",
    "spectrum",
]

Activation = str | Callable[[torch.Tensor], torch.Tensor]
Times = float | Sequence[float] | torch.Tensor

PRIORS = ("nngp", "ntk")

#: rows of the test inputs whose Gram is formed at a time, for the sake of its diagonal
_ROWS = 128


class Law(NamedTuple):
    """Mean and standard deviation of Gaussian outputs, (M,), or (T, M) for T times."""

    mean: torch.Tensor
    sd: torch.Tensor

    def quantile(self, share: float) -> torch.Tensor:
        """The value that a ``share`` of the outputs stays below, of the mean's shape.

        Raises:
            ValueError: ``share`` is no number strictly between 0 and 1.
        """
        share = number("share", share)
        if share.ndim or not 0.0 < share < 1.0:
            raise ValueError(
                f"share must be a number strictly between 0 and 1, got {share.tolist()}"
            )
        return self.mean + torch.special.ndtri(share) * self.sd


def circle(angles: torch.Tensor | Sequence[float]) -> torch.Tensor:
    """Return the points (cos gamma, sin gamma) of the unit circle, (..., 2), float64.

    The inputs of the paper's Figures 1 and 2 (the axis label of Figure 2 swaps the coordinates).
    Angles are in radians, (...), finite; others raise a ValueError.
    """
    angles = finite("angles", angles)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def spectrum(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues (N,) of Theta / N, ascending, and unit eigenvectors (N, N) as columns.

    An eigenvalue below its rounding error, N eps lambda_1, is raised to it, so that one may divide
    by all of them.
    """
    eigenvalues, vectors = torch.linalg.eigh(theta / len(theta))
    floor = len(theta) * torch.finfo(theta.dtype).eps * eigenvalues[-1].item()
    return eigenvalues.clamp(min=floor), vectors


def spectral_decay(
    eigenvalues: torch.Tensor, times: Times, *, learning_rate: float | None = None
) -> torch.Tensor:
    """Return what is left of every component at every time: e^(-lambda t), (T, N).

    With a learning rate eta it is that of gradient descent, (1 - eta lambda)^k after k = t / eta
    steps. Jacot, Gabriel and Hongler 2018, Section 5.

    Args:
        eigenvalues: lambda of Theta / N, (N,), at least 0; units of 1 / time.
        times: T times, or one, for which the result is (N,); 0 to infinity.
        learning_rate: eta; ``None`` stands for the gradient flow.

    Raises:
        ValueError: a negative eigenvalue or time, NaN; a learning rate of 2 / lambda_1 or more,
            with which gradient descent diverges; times that are no whole number of its steps.
    """
    eigenvalues, count = _steps(eigenvalues, times, learning_rate)
    if learning_rate is None:
        return (-_product(count, eigenvalues)).exp()
    return (1.0 - learning_rate * eigenvalues).pow(count)


def spectral_filter(
    eigenvalues: torch.Tensor, times: Times, *, learning_rate: float | None = None
) -> torch.Tensor:
    """Return what has been learned of every component at every time: 1 - e^(-lambda t), (T, N).

    Early stopping multiplies the components of the data by this filter: large eigenvalues come
    first. It keeps its relative precision where lambda t is tiny, as one minus
    :func:`spectral_decay` does not. Arguments and errors as there.
    """
    rates, count = _steps(eigenvalues, times, learning_rate)
    if learning_rate is None:
        return -torch.expm1(-_product(count, rates))
    step = learning_rate * rates
    # beyond a half nothing cancels, and from one on there is no logarithm
    slow = -torch.expm1(_product(count, torch.log1p(-step.clamp(max=0.5))))
    return torch.where(step < 0.5, slow, 1.0 - (1.0 - step).pow(count))


def spectral_flow(
    theta: torch.Tensor,
    residual: torch.Tensor,
    times: Times,
    *,
    learning_rate: float | None = None,
) -> torch.Tensor:
    """Return the residuals on the data, r_t = exp(-t Theta / N) r_0, (T, N).

    r = f - f*, in this order; with a learning rate eta, r_t = (1 - eta Theta / N)^(t / eta) r_0.
    One ``eigh`` serves all times. Jacot, Gabriel and Hongler 2018, Section 5.

    Args:
        theta: Theta(X, X), (N, N), symmetric, positive semidefinite.
        residual: r_0 = f_0(X) - y, (N,).
        times: T times, or one, for which the result is (N,).
        learning_rate: eta; ``None`` stands for the gradient flow.

    Raises:
        ValueError: shapes that do not fit; times and rates as for :func:`spectral_decay`.
    """
    theta, residual = finite("theta", theta), finite("residual", residual)
    if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or not len(theta):
        raise ValueError(f"theta must be (N, N) with N of at least 1, got {tuple(theta.shape)}")
    if residual.shape != theta.shape[:1]:
        raise ValueError(
            f"residual must be ({len(theta)},) beside a theta of {tuple(theta.shape)}, "
            f"got {tuple(residual.shape)}"
        )
    eigenvalues, vectors = spectrum(theta)
    decay = spectral_decay(eigenvalues, times, learning_rate=learning_rate)
    return (decay * (residual @ vectors)) @ vectors.T


def gaussian_law(
    x: torch.Tensor,
    y: torch.Tensor,
    x_test: torch.Tensor,
    *,
    depth: int,
    bias_scale: float,
    time: Times,
    weight_variance: float = 1.0,
    activation: Activation = "relu",
    learning_rate: float | None = None,
) -> Law:
    """Return the law of f_t(x_test), the outputs of an infinitely wide network after training.

    f_0 is a Gaussian process with covariance Sigma = Sigma^(L) (Proposition 1), the flow is linear
    in it with the kernel Theta = Theta^(L) (Theorem 2), so f_t is Gaussian too:

        f_t(x) = f_0(x) - M_t (f_0(X) - y),
        M_t = (Theta(x, X) / N) V diag((1 - e^(-lambda t)) / lambda) V^T,
        mean  M_t y,   covariance  B Sigma B^T with B = [-M_t, 1] on (data, test).

    At t = infinity M = Theta(x, X) Theta(X, X)^(-1), so the mean is kernel regression, but the law
    is no Bayesian posterior, for which see :func:`posterior`: two different kernels are in it.
    Jacot, Gabriel and Hongler 2018, Section 5.

    Args:
        x: training inputs, (N, n_0).
        y: training targets, (N,).
        x_test: where the law is wanted, (M, n_0).
        depth: L, number of weight layers.
        bias_scale: beta.
        time: number of steps times the learning rate: one number, or T of them; 0 (the law at
            initialization) to infinity.
        weight_variance: variance of a weight, 1 in the paper, 2 for He's.
        activation: as for :func:`reproductions.kernels.dual_kernel.dual_kernel`.
        learning_rate: eta of gradient descent, for which ``time`` is a whole number of steps;
            ``None`` stands for the gradient flow.

    Returns:
        Mean and standard deviation, (M,), or (T, M) for a sequence of times. Where the data pin
        the outputs down, the standard deviation is exact to about 1e-8, the root of rounding.

    Raises:
        ValueError: shapes that do not fit; a negative time or NaN; a learning rate of
            2 / lambda_1 or more; times that are no whole number of steps; errors of the kernel.
    """
    x, y, x_test = _checked(x, y, x_test)
    options = _options(depth, bias_scale, weight_variance, activation)
    nngp, theta = dual_kernel(x, **options)
    nngp_cross, theta_cross = dual_kernel(x_test, x, **options)
    eigenvalues, vectors = spectrum(theta)
    progress = spectral_filter(eigenvalues, time, learning_rate=learning_rate)
    gain = progress.unsqueeze(-2) / eigenvalues
    # M_t in the eigenbasis of the data, (T, M, N)
    m = (theta_cross / len(x) @ vectors) * gain
    mean = m @ (vectors.T @ y)
    nngp_cross = nngp_cross @ vectors
    inner = vectors.T @ nngp @ vectors
    variance = _diagonal(x_test, 0, options) + (m * (m @ inner - 2.0 * nngp_cross)).sum(-1)
    return Law(mean, variance.clamp(min=0).sqrt())


def posterior(
    x: torch.Tensor,
    y: torch.Tensor,
    x_test: torch.Tensor,
    *,
    prior: str,
    depth: int,
    bias_scale: float,
    weight_variance: float = 1.0,
    activation: Activation = "relu",
) -> Law:
    """Return the posterior of a Gaussian process with a limit kernel K, given noise-free data.

        mean  K(x, X) K(X, X)^(-1) y,   variance  K(x, x) - K(x, X) K(X, X)^(-1) K(X, x).

    What the law of a trained network is compared with: ``prior="nngp"`` (K = Sigma, a network of
    which only the last layer is trained) has another mean and another spread, ``prior="ntk"``
    (K = Theta) has the mean of :func:`gaussian_law` at t = infinity, but not its spread.

    Args:
        x: training inputs, (N, n_0).
        y: training targets, (N,).
        x_test: where the posterior is wanted, (M, n_0).
        prior: ``"nngp"`` or ``"ntk"``.
        depth: L, number of weight layers.
        bias_scale: beta.
        weight_variance: variance of a weight.
        activation: as for :func:`reproductions.kernels.dual_kernel.dual_kernel`.

    Raises:
        ValueError: an unknown prior, shapes that do not fit, errors of the kernel.
    """
    which = PRIORS.index(choice("prior", prior, PRIORS))
    x, y, x_test = _checked(x, y, x_test)
    options = _options(depth, bias_scale, weight_variance, activation)
    eigenvalues, vectors = spectrum(dual_kernel(x, **options)[which])
    cross = dual_kernel(x_test, x, **options)[which] @ vectors
    gain = cross / (len(x) * eigenvalues)
    variance = _diagonal(x_test, which, options) - (gain * cross).sum(1)
    return Law(gain @ (vectors.T @ y), variance.clamp(min=0).sqrt())


def _steps(eigenvalues, times, learning_rate):
    """The checked eigenvalues (N,), and the time or the number of steps as a column (T, 1)."""
    eigenvalues = within("eigenvalues", eigenvalues, 0.0)
    times = number("time", times).to(eigenvalues.device)
    if eigenvalues.ndim != 1 or times.ndim > 1:
        raise ValueError(
            f"eigenvalues must be (N,) and time a number or (T,), "
            f"got {tuple(eigenvalues.shape)} and {tuple(times.shape)}"
        )
    bad = ~(times >= 0)
    if bad.any():
        raise ValueError(f"time must be at least 0, got {times[bad][0]:g}")
    if learning_rate is None:
        return eigenvalues, times.unsqueeze(-1)
    learning_rate = within("learning_rate", learning_rate, 0.0, open_low=True).item()
    largest = eigenvalues.max().item()
    if learning_rate * largest >= 2.0:
        raise ValueError(
            f"learning_rate must be less than 2 / lambda_1 = {2.0 / largest:g}, "
            f"for gradient descent diverges there; got {learning_rate:g}"
        )
    count = (times / learning_rate).round()
    bad = (times / learning_rate - count).abs() > 1e-6 * count.clamp(min=1.0)
    if bad.any():
        raise ValueError(
            f"time must be a whole number of steps of {learning_rate:g}, got {times[bad][0]:g}"
        )
    return eigenvalues, count.unsqueeze(-1)


def _product(count, rates):
    """count * rates, (T, N); what has no rate stays, even for ever."""
    return (count * rates).nan_to_num(0.0, posinf=math.inf)


def _options(depth, bias_scale, weight_variance, activation):
    return {
        "depth": depth,
        "bias_scale": bias_scale,
        "weight_variance": weight_variance,
        "activation": activation,
    }


def _diagonal(x, which, options):
    """Diagonal (M,) of a limit kernel, without its (M, M) Gram."""
    return torch.cat([dual_kernel(rows, **options)[which].diagonal() for rows in x.split(_ROWS)])


def _checked(x, y, x_test):
    x, y, x_test = finite("x", x), finite("y", y), finite("x_test", x_test)
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"x must be (N, n_0), neither of them 0, got {tuple(x.shape)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"y must be ({len(x)},), one target per row of x, got {tuple(y.shape)}")
    if x_test.ndim != 2 or x_test.shape[1] != x.shape[1] or not len(x_test):
        raise ValueError(
            f"x_test must be (M, {x.shape[1]}), as wide as x and not empty, "
            f"got {tuple(x_test.shape)}"
        )
    return x, y, x_test
