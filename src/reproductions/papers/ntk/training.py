"""Gradient descent on wide networks, and what moves (Theorem 2, Figs. 1 to 3, Remark 4).

The cost is C = 1/(2N) sum_i (f(x_i) - y_i)^2 and time is the number of steps times the learning
rate, so that df_t/dt = -(1/N) sum_i Theta_t(., x_i) (f_t(x_i) - y_i) as the step goes to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from reproductions._validate import finite, positive_integer, within
from reproductions.kernels.structured_ntk import Sweep, gradient_step_, gram, sweep

from .limits import spectral_filter, spectrum
from .networks import Networks, in_blocks, joined, widths_of

__all__ = [
    "Movement",
    "Trained",
    "descend",
    "dissipation_errors",
    "linearized",
    "movement",
    "product_target",
    "trained_outputs",
]


def product_target(x: torch.Tensor) -> torch.Tensor:
    """f*(x) = x_1 x_2, the target of the paper's Figure 1; (N,) for x of shape (N, 2)."""
    return x[:, 0] * x[:, 1]


def descend(
    nets: Networks,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    learning_rate: float,
    steps: int,
    observe: Callable[[int, Sweep], None] | None = None,
) -> None:
    """Full-batch gradient descent on C, in place.

    Args:
        nets: R networks; their parameters change.
        x: inputs (N, n_0), shared.
        y: targets, (N,) or one row a network, (R, N).
        learning_rate: step in time; stable below 2 over the largest eigenvalue of Theta / N.
        steps: number of steps.
        observe: called before each step with its number and the sweep over ``x``.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity in x or y, ``learning_rate`` not above
            0, negative ``steps``.
    """
    x, y = _data(nets, x, y)
    learning_rate = within("learning_rate", learning_rate, 0.0, open_low=True).item()
    positive_integer("steps", steps, low=0)
    for step in range(steps):
        now = sweep(nets.weights, nets.biases, x, **nets.options)
        if observe is not None:
            observe(step, now)
        residual = (now.outputs - y) / len(x)
        gradient_step_(
            nets.weights,
            nets.biases,
            now,
            residual,
            learning_rate=learning_rate,
            bias_scale=nets.bias_scale,
        )


