"""Signals and tangents through random deep networks (Klambauer et al. 2017, abstract, section 1).

A network of L layers of n units, without biases, computes x_l = f(W_l x_{l-1}) with
W_l ~ N(0, gain / n). Beside x a tangent dx is carried, dx_l = f'(W_l x_{l-1}) * (W_l dx_{l-1}): its
growth is that of the Jacobian of the network in a random direction. The tangent is renormalized in
every layer and the logarithms are summed, because 1.0352^1000 does not fit float32 squared.

The mean-field prediction (fixed input, random weights; Schoenholz et al. 2017) follows

    q_l = E f(sqrt(gain q_{l-1}) z)^2,   chi_l = gain E f'(sqrt(gain q_{l-1}) z)^2,   z ~ N(0, 1),

with the leading corrections of order 1/n, which make log q fluctuate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from reproductions._validate import choice, positive_integer

from .activations import gaussian_nodes
from .moments import ALPHA, SCALE, orbit

__all__ = [
    "NETWORKS",
    "SCALED_TANH",
    "CenteredTrace",
    "MeanField",
    "Trace",
    "mean_field",
    "propagate",
    "propagate_centered",
    "record_depths",
]

#: c with E (c tanh z)^2 = 1 for z ~ N(0, 1)
SCALED_TANH = 1.592537

#: name -> variance of a weight times the width
NETWORKS = {
    "selu": 1.0,
    "he_relu": 2.0,
    "tanh": 1.0,
    "scaled_tanh": 1.0,
    "layer_norm_relu": 1.0,
    "batch_norm_relu": 1.0,
}

_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Trace:
    """What was recorded at ``depths``; every tensor is float64, (depths, seeds, inputs).

    Attributes:
        depths: layers after which it was recorded.
        mean: mean over the units.
        second_moment: q, the mean of the squares over the units.
        cosine: cosine of inputs 2k and 2k+1, (depths, seeds, inputs // 2).
        log_growth: log of the norm of the tangent over its norm at the input. For batch
            normalization, where inputs interact, of the tangent of the whole batch.
    """

    depths: torch.Tensor
    mean: torch.Tensor
    second_moment: torch.Tensor
    cosine: torch.Tensor
    log_growth: torch.Tensor

    @property
    def variance(self) -> torch.Tensor:
        """Variance over the units."""
        return self.second_moment - self.mean.square()

    @property
    def log_q(self) -> torch.Tensor:
        """log of the second moment."""
        return self.second_moment.log()

    @property
    def log_q_variance(self) -> torch.Tensor:
        """Variance of log q over seeds and inputs, (depths,)."""
        return self.log_q.flatten(1).var(1)

    @property
    def growth_per_layer(self) -> torch.Tensor:
        """log growth divided by depth, averaged over the inputs, (depths, seeds)."""
        return self.log_growth.mean(2) / self.depths.unsqueeze(1)


def record_depths(depth: int, per_decade: int = 8) -> list[int]:
    """Depths from 1 to ``depth``, evenly spaced on a logarithmic axis, both ends included."""
    positive_integer("depth", depth)
    n = max(2, round(per_decade * math.log10(max(depth, 10))) + 1)
    return sorted({min(depth, max(1, round(d))) for d in np.geomspace(1, depth, n)})


def _standardize(z, dz, dim) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalize along ``dim`` and push the tangent through the statistics."""
    variance, mean = torch.var_mean(z, dim=dim, keepdim=True, correction=0)
    inverse = (variance + _NORM_EPSILON).rsqrt()
    z = (z - mean) * inverse
    dz = dz - dz.mean(dim, keepdim=True) - z * (z * dz).mean(dim, keepdim=True)
    return z, dz * inverse


def _activate(network: str, z: torch.Tensor, dz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """f(z) and f'(z) dz, for z and dz of shape (seeds, inputs, units)."""
    if network == "selu":
        x = functional.selu(z)
        # f' is the scale where z > 0, and f minus its saturation value where z <= 0
        return x, dz * torch.where(z > 0, SCALE, x + SCALE * ALPHA)
    if network in ("tanh", "scaled_tanh"):
        factor = SCALED_TANH if network == "scaled_tanh" else 1.0
        x = torch.tanh(z)
        return factor * x, factor * dz * (1.0 - x * x)
    if network == "layer_norm_relu":
        z, dz = _standardize(z, dz, 2)
    elif network == "batch_norm_relu":
        z, dz = _standardize(z, dz, 1)
    return functional.relu(z), dz * (z > 0)


def _unit_tangent(network: str, dx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    joint = network == "batch_norm_relu"
    norm = torch.linalg.vector_norm(dx, dim=(1, 2) if joint else 2, keepdim=True)
    return dx / norm, norm[..., 0].double().log().expand(dx.shape[:2])


def propagate(
    networks: Sequence[str],
    *,
    width: int,
    depth: int,
    n_seeds: int,
    n_inputs: int,
    generator: torch.Generator,
    record: Sequence[int] | None = None,
    input_cosine: float = 0.5,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Trace]:
    """Send the same inputs through random networks that share one draw of the weights.

    One block of normals (seeds, n, n) per layer serves every network, scaled by its own gain: the
    draw costs more than the products, and the networks differ in nothing else.

    Args:
        networks: names in ``NETWORKS``.
        width: n, units per layer and dimension of the inputs.
        depth: L, number of layers.
        n_seeds: independent networks (leading axis of one batched product).
        n_inputs: inputs per network, an even number; with batch normalization, the batch.
        generator: source of all randomness; its device is where everything runs.
        record: depths to record; ``record_depths(depth)`` by default.
        input_cosine: correlation of inputs 2k and 2k+1, whose units are N(0, 1).
        dtype: dtype of the propagation; sums of logarithms are float64.

    Raises:
        ValueError: an unknown network, a size below 1, an odd number of inputs.
    """
    for network in networks:
        choice("network", network, NETWORKS)
    for name, value in (("width", width), ("depth", depth), ("n_seeds", n_seeds)):
        positive_integer(name, value)
    if positive_integer("n_inputs", n_inputs, low=2) % 2:
        raise ValueError(f"n_inputs must be even, for inputs come in pairs; got {n_inputs}")
    depths = sorted(set(record_depths(depth) if record is None else record))
    if not depths or depths[0] < 1 or depths[-1] > depth:
        raise ValueError(f"record must name depths from 1 to {depth}, got {list(record or ())}")
    options = {"generator": generator, "dtype": dtype, "device": generator.device}
    shape = (n_seeds, n_inputs, width)
    x = torch.randn(shape, **options)
    x[:, 1::2] = input_cosine * x[:, ::2] + math.sqrt(1.0 - input_cosine**2) * x[:, 1::2]
    tangent = torch.randn(shape, **options)
    state = {k: torch.cat([x, _unit_tangent(k, tangent)[0]], 1) for k in networks}
    growth = {k: torch.zeros(shape[:2], dtype=torch.float64, device=x.device) for k in networks}
    records: dict[str, list[tuple[torch.Tensor, ...]]] = {k: [] for k in networks}
    for layer in range(1, depth + 1):
        normals = torch.randn(n_seeds, width, width, **options)
        for k in networks:
            pre = torch.bmm(state[k], normals).mul_(math.sqrt(NETWORKS[k] / width))
            x, dx = _activate(k, pre[:, :n_inputs], pre[:, n_inputs:])
            dx, log_norm = _unit_tangent(k, dx)
            growth[k] = growth[k] + log_norm
            state[k] = torch.cat([x, dx], 1)
            if layer in depths:
                y = x.double()
                q = y.square().mean(2)
                pair = (y[:, ::2] * y[:, 1::2]).mean(2) / (q[:, ::2] * q[:, 1::2]).sqrt()
                records[k].append((y.mean(2), q, pair, growth[k]))
    at = torch.tensor(depths)
    return {
        k: Trace(at, *(torch.stack(t).cpu() for t in zip(*records[k], strict=True)))
        for k in networks
    }


@dataclass(frozen=True)
class CenteredTrace:
    """Layer moments of networks with omega = 0 and tau = 1 in every unit, (layers,) each.

    ``mean`` and ``variance`` are over the units, averaged over seeds and inputs; ``variance_error``
    is the standard error of that average over seeds. ``predicted_mean`` and ``predicted_variance``
    are the orbit of the moment map from the same start.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    variance_error: torch.Tensor
    predicted_mean: torch.Tensor
    predicted_variance: torch.Tensor

    @property
    def relative_error(self) -> torch.Tensor:
        """(variance - predicted_variance) / predicted_variance, (layers,)."""
        return self.variance / self.predicted_variance - 1.0


def propagate_centered(
    *,
    mean: float,
    variance: float,
    width: int,
    depth: int,
    n_seeds: int,
    n_inputs: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> CenteredTrace:
    """SELU networks whose weight vectors are centered and normalized: sum w = 0, sum w^2 = 1.

    This is the hypothesis of the moment map with omega = 0 and tau = 1, met exactly by every unit;
    the layer's (mean, variance) then follows the map from the starting point (mean, variance) of
    i.i.d. normal inputs.
    """
    for name, value in (("width", width), ("depth", depth), ("n_seeds", n_seeds)):
        positive_integer(name, value)
    positive_integer("n_inputs", n_inputs)
    options = {"generator": generator, "dtype": dtype, "device": generator.device}
    x = mean + math.sqrt(variance) * torch.randn(n_seeds, n_inputs, width, **options)
    means, variances, errors = [], [], []
    for _ in range(depth):
        weights = torch.randn(n_seeds, width, width, **options)
        weights -= weights.mean(1, keepdim=True)
        weights /= torch.linalg.vector_norm(weights, dim=1, keepdim=True)
        x = functional.selu(torch.bmm(x, weights))
        nu, mu = torch.var_mean(x.double(), dim=2, correction=0)
        means.append(mu.mean())
        variances.append(nu.mean())
        errors.append(nu.mean(1).std() / math.sqrt(n_seeds))
    predicted = (column[1:] for column in orbit(mean, variance, n_steps=depth))
    measured = (torch.stack(t).cpu() for t in (means, variances, errors))
    return CenteredTrace(*measured, *predicted)


@dataclass(frozen=True)
class MeanField:
    """Prediction at layers 1..L, float64 (L,) each.

    Attributes:
        second_moment: q of infinitely wide networks.
        chi: gain E f'^2; ``log(chi) / 2`` is the growth of a tangent per layer at infinite width.
        log_q_mean: expected log q at the given width.
        log_q_variance: its variance over networks, for inputs with i.i.d. normal units.
        log_growth: expected log growth of a tangent at the given width, up to each layer.
    """

    second_moment: torch.Tensor
    chi: torch.Tensor
    log_q_mean: torch.Tensor
    log_q_variance: torch.Tensor
    log_growth: torch.Tensor


def mean_field(network: str, depth: int, width: int, *, second_moment: float = 1.0) -> MeanField:
    """Mean-field theory of ``network`` with the leading 1/n corrections.

    With X = f(sqrt(gain q) z), one layer multiplies q by a sample mean of n terms, so log q gains
    variance v = (E X^4 / (E X^2)^2 - 1) / n and drifts by -v/2, while what it had before is
    multiplied by the slope s = d log q_l / d log q_{l-1}. With D = f'(sqrt(gain q) z) a tangent
    gains log(chi)/2 - (3 E D^4 / (E D^2)^2 - 1) / (4 n). ReLU has s = 1: log q is a random walk.
    SELU has s = 0.7826: the walk is held, at variance v / (1 - s^2).

    Args:
        network: ``selu``, ``he_relu``, ``tanh`` or ``scaled_tanh``.
        depth: number of layers.
        width: n.
        second_moment: q of the input.
    """
    choice("network", network, ("selu", "he_relu", "tanh", "scaled_tanh"))
    positive_integer("depth", depth)
    positive_integer("width", width)
    z, w = gaussian_nodes()
    one = torch.ones_like(z)
    q, gain = float(second_moment), NETWORKS[network]
    mean, variance, growth = math.log(q) - 1.0 / width, 2.0 / width, 0.0
    bias = -1.0 / width
    rows = []
    for _ in range(depth):
        s = math.sqrt(gain * q)
        f, d = (t.flatten() for t in _activate(network, (s * z).view(1, 1, -1), one.view(1, 1, -1)))
        q_new = float(w @ f**2)
        chi = gain * float(w @ d**2)
        slope = s * float(w @ (f * d * z)) / q_new
        noise = (float(w @ f**4) / q_new**2 - 1.0) / width
        variance = slope**2 * variance + noise
        bias = slope * bias - 0.5 * noise
        growth += 0.5 * math.log(chi)
        growth -= (3.0 * float(w @ d**4) / float(w @ d**2) ** 2 - 1.0) / (4.0 * width)
        q, mean = q_new, math.log(q_new) + bias
        rows.append((q, chi, mean, variance, growth))
    return MeanField(*torch.tensor(rows, dtype=torch.float64).T)
