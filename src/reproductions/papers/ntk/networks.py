"""Networks in the NTK parametrization: every parameter N(0, 1), the scale in the forward pass.

    a^(0) = x,   z^(l+1) = W^(l) a^(l) / sqrt(n_l) + beta b^(l),   a^(l) = s(z^(l)),   f = z^(L)

(Jacot, Gabriel & Hongler 2018, section 2). The depth L counts layers of weights, so a network has
L - 1 hidden layers, and nothing follows the last sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import index

import numpy as np
import torch

from reproductions._validate import positive_integer, within
from reproductions.kernels.structured_ntk import forward, structured_ntk

__all__ = ["Networks", "checked_widths", "draw", "in_blocks", "joined", "seeds_from", "widths_of"]

#: bytes of parameters that are worked on at a time: what stays in a core's cache, or fits a GPU
_BLOCK = {"cpu": 2**21}
_BLOCK_ELSEWHERE = 2**33


@dataclass(frozen=True)
class Networks:
    """R networks of one shape.

    Attributes:
        widths: n_0, n_1, ..., n_L.
        weights: W^(l) of shape (R, n_{l+1}, n_l), l = 0 ... L - 1.
        biases: b^(l) of shape (R, n_{l+1}).
        bias_scale: beta.
        activation: as for ``kernels.structured_ntk``.
    """

    widths: tuple[int, ...]
    weights: list[torch.Tensor]
    biases: list[torch.Tensor]
    bias_scale: float
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu"

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def options(self) -> dict[str, object]:
        """The keywords that the kernels ask for."""
        return {"bias_scale": self.bias_scale, "activation": self.activation}

    def copy(self) -> Networks:
        """The same networks with parameters of their own."""
        weights, biases = ([t.clone() for t in ts] for ts in (self.weights, self.biases))
        return replace(self, weights=weights, biases=biases)

    def outputs(self, x: torch.Tensor, *, output: int | None = None) -> torch.Tensor:
        """f(x), shape (R, N) for x of shape (N, n_0)."""
        x = x.to(self.weights[0])
        return forward(self.weights, self.biases, x, output=output, **self.options)

    def kernel(
        self,
        x: torch.Tensor,
        z: torch.Tensor | None = None,
        *,
        output: int | tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """The tangent kernel of each network, (R, N, M), in the dtype of the parameters."""
        x, z = (None if t is None else t.to(self.weights[0]) for t in (x, z))
        return structured_ntk(self.weights, self.biases, x, z, output=output, **self.options)


def widths_of(n_inputs: int, width: int, depth: int, n_outputs: int = 1) -> tuple[int, ...]:
    """n_0, n, ..., n, n_L: ``depth`` layers of weights, all hidden layers of one width."""
    positive_integer("depth", depth)
    return (n_inputs, *[width] * (depth - 1), n_outputs)


def seeds_from(seed: int, n: int) -> list[int]:
    """``n`` different seeds, one a network; the first ones do not depend on ``n``.

    Of a seed torch's generator on the CPU reads 32 bits, and these have no more.
    """
    positive_integer("n", n)
    # among 100 000 words of 32 bits two are likely the same: draw some more, drop what repeats
    words = np.random.SeedSequence(seed).generate_state(n + n // 100 + 8, np.uint32)
    return list(dict.fromkeys(words.tolist()))[:n]


def draw(
    widths: Sequence[int],
    seeds: Sequence[int],
    *,
    bias_scale: float,
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Networks:
    """Draw one network for each seed, every weight and bias from N(0, 1).

    A network depends on its own seed, the widths, the dtype and the kind of device alone, so a
    list of seeds can be split without changing any of them.

    Raises:
        ValueError: no seeds, fewer than two widths, a width below 1, a ``bias_scale`` that is
            negative or not finite.
    """
    widths = _checked(widths, seeds)
    bias_scale = within("bias_scale", bias_scale, 0.0).item()
    shapes = [(out, inp) for inp, out in pairwise(widths)]
    sizes = [out * inp for out, inp in shapes] + list(widths[1:])
    generator = torch.Generator(device)
    flat = torch.empty(len(seeds), sum(sizes), dtype=dtype, device=device)
    for row, seed in zip(flat, seeds, strict=True):
        torch.randn(row.shape, generator=generator.manual_seed(index(seed)), out=row)
    parts = flat.split(sizes, dim=1)
    # tensors of their own: one batched product then takes all networks at once
    weights = [p.reshape(-1, *s).contiguous() for p, s in zip(parts, shapes, strict=False)]
    biases = [p.contiguous() for p in parts[len(shapes) :]]
    return Networks(widths, weights, biases, bias_scale, activation)


def in_blocks(widths: Sequence[int], seeds: Sequence[int], **options) -> Iterator[Networks]:
    """Draw the networks of ``seeds`` in blocks that fit the cache; options as for ``draw``.

    An experiment that finishes one block before it draws the next reads each weight from the cache
    instead of from memory, and never holds more than a block. Errors as for ``draw``.
    """
    widths = _checked(widths, seeds)
    device = torch.device(options.get("device", "cpu"))
    item = options.get("dtype", torch.float32).itemsize
    size = sum((a + 1) * b for a, b in pairwise(widths)) * item
    rows = max(1, _BLOCK.get(device.type, _BLOCK_ELSEWHERE) // size)
    for start in range(0, len(seeds), rows):
        yield draw(widths, seeds[start : start + rows], **options)


def checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """``widths`` as a tuple of at least two positive integers; what is none is refused."""
    widths = tuple(widths)
    if len(widths) < 2:
        raise ValueError(f"widths must name at least input and output, got {widths}")
    for layer, width in enumerate(widths):
        positive_integer(f"widths[{layer}]", width)
    return widths


def _checked(widths: Sequence[int], seeds: Sequence[int]) -> tuple[int, ...]:
    if not len(seeds):
        raise ValueError("seeds must name at least one network, got none")
    return checked_widths(widths)


def joined(results: list[tuple]) -> tuple:
    """Named tuples of the blocks' tensors, joined along the networks; float64, on the CPU."""
    return type(results[0])(
        *(
            torch.cat([part.double().cpu() for part in parts])
            for parts in zip(*results, strict=True)
        )
    )
