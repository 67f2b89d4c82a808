"""What the replicas have in common: shape, activation, normalization, dropout, initialization."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch

from reproductions._validate import choice, positive_integer

__all__ = ["SELU_SATURATION", "Parameters", "Spec", "dropout_affine", "initialize"]

#: lim selu(z), z -> -inf: -scale alpha with the constants of ``torch.nn.SELU``.
SELU_SATURATION = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717

ACTIVATIONS = ("selu", "relu", "tanh")
NORMS = ("none", "before", "after")
DROPOUTS = ("none", "plain", "alpha")
#: variance of a weight times its fan-in
GAINS = {"lecun": 1.0, "he": 2.0}
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Spec:
    """A multilayer perceptron: ``widths`` from input to output, and what happens between.

    ``norm`` places batch normalization (always with the statistics of the batch) before or after
    the activation; dropout comes last in a layer. The last layer is linear.
    """

    widths: tuple[int, ...]
    activation: str = "selu"
    initialization: str = "lecun"
    norm: str = "none"
    dropout: str = "none"

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise ValueError(f"widths must name at least input and output, got {self.widths!r}")
        for width in self.widths:
            positive_integer("width", width)
        choice("activation", self.activation, ACTIVATIONS)
        choice("initialization", self.initialization, GAINS)
        choice("norm", self.norm, NORMS)
        choice("dropout", self.dropout, DROPOUTS)

    @property
    def n_hidden(self) -> int:
        """Number of hidden layers."""
        return len(self.widths) - 2


@dataclass(frozen=True)
class Parameters:
    """Weights (replicas, in, out), biases (replicas, 1, out) and, per normalized hidden layer,
    gains and shifts (replicas, 1, out)."""

    weights: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor, ...]
    gains: tuple[torch.Tensor, ...] = ()
    shifts: tuple[torch.Tensor, ...] = ()

    def __iter__(self) -> Iterator[torch.Tensor]:
        for group in fields(self):
            yield from getattr(self, group.name)

    def map(self, function) -> Parameters:
        """Apply ``function`` to every tensor."""
        groups = (getattr(self, group.name) for group in fields(self))
        return Parameters(*(tuple(function(t) for t in group) for group in groups))


def initialize(
    spec: Spec, seeds: Sequence[int], *, dtype: torch.dtype, device: torch.device | str
) -> Parameters:
    """Draw the parameters of one replica per seed: w ~ N(0, gain / fan_in), biases 0.

    The gain is 1 for ``lecun`` and 2 for ``he``. A replica's draw depends on its own seed alone,
    on the CPU and in float64, so it is the same in every stack, on every device, in every dtype.
    """
    gain = GAINS[spec.initialization]
    shapes = list(zip(spec.widths[:-1], spec.widths[1:], strict=True))
    drawn: list[list[torch.Tensor]] = [[] for _ in shapes]
    for seed in seeds:
        generator = torch.Generator().manual_seed(int(seed))
        for layer, (fan_in, fan_out) in enumerate(shapes):
            weight = torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float64)
            drawn[layer].append(weight * math.sqrt(gain / fan_in))

    def constant(value: float, widths: Sequence[int]) -> tuple[torch.Tensor, ...]:
        size = len(seeds)
        return tuple(torch.full((size, 1, n), value, dtype=dtype, device=device) for n in widths)

    normalized = spec.widths[1:-1] if spec.norm != "none" else ()
    return Parameters(
        weights=tuple(torch.stack(w).to(device=device, dtype=dtype) for w in drawn),
        biases=constant(0.0, spec.widths[1:]),
        gains=constant(1.0, normalized),
        shifts=constant(0.0, normalized),
    )


def dropout_affine(kind: str, rate: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Return (v, a, b) of the dropout y = a (x d + v (1 - d)) + b, d ~ Bernoulli(1 - rate).

    ``plain``: v = 0, a = 1/q, b = 0 with q = 1 - rate. ``alpha`` (Klambauer et al. 2017, section
    "New Dropout Technique"): v is SELU's saturation value, a = (q + v² q (1-q))^(-1/2) and
    b = -a (1-q) v, which keep mean 0 and variance 1.
    """
    q = 1.0 - rate
    if kind == "plain":
        return 0.0, 1.0 / q, torch.zeros_like(q)
    v = SELU_SATURATION
    a = (q + v * v * q * (1.0 - q)).rsqrt()
    return v, a, -a * (1.0 - q) * v
