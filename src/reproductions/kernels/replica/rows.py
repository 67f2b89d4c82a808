"""A network as one row of numbers: where its tensors lie, and what all such networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

__all__ = ["Entry", "RowSpec", "entries_of", "replica_losses", "stacked_images"]


@dataclass(frozen=True)
class Entry:
    """One tensor of a network: its place in the row of parameters and how it is trained.

    Attributes:
        name: ``conv``, ``conv bias``, ``scale``, ``shift``, ``linear`` or ``linear bias``.
        shape: for a convolution (out, height, width, in), the order of channels-last memory.
        start: first column.
        fan_in: number of inputs of a unit, 0 where the start is a constant.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    fan_in: int = 0

    @property
    def size(self) -> int:
        """Number of columns."""
        return math.prod(self.shape)

    @property
    def columns(self) -> slice:
        """The columns of this tensor."""
        return slice(self.start, self.start + self.size)


def entries_of(tensors: Sequence[tuple]) -> tuple[Entry, ...]:
    """Lay tensors (name, shape) or (name, shape, fan_in) side by side in a row."""
    entries: list[Entry] = []
    for name, shape, *fan_in in tensors:
        entries.append(Entry(name, shape, entries[-1].columns.stop if entries else 0, *fan_in))
    return tuple(entries)


class RowSpec:
    """Shape of a network with ``entries``, every tensor in the order of the row of parameters."""

    entries: tuple[Entry, ...]

    @property
    def n_parameters(self) -> int:
        """Trained numbers of one network."""
        return self.entries[-1].columns.stop

    def columns(self, *names: str) -> torch.Tensor:
        """1 where a parameter belongs to a tensor of one of these names, 0 elsewhere."""
        mask = torch.zeros(self.n_parameters)
        for entry in self.entries:
            if entry.name in names:
                mask[entry.columns] = 1.0
        return mask


def replica_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every replica, averaged over the batch: (replicas,).

    Args:
        logits: (replicas, batch, n_classes).
        labels: class numbers (batch,) or (replicas, batch).
    """
    replicas, batch, _ = logits.shape
    targets = labels.expand(replicas, batch)
    rows = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return rows.view(replicas, batch).mean(1)


def stacked_images(images: torch.Tensor, replicas: int) -> torch.Tensor:
    """Images as (batch, replicas * channels, height, width), channels last.

    Args:
        images: (batch, channels, height, width), shared, or (replicas, batch, ...).
        replicas: number of networks.
    """
    x = images if images.dim() == 5 else images.expand(replicas, *images.shape)
    x = x.permute(1, 3, 4, 0, 2)
    return x.reshape(*x.shape[:3], -1).permute(0, 3, 1, 2)
