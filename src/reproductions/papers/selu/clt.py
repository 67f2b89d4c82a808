"""Are the preactivations of a unit normal? (Klambauer et al. 2017, Figure A8.)

The moment map treats z = sum_i w_i x_i as normal by the central limit theorem. With Gaussian
weights and one input that is exact across *units*; the question is about one unit across *inputs*,
where the summands x_i are the features or activations of the layer below, neither independent nor
alike. Measured per unit: the Kolmogorov-Smirnov distance of the standardized preactivations to
N(0, 1), their skewness and excess kurtosis.

The control has i.i.d. summands x_i = selu(g_i), g_i ~ N(0, 1). There

    skewness(z) = skewness(x) sum_i w_i^3 / (sum_i w_i^2)^(3/2),
    excess(z)   = excess(x)   sum_i w_i^4 / (sum_i w_i^2)^2,

so equal weights give n^(-1/2) for the skewness (the Berry-Esseen rate), while for weights of random
sign sum_i w_i^3 is a random walk and the skewness falls like 1/n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from reproductions._validate import choice, positive_integer
from reproductions.kernels.replica import ReplicaMLP

from .moments import ALPHA, SCALE

__all__ = [
    "Control",
    "LayerNormality",
    "Normality",
    "hypothesis_shares",
    "iid_control",
    "layer_normality",
    "normality",
    "selu_skewness",
]


@dataclass(frozen=True)
class Normality:
    """Distance to N(0, 1) of standardized samples, float64 (...,): one value per unit."""

    ks_distance: torch.Tensor
    skewness: torch.Tensor
    excess_kurtosis: torch.Tensor


def normality(samples: torch.Tensor) -> Normality:
    """Kolmogorov-Smirnov distance, skewness and excess kurtosis of samples (n, ...) along axis 0.

    Samples are standardized with their own mean and standard deviation first. Even normal samples
    have a KS distance of about 0.6 / sqrt(n): the floor of the measurement. A unit whose samples
    are all equal gives NaN.
    """
    if samples.dim() < 1 or len(samples) < 3:
        raise ValueError(f"samples must be (n, ...) with n of at least 3, got {samples.shape}")
    x = samples.double()
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    x = (x - mean) / variance.sqrt()
    n = len(x)
    ordered = x.sort(dim=0).values
    cdf = torch.special.ndtr(ordered)
    step = torch.arange(n, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.dim() - 1)) / n
    distance = torch.maximum(cdf - step, step + 1.0 / n - cdf).amax(0)
    square = x * x
    return Normality(distance, (square * x).mean(0), (square * square).mean(0) - 3.0)


def hypothesis_shares(
    weights: torch.Tensor,
    activations: torch.Tensor,
    *,
    omega: float = 0.1,
    mu: tuple[float, float] = (-0.1, 0.1),
    nu: tuple[float, float] = (0.8, 1.5),
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many units meet the hypotheses of Theorem 1.

    Args:
        weights: (replicas, in, units); |sum over in| <= omega is asked of a unit.
        activations: (replicas, inputs, units); mean and variance over the inputs in mu x nu.

    Returns:
        Shares (replicas,) of units with omega, and of units with (mu, nu), in the box.
    """
    of_omega = (weights.sum(1).abs() <= omega).double().mean(1)
    variance, mean = torch.var_mean(activations, dim=1, correction=0)
    inside = (mean >= mu[0]) & (mean <= mu[1]) & (variance >= nu[0]) & (variance <= nu[1])
    return of_omega, inside.double().mean(1)


@dataclass(frozen=True)
class LayerNormality:
    """Medians over units, by layer and seed, float64 (layers, seeds), of one network state.

    ``ks_high`` is the distance that 95 % of the units stay below, no median. ``skewness`` is the
    median of its absolute value. ``omega_share`` and ``box_share`` are those of
    ``hypothesis_shares``.
    """

    layers: tuple[int, ...]
    ks_distance: torch.Tensor
    ks_high: torch.Tensor
    skewness: torch.Tensor
    excess_kurtosis: torch.Tensor
    omega_share: torch.Tensor
    box_share: torch.Tensor


def _inspect(network: ReplicaMLP, inputs: torch.Tensor, layers: Sequence[int]) -> LayerNormality:
    preactivations = network.preactivations(inputs)
    columns = []
    for layer in layers:
        z = preactivations[layer - 1]
        found = normality(z.transpose(0, 1))
        columns.append(
            (
                found.ks_distance.median(1).values,
                found.ks_distance.quantile(0.95, dim=1),
                found.skewness.abs().median(1).values,
                found.excess_kurtosis.median(1).values,
                *hypothesis_shares(network.parameters.weights[layer - 1], functional.selu(z)),
            )
        )
    return LayerNormality(
        tuple(layers), *(torch.stack(c).cpu() for c in zip(*columns, strict=True))
    )


