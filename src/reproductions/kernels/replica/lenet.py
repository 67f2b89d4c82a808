"""LeNet as Caffe ships it, many networks as one batched program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from reproductions._validate import positive_integer

from .rows import Entry, RowSpec, entries_of, replica_losses, stacked_images

__all__ = ["LeNetSpec", "ReplicaLeNet"]

KERNEL = 5


@dataclass(frozen=True)
class LeNetSpec(RowSpec):
    """Shape of Caffe's LeNet (``examples/mnist/lenet_train_test.prototxt``).

    5x5 convolution, 2x2 maximum, 5x5 convolution, 2x2 maximum, linear, relu, linear: the
    convolutions have no activation but the maximum. 431,080 parameters by default.

    Attributes:
        size: side of the images.
        channels: channels of the images.
        widths: channels of the two convolutions.
        hidden: units of the hidden layer.
        n_classes: number of logits.

    Raises:
        ValueError: a number below 1, a size whose convolutions leave an odd side or none.
    """

    size: int = 28
    channels: int = 1
    widths: tuple[int, int] = (20, 50)
    hidden: int = 500
    n_classes: int = 10

    def __post_init__(self) -> None:
        for name in ("size", "channels", "hidden", "n_classes"):
            positive_integer(name, getattr(self, name))
        if len(self.widths) != 2:
            raise ValueError(f"widths must name two convolutions, got {self.widths}")
        for width in self.widths:
            positive_integer("widths", width)
        left = self.size
        for _ in self.widths:
            left = left - KERNEL + 1
            if left < 2 or left % 2:
                raise ValueError(
                    "size must leave even sides after each 5x5 convolution, as 28 does; got "
                    f"{self.size}"
                )
            left //= 2

    @property
    def side(self) -> int:
        """Side of the second convolution's maps after the maximum."""
        return ((self.size - KERNEL + 1) // 2 - KERNEL + 1) // 2

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor of a network, in the order of the row of parameters."""
        first, second = self.widths
        tensors: list[tuple] = []
        for into, out in ((self.channels, first), (first, second)):
            tensors.append(("conv", (out, KERNEL, KERNEL, into), into * KERNEL**2))
            tensors.append(("conv bias", (out,)))
        for into, out in ((second * self.side**2, self.hidden), (self.hidden, self.n_classes)):
            tensors += [("linear", (out, into), into), ("linear bias", (out,))]
        return entries_of(tensors)

    def initialize(self, seeds: Sequence[int]) -> torch.Tensor:
        """Draw one network a seed: float64 (replicas, n_parameters), on the CPU.

        Weights uniform in +-sqrt(3/fan_in) ("Xavier" as Caffe has it), biases 0. A network depends
        on its own seed alone.
        """
        parameters = torch.zeros(len(seeds), self.n_parameters, dtype=torch.float64)
        for row, seed in zip(parameters, seeds, strict=True):
            generator = torch.Generator().manual_seed(int(seed))
            for entry in self.entries:
                if entry.fan_in:
                    drawn = torch.rand(entry.size, generator=generator, dtype=torch.float64)
                    row[entry.columns] = (2 * drawn - 1) * math.sqrt(3 / entry.fan_in)
        return parameters


class ReplicaLeNet:
    """LeNets of one shape, one per seed, differentiated and evaluated together.

    Convolutions are grouped, one group a network; linear layers are batched products. Nothing is
    normalized, so there are no running statistics (``running`` is empty).

    Args:
        spec: shape of the networks.
        seeds: one integer per replica.
        dtype: dtype of parameters and computation.
        device: where everything lives.

    Attributes:
        parameters: (replicas, n_parameters).
        running: empty, (0, replicas, 2, 0).
        n_averaged: steps taken, an integer tensor.

    Raises:
        ValueError: no seeds.
    """

    def __init__(
        self,
        spec: LeNetSpec,
        seeds: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.spec, self.seeds = spec, [int(seed) for seed in seeds]
        if not self.seeds:
            raise ValueError("seeds must name at least one replica, got none")
        self.parameters = spec.initialize(self.seeds).to(device=device, dtype=dtype)
        self.running = torch.zeros(0, len(self.seeds), 2, 0, dtype=dtype, device=device)
        self.n_averaged = torch.zeros((), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self.seeds)

    def gradients(
        self, images: torch.Tensor, labels: torch.Tensor, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (replicas,) and their gradients (replicas, n_parameters).

        The loss is the cross entropy, averaged over the batch.

        Args:
            images: (batch, channels, size, size), shared, or (replicas, batch, ...).
            labels: class numbers (batch,) or (replicas, batch).
            out: where the gradients are written, (replicas, n_parameters); new by default.
        """
        x = self._stacked(images)
        leaves = [leaf.requires_grad_() for leaf in self._leaves()]
        logits = self._network(leaves, x)
        losses = replica_losses(logits, labels)
        found = torch.autograd.grad(losses.sum(), leaves)
        gradient = torch.empty_like(self.parameters) if out is None else out
        with torch.no_grad():
            into = [gradient[:, entry.columns] for entry in self.spec.entries]
            # convolutions back to the order of their columns
            values = [v.permute(0, 2, 3, 1) if v.dim() == 4 else v for v in found]
            torch._foreach_copy_(into, [v.reshape(len(self), -1) for v in values])
            self.n_averaged += 1
        return losses.detach(), gradient

    def logits(self, images: torch.Tensor, statistics: None = None) -> torch.Tensor:
        """Logits (replicas, batch, n_classes); there are no statistics to give.

        Raises:
            ValueError: statistics for a network that normalizes nothing.
        """
        if statistics is not None:
            raise ValueError("statistics must be None: LeNet normalizes nothing")
        with torch.no_grad():
            return self._network(self._leaves(), self._stacked(images))

    def _leaves(self) -> list[torch.Tensor]:
        """The tensors that enter the network, those of convolutions stacked."""
        leaves = []
        for entry in self.spec.entries:
            rows = self.parameters[:, entry.columns]
            if entry.name == "conv":
                leaf = rows.reshape(len(self) * entry.shape[0], *entry.shape[1:])
                leaf = leaf.permute(0, 3, 1, 2)
            elif entry.name == "conv bias":
                leaf = rows.reshape(-1)
            elif entry.name == "linear":
                leaf = rows.reshape(len(self), *entry.shape)
            else:
                leaf = rows.reshape(len(self), 1, -1)
            leaves.append(leaf.detach())
        return leaves

    def _network(self, leaves: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        *convolutions, hidden, hidden_bias, last, last_bias = leaves
        h = x
        for weight, bias in (convolutions[:2], convolutions[2:]):
            h = functional.max_pool2d(functional.conv2d(h, weight, bias, groups=len(self)), 2)
        h = h.reshape(len(x), len(self), -1).transpose(0, 1)
        h = functional.relu(torch.baddbmm(hidden_bias, h, hidden.mT))
        return torch.baddbmm(last_bias, h, last.mT)

    def _stacked(self, images: torch.Tensor) -> torch.Tensor:
        """Images as (batch, replicas * channels, size, size), channels last."""
        one, shape = (self.spec.channels, self.spec.size, self.spec.size), tuple(images.shape)
        if shape[-3:] != one or not (
            len(shape) == 4 or (len(shape) == 5 and shape[0] == len(self))
        ):
            raise ValueError(
                f"images must have shape (batch, {', '.join(map(str, one))}) or "
                f"({len(self)}, batch, {', '.join(map(str, one))}), got {shape}"
            )
        return stacked_images(images, len(self)).to(self.parameters.dtype)
