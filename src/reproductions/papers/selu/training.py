"""Training deep networks without normalization layers (Klambauer et al. 2017, Figure 1, section 2).

Figure 1's protocol, as its published program has it: square hidden layers, standardized inputs,
plain SGD with batches of 128 whose incomplete remainder is dropped, batch normalization placed
after ReLU with He initialization, the training loss in training mode. Its learning rate of 1e-5
multiplies the gradient of the *summed* loss of a batch: for the mean loss used here that is
``PAPER_LEARNING_RATE`` = 128e-5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from reproductions._validate import choice, positive_integer, within
from reproductions.kernels.replica import ReplicaMLP, dropout_affine

__all__ = [
    "METHODS",
    "PAPER_LEARNING_RATE",
    "DropoutMoments",
    "LossCurves",
    "dropout_moments",
    "dropout_through_layers",
    "loss_curves",
]

PAPER_LEARNING_RATE = 128e-5

#: how each method of the comparison differs from the others
METHODS: Mapping[str, Mapping[str, str]] = {
    "snn": {"activation": "selu", "initialization": "lecun"},
    "relu": {"activation": "relu", "initialization": "he"},
    "batch_norm": {"activation": "relu", "initialization": "he", "norm": "after"},
    "batch_norm_before": {"activation": "relu", "initialization": "he", "norm": "before"},
}


@dataclass(frozen=True)
class LossCurves:
    """Training losses of one method, float64.

    Attributes:
        method: name in ``METHODS``.
        depths: numbers of hidden layers.
        learning_rates: one per row of the second axis.
        loss: (depths, rates, seeds, epochs), the mean over the batches of each epoch, every batch
            before its own step. NaN from the epoch on in which a network diverged.
    """

    method: str
    depths: tuple[int, ...]
    learning_rates: tuple[float, ...]
    loss: torch.Tensor

    @property
    def final(self) -> torch.Tensor:
        """Loss of the last epoch, (depths, rates, seeds)."""
        return self.loss[..., -1]

    def best(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Per depth the rate with the lowest median final loss, (depths,), and its losses by seed.

        A rate at which any seed diverged is out; NaN where every rate is.
        """
        median = self.final.median(-1).values  # NaN where any seed is
        found = torch.where(median.isnan(), torch.inf, median).min(1)
        rates = torch.tensor(self.learning_rates, dtype=torch.float64)[found.indices]
        rates[found.values.isinf()] = torch.nan
        losses = self.final[torch.arange(len(self.depths)), found.indices]
        return rates, losses

    def jitter(self, last: int) -> torch.Tensor:
        """Standard deviation of the steps of log loss over the ``last`` epochs, (..., seeds).

        A curve that falls smoothly has a small one, however fast it falls.
        """
        if not 3 <= last <= self.loss.shape[-1]:
            raise ValueError(
                f"last must be from 3 to the {self.loss.shape[-1]} epochs of the curves, got {last}"
            )
        return self.loss[..., -last:].log().diff(dim=-1).std(-1)


