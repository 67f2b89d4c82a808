"""Which activations can be self-normalizing? A zoo of fifteen, each scaled and shifted.

Any activation f becomes a candidate as a f + b with a = 1/sd f(z), b = -a E f(z), z ~ N(0, 1): then
(0, 1) is a fixed point of the layer map at omega = 0, tau = 1. Whether it attracts is decided by
d nu'/d nu there; whether gradients grow by chi1 = E (a f')^2. Klambauer et al. 2017, section 2, say
that no scaled ReLU, leaky ReLU, sigmoid or tanh network is self-normalizing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

__all__ = ["ACTIVATIONS", "Activation", "NormalizedActivation", "activation_zoo", "gaussian_nodes"]


class Activation(NamedTuple):
    """An activation, elementwise on tensors, and the points where it is not smooth."""

    function: Callable[[torch.Tensor], torch.Tensor]
    kinks: tuple[float, ...] = ()


class NormalizedActivation(NamedTuple):
    """gain f + shift, which has (0, 1) as fixed point at omega = 0, tau = 1."""

    name: str
    gain: float
    shift: float
    slope: float
    """d nu'/d nu at (0, 1); below 1 the variance is attracted."""
    chi1: float
    """E (gain f')^2; above 1 gradients explode."""

    @property
    def attracting(self) -> bool:
        """Whether (0, 1) attracts: omega = 0 leaves the slope as the only nonzero eigenvalue.

        A slope within 1e-9 of 1 is neutral (positively homogeneous activations), not attracting.
        """
        return self.slope < 1 - 1e-9


ACTIVATIONS: Mapping[str, Activation] = {
    "ReLU": Activation(torch.relu, (0.0,)),
    "leaky ReLU .01": Activation(lambda z: functional.leaky_relu(z, 0.01), (0.0,)),
    "leaky ReLU .2": Activation(lambda z: functional.leaky_relu(z, 0.2), (0.0,)),
    "SELU": Activation(functional.selu, (0.0,)),
    "ELU": Activation(functional.elu, (0.0,)),
    "tanh": Activation(torch.tanh),
    "erf": Activation(torch.erf),
    "sigmoid": Activation(torch.sigmoid),
    "sin": Activation(torch.sin),
    "softsign": Activation(functional.softsign, (0.0,)),
    "hard tanh": Activation(functional.hardtanh, (-1.0, 1.0)),
    "GELU": Activation(functional.gelu),
    "SiLU": Activation(functional.silu),
    "softplus": Activation(functional.softplus),
    "Mish": Activation(functional.mish),
}

_REACH = 13
_NODES = 20


def gaussian_nodes(kinks: tuple[float, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Return nodes z and weights (n,), float64, with sum(weights g(z)) = E g(z) for z ~ N(0, 1).

    Gauss-Legendre with 20 nodes on each half unit of [-13, 13], cut at ``kinks`` as well. Gauss-
    Hermite nodes would be wrong here: they straddle the kink.
    """
    breaks = np.unique(np.concatenate([np.arange(-2 * _REACH, 2 * _REACH + 1) / 2, kinks]))
    breaks = breaks[np.abs(breaks) <= _REACH]
    abscissa, weight = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(breaks)[:, None] / 2
    z = (breaks[1:, None] + breaks[:-1, None]) / 2 + half * abscissa
    weights = half * weight * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return torch.from_numpy(z.ravel()), torch.from_numpy(weights.ravel())


def activation_zoo(
    activations: Mapping[str, Activation] = ACTIVATIONS,
) -> dict[str, NormalizedActivation]:
    """Return gain, shift, d nu'/d nu and chi1 for every activation, by quadrature.

    With z ~ N(0, x) at x = 1, d/dx E h(z) = E[h'(z) z]/(2x) for a function with kinks, so
    d nu'/d nu = gain^2 (E[f f' z] - E f E[f' z]): no second derivative is needed. f' is torch's.
    """
    zoo = {}
    for name, (function, kinks) in activations.items():
        z, weight = gaussian_nodes(kinks)
        with torch.enable_grad():
            z.requires_grad_()
            value = function(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        z, value = z.detach(), value.detach()

        def expect(integrand: torch.Tensor, weight: torch.Tensor = weight) -> float:
            return (weight * integrand).sum().item()

        mean = expect(value)
        gain = 1 / math.sqrt(expect((value - mean).square()))
        zoo[name] = NormalizedActivation(
            name=name,
            gain=gain,
            shift=-gain * mean,
            slope=gain**2 * expect((value - mean) * slope * z),
            chi1=gain**2 * expect(slope.square()),
        )
    return zoo