def _data(nets: Networks, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y, checked, in the dtype and on the device of the networks."""
    x, y = (finite(name, value).to(nets.weights[0]) for name, value in (("x", x), ("y", y)))
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x must have shape (N, n_0) with N of at least 1, got {tuple(x.shape)}")
    if y.shape not in {(len(x),), (len(nets), len(x))}:
        raise ValueError(
            f"y must have shape ({len(x)},) or ({len(nets)}, {len(x)}), got {tuple(y.shape)}"
        )
    return x, y


def _cost(nets: Networks, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    f = nets.outputs(x)
    return 0.5 * (f - y.to(f)).square().mean(1)


def _one_target_each(y: torch.Tensor, x: torch.Tensor) -> None:
    # a row for each network would have to be cut into the blocks of networks
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"y must have shape ({len(x)},), the same targets for every network, "
            f"got {tuple(y.shape)}"
        )


class Movement(NamedTuple):
    """Before and after training, one row a network.

    ``before`` and ``after`` are tangent kernels on the probe (R, M, M); ``weights`` (R, L) and
    ``activations`` (R, L - 1) relative changes in Frobenius norm, layer by layer; ``function`` and
    ``linear`` (R, M) the trained function and the trained linearization; ``cost`` (R,) is C;
    ``start`` (R, M) is the function before training, ``lower`` (R, M) the trained one with the last
    layer, weights and bias, put back to where it started.
    """

    before: torch.Tensor
    after: torch.Tensor
    weights: torch.Tensor
    activations: torch.Tensor
    function: torch.Tensor
    linear: torch.Tensor
    cost: torch.Tensor
    start: torch.Tensor
    lower: torch.Tensor

    @property
    def share_of_lower_layers(self) -> torch.Tensor:
        """Share of the way from f_0 to f_T that the layers below the last go alone, (R,).

        <lower - start, function - start> / ||function - start||^2 over the probe: 1 if nothing but
        these layers moved the function, 0 if the last alone did, NaN if it did not move. Above 1
        where the last layer takes back a part of what they do, below 0 where it reverses them.
        """
        way, alone = self.function - self.start, self.lower - self.start
        return (alone * way).sum(1) / way.square().sum(1)

    @property
    def inflation(self) -> torch.Tensor:
        """sum_x Theta_T(x, x) / sum_x Theta_0(x, x) - 1 over the probe, (R,)."""
        before, after = (k.diagonal(dim1=1, dim2=2).sum(1) for k in (self.before, self.after))
        return after / before - 1.0

    @property
    def kernel(self) -> torch.Tensor:
        """||Theta_T - Theta_0||_F / ||Theta_0||_F, (R,)."""
        return _relative(self.after, self.before)

    @property
    def nonlinearity(self) -> torch.Tensor:
        """Root mean square over the probe of the function minus its linearization, (R,)."""
        return (self.function - self.linear).square().mean(1).sqrt()


def _relative(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)


def _changes(after: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> torch.Tensor:
    """Relative change of each tensor of a list, one row a network."""
    return torch.stack([_relative(a, b) for a, b in zip(after, before, strict=True)], dim=1)


def movement(
    width: int,
    seeds: Sequence[int],
    x: torch.Tensor,
    y: torch.Tensor,
    probe: torch.Tensor,
    *,
    depth: int,
    learning_rate: float,
    steps: int,
    **options,
) -> Movement:
    """Train one network a seed and measure on ``probe`` (M, n_0) what has moved.

    The linearization f_0 + <grad f_0, theta - theta_0> is trained by the same gradient descent, in
    closed form from the network's own kernel at the start (:func:`linearized`).

    Args:
        width: n, units of a hidden layer.
        seeds: one a network.
        x: training inputs, (N, n_0).
        y: targets (N,), the same for every network.
        probe: where to look, (M, n_0).
        depth: L, layers of weights.
        learning_rate: step in time.
        steps: number of steps.
        options: ``bias_scale`` (required), ``activation``, ``dtype``, ``device`` as for ``draw``.

    Raises:
        ValueError: as for ``draw`` and :func:`descend`; a learning rate of 2 / lambda_1 or more for
            some network's Theta / N at the start.
    """
    _one_target_each(y, x)
    results = []
    for nets in in_blocks(widths_of(x.shape[-1], width, depth), seeds, **options):
        x, y = _data(nets, x, y)
        start, probe = nets.copy(), probe.to(x)
        old = sweep(nets.weights, nets.biases, probe, **nets.options)
        on_data = sweep(nets.weights, nets.biases, x, **nets.options)
        linear = linearized(
            gram(on_data, bias_scale=nets.bias_scale),
            gram(old, on_data, bias_scale=nets.bias_scale),
            on_data.outputs - y,
            learning_rate=learning_rate,
            steps=steps,
        )
        descend(nets, x, y, learning_rate=learning_rate, steps=steps)
        new = sweep(nets.weights, nets.biases, probe, **nets.options)
        put_back = replace(
            nets,
            weights=[*nets.weights[:-1], start.weights[-1]],
            biases=[*nets.biases[:-1], start.biases[-1]],
        )
        results.append(
            Movement(
                before=gram(old, bias_scale=nets.bias_scale),
                after=gram(new, bias_scale=nets.bias_scale),
                weights=_changes(nets.weights, start.weights),
                # the inputs themselves, A_0, cannot move
                activations=_changes(new.inputs, old.inputs)[:, 1:],
                function=new.outputs,
                linear=old.outputs.double() + linear,
                cost=_cost(nets, x, y),
                start=old.outputs,
                lower=put_back.outputs(probe),
            )
        )
    return joined(results)


def linearized(
    theta: torch.Tensor,
    cross: torch.Tensor,
    residual: torch.Tensor,
    *,
    learning_rate: float,
    steps: int,
) -> torch.Tensor:
    """What gradient descent adds to f_0 if the tangent kernel stays what it is; (R, M), float64.

        f_k(x) - f_0(x) = -(Theta(x, X)/N) V diag((1 - (1 - eta lambda)^k) / lambda) V^T r_0

    with the eigenpairs (lambda, v) of Theta(X, X) / N: the function of a network whose parameters
    enter linearly, trained for k steps (Lee et al. 2019).

    Args:
        theta: kernels on the data, (R, N, N).
        cross: kernels between the probe and the data, (R, M, N).
        residual: r_0 = f_0(X) - y, (R, N).
        learning_rate: eta.
        steps: k.

    Raises:
        ValueError: shapes that do not fit; a learning rate of 2 / lambda_1 or more, for which
            gradient descent diverges, or not above 0; negative ``steps``.
    """
    learning_rate = within("learning_rate", learning_rate, 0.0, open_low=True).item()
    positive_integer("steps", steps, low=0)
    replicas, n = residual.shape
    if theta.shape != (replicas, n, n) or cross.ndim != 3 or cross.shape[::2] != (replicas, n):
        raise ValueError(
            f"theta and cross must be (R, N, N) and (R, M, N) beside a residual (R, N) of "
            f"{tuple(residual.shape)}, got {tuple(theta.shape)} and {tuple(cross.shape)}"
        )
    added = []
    for on_data, off_data, r in zip(theta.double(), cross.double(), residual.double(), strict=True):
        values, vectors = spectrum(on_data)
        learned = spectral_filter(values, steps * learning_rate, learning_rate=learning_rate)
        added.append(-(off_data / len(r)) @ vectors @ (learned / values * (vectors.T @ r)))
    return torch.stack(added)


class Trained(NamedTuple):
    """``function`` (R, M) on the probe after training and the ``cost`` (R,) that is left."""

    function: torch.Tensor
    cost: torch.Tensor


def trained_outputs(
    width: int,
    seeds: Sequence[int],
    x: torch.Tensor,
    y: torch.Tensor,
    probe: torch.Tensor,
    *,
    depth: int,
    learning_rate: float,
    steps: int,
    **options,
) -> Trained:
    """Train one network a seed on (x, y); arguments and errors as for :func:`descend`.

    ``y`` has shape (N,); options as for ``movement``.
    """
    _one_target_each(y, x)
    results = []
    for nets in in_blocks(widths_of(x.shape[-1], width, depth), seeds, **options):
        descend(nets, x, y, learning_rate=learning_rate, steps=steps)
        results.append(Trained(nets.outputs(probe), _cost(nets, x, y)))
    return joined(results)


def dissipation_errors(
    nets: Networks,
    x: torch.Tensor,
    y: torch.Tensor,
    learning_rates: Sequence[float],
    *,
    theta: torch.Tensor | None = None,
) -> torch.Tensor:
    """How well dC/dt = -||d||^2_Theta holds along one small step; (len(learning_rates), R).

    d = f - y is the cost's derivative on the data and ||d||^2_Theta = d^T Theta d / N^2 with the
    network's own kernel (section 3). Each entry is (C after - C before) / learning_rate divided by
    it, minus 1: proportional to the learning rate; use float64 networks. ``theta`` (N, N) puts
    another kernel in the place of the network's own, for which it must not hold.

    Raises:
        ValueError: as for :func:`descend`.
    """
    x, y = _data(nets, x, y)
    now = sweep(nets.weights, nets.biases, x, **nets.options)
    residual = (now.outputs - y) / len(x)
    theta = gram(now, bias_scale=nets.bias_scale) if theta is None else theta.to(x)
    rate = -(residual.unsqueeze(1) @ theta @ residual.unsqueeze(2)).flatten()
    before = _cost(nets, x, y)
    errors = []
    for learning_rate in learning_rates:
        moved = nets.copy()
        descend(moved, x, y, learning_rate=learning_rate, steps=1)
        change = (_cost(moved, x, y) - before) / learning_rate
        errors.append(change / rate - 1.0)
    return torch.stack(errors)