def loss_curves(
    method: str,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    depths: Sequence[int],
    width: int,
    n_epochs: int,
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    n_classes: int = 10,
    batch_size: int = 128,
) -> LossCurves:
    """Train one method at several depths; rates and seeds of a depth are one stacked program.

    A seed fixes initial weights and batch order, and shares the order between methods and depths.

    Args:
        method: name in ``METHODS``.
        inputs: (rows, features), standardized; their dtype and device are those of the run.
        targets: class numbers (rows,).
        depths: numbers of hidden layers.
        width: units per hidden layer.
        n_epochs: passes over the data.
        learning_rates: rates for the mean loss of a batch.
        seeds: one integer per repetition.
        n_classes: number of outputs.
        batch_size: rows per step; a remainder is dropped.

    Raises:
        ValueError: an unknown method, no depth, rate or seed, fewer rows than one batch.
    """
    choice("method", method, METHODS)
    positive_integer("n_epochs", n_epochs)
    for name, value in (("depths", depths), ("learning_rates", learning_rates), ("seeds", seeds)):
        if len(value) == 0:
            raise ValueError(f"{name} must name at least one, got none")
    within("learning_rates", torch.tensor(learning_rates), 0.0, open_low=True)
    grid = [(rate, seed) for rate in learning_rates for seed in seeds]
    rates = torch.tensor([rate for rate, _ in grid], dtype=inputs.dtype, device=inputs.device)
    curves = torch.empty(len(depths), len(grid), n_epochs, dtype=torch.float64)
    for d, depth in enumerate(depths):
        network = ReplicaMLP(
            (inputs.shape[1], *[width] * depth, n_classes),
            [seed for _, seed in grid],
            dtype=inputs.dtype,
            device=inputs.device,
            **METHODS[method],
        )
        for epoch in range(n_epochs):
            losses = [
                network.train_step(inputs[index], targets[index], rates)
                for index, _ in network.minibatches(len(inputs), batch_size, drop_last=True)
            ]
            curves[d, :, epoch] = torch.stack(losses).mean(0)
    # a mean of finite losses after an overflow would pass for a recovery
    curves[~torch.isfinite(curves).cummin(-1).values.bool()] = torch.nan
    shape = (len(depths), len(learning_rates), len(seeds), n_epochs)
    return LossCurves(method, tuple(depths), tuple(learning_rates), curves.view(shape))


@dataclass(frozen=True)
class DropoutMoments:
    """Mean and variance before and after dropout, and the standard error of the mean after it."""

    mean_before: float
    variance_before: float
    mean: float
    variance: float
    mean_error: float


def _drop(kind: str, x: torch.Tensor, rate: torch.Tensor, generator: torch.Generator):
    value, a, b = dropout_affine(kind, rate)
    dropped = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) < rate
    return a * torch.where(dropped, value, x) + b


def dropout_moments(
    kind: str, rate: float, *, n_samples: int, generator: torch.Generator
) -> DropoutMoments:
    """Moments of ``alpha`` or ``plain`` dropout applied to SELU activations selu(z), z ~ N(0, 1).

    Those have mean 0 and variance 1. Plain dropout multiplies the variance by 1/q, q = 1 - rate;
    alpha dropout keeps both.
    """
    choice("kind", kind, ("alpha", "plain"))
    positive_integer("n_samples", n_samples, low=2)
    probability = within("rate", rate, 0.0, 1.0 - 1e-9).to(generator.device)
    z = torch.randn(n_samples, generator=generator, dtype=torch.float64, device=generator.device)
    x = functional.selu(z)
    y = _drop(kind, x, probability, generator)
    moments = [f(t).item() for t in (x, y) for f in (torch.mean, torch.var)]
    return DropoutMoments(*moments, mean_error=(moments[3] / n_samples) ** 0.5)


def dropout_through_layers(
    kind: str,
    rate: float,
    *,
    width: int,
    depth: int,
    n_seeds: int,
    n_inputs: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the activations of SELU networks with dropout in every layer.

    Weights are N(0, 1/width). Returns two float64 tensors (depth, seeds): over inputs and units.
    """
    choice("kind", kind, ("none", "alpha", "plain"))
    probability = within("rate", rate, 0.0, 1.0 - 1e-9).to(generator.device)
    options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    x = torch.randn(n_seeds, n_inputs, width, **options)
    means, variances = [], []
    for _ in range(positive_integer("depth", depth)):
        weights = torch.randn(n_seeds, width, width, **options)
        x = functional.selu(torch.bmm(x, weights) * width**-0.5)
        if kind != "none":
            x = _drop(kind, x, probability, generator)
        variance, mean = torch.var_mean(x, dim=(1, 2), correction=0)
        means.append(mean)
        variances.append(variance)
    return torch.stack(means).cpu(), torch.stack(variances).cpu()