def layer_normality(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    width: int,
    layers: Sequence[int],
    seeds: Sequence[int],
    n_epochs: int,
    learning_rate: float,
    n_classes: int = 10,
    batch_size: int = 128,
) -> tuple[LayerNormality, LayerNormality, float]:
    """Normality of the preactivations of SELU networks before and after training.

    Args:
        inputs: (rows, features), standardized; training data and the sample of the statistics.
        targets: class numbers (rows,).
        width: units per hidden layer.
        layers: layers to look at, from 1; the network is as deep as the last.
        seeds: one network each, stacked.
        n_epochs: passes over the data between the two looks.
        learning_rate: rate for the mean loss.
        n_classes: number of outputs.
        batch_size: rows per step.

    Returns:
        Before training, after it, and the mean training loss of the last epoch.
    """
    positive_integer("width", width)
    positive_integer("n_epochs", n_epochs)
    layers = sorted(set(layers))
    if not layers or layers[0] < 1:
        raise ValueError(f"layers must name layers from 1, got {layers}")
    network = ReplicaMLP(
        (inputs.shape[1], *[width] * layers[-1], n_classes),
        seeds,
        dtype=inputs.dtype,
        device=inputs.device,
    )
    before = _inspect(network, inputs, layers)
    for _ in range(n_epochs):
        losses = [
            network.train_step(inputs[index], targets[index], learning_rate)
            for index, _ in network.minibatches(len(inputs), batch_size, drop_last=True)
        ]
    loss = torch.stack(losses).mean().item()
    return before, _inspect(network, inputs, layers), loss


@dataclass(frozen=True)
class Control:
    """Means over units, (fan_ins,): measured, and exact for the weights that were drawn.

    ``floor`` is the mean KS distance of as many normal samples.
    """

    fan_ins: tuple[int, ...]
    ks_distance: torch.Tensor
    skewness: torch.Tensor
    predicted_skewness: torch.Tensor
    floor: float

    def rate(self, values: torch.Tensor) -> float:
        """Slope of log ``values``, one for each fan-in, against log fan-in, by least squares."""
        x = torch.tensor(self.fan_ins, dtype=torch.float64).log()
        y = values.log()
        x = x - x.mean()
        return ((x * y).sum() / (x * x).sum()).item()


def selu_skewness() -> float:
    """Skewness of selu(g), g ~ N(0, 1): E selu^3, because mean and variance are 0 and 1."""
    # E[e^{kg}; g < 0] = exp(k^2/2) Phi(-k) = erfcx(k / sqrt 2) / 2
    a = 0.5 * torch.special.erfcx(torch.arange(4, dtype=torch.float64) / math.sqrt(2.0))
    negative = a[3] - 3.0 * a[2] + 3.0 * a[1] - a[0]
    return float(SCALE**3 * (2.0 / math.sqrt(2.0 * math.pi) + ALPHA**3 * negative))


def iid_control(
    fan_ins: Sequence[int],
    *,
    weights: str,
    n_samples: int,
    n_units: int,
    generator: torch.Generator,
) -> Control:
    """Sums of i.i.d. SELU activations, where the central limit theorem applies as it stands.

    Args:
        fan_ins: numbers of summands n.
        weights: ``equal`` (1/sqrt n) or ``normal`` (N(0, 1/n)).
        n_samples: inputs per unit.
        n_units: units to average over; every unit has weights and inputs of its own.
        generator: source of randomness.
    """
    choice("weights", weights, ("equal", "normal"))
    positive_integer("n_samples", n_samples, low=3)
    positive_integer("n_units", n_units)
    options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    rows = []
    for n in fan_ins:
        positive_integer("fan_in", n)
        shape = (n_units, n)
        w = torch.ones(shape, dtype=torch.float64, device=generator.device)
        if weights == "normal":
            w = torch.randn(shape, **options)
        w = w / w.square().sum(1, keepdim=True).sqrt()
        samples = torch.stack(
            [functional.selu(torch.randn(n_samples, n, **options)) @ unit for unit in w], dim=1
        )
        found = normality(samples)
        exact = (selu_skewness() * w.pow(3).sum(1)).abs().mean()
        rows.append((found.ks_distance.mean(), found.skewness.abs().mean(), exact))
    floor = normality(torch.randn(n_samples, n_units, **options)).ks_distance.mean().item()
    columns = (torch.stack(c).cpu() for c in zip(*rows, strict=True))
    return Control(tuple(fan_ins), *columns, floor=floor)
