"""The order in which every replica sees its images: a function of seed and step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from reproductions._validate import positive_integer

__all__ = ["Batches"]


class Batches:
    """Minibatches without replacement, a fresh permutation for every epoch of every replica.

    Nothing is remembered from step to step, so a run that goes on from a checkpoint sees what it
    would have seen. Images that do not fill a batch are left out of their epoch.

    Args:
        seeds: one integer per replica; equal seeds see equal batches.
        sizes: number of training images of each replica.
        batch_size: images of a step.
        flips: draw for every image whether it is mirrored.
        device: where the index tensors go.

    Raises:
        ValueError: a batch larger than a training set.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        sizes: Sequence[int],
        batch_size: int,
        *,
        flips: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        positive_integer("batch_size", batch_size)
        if batch_size > min(sizes):
            raise ValueError(
                f"batch_size must be at most the number of training images {min(sizes)}, "
                f"got {batch_size}"
            )
        self.seeds = [int(seed) for seed in seeds]
        self.sizes, self.batch_size = list(sizes), batch_size
        self.flips, self.device = flips, device
        self._epochs: list[tuple[int, torch.Tensor, torch.Tensor] | None] = [None] * len(self.seeds)

    def _epoch(self, replica: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        known = self._epochs[replica]
        if known is None or known[0] != epoch:
            # of a seed torch's generator uses 32 bits
            digest = hashlib.sha256(f"order of {self.seeds[replica]} in {epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
            order = torch.randperm(self.sizes[replica], generator=generator)
            mirrored = torch.rand(self.sizes[replica], generator=generator) < 0.5
            known = (epoch, order.to(self.device), mirrored.to(self.device))
            self._epochs[replica] = known
        return known[1], known[2]

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(index, mirrored), both (replicas, batch), of a step; no flips: mirrored is None."""
        index, mirrored = [], []
        for replica, size in enumerate(self.sizes):
            epoch, place = divmod(step, size // self.batch_size)
            order, flip = self._epoch(replica, epoch)
            rows = slice(place * self.batch_size, (place + 1) * self.batch_size)
            index.append(order[rows])
            mirrored.append(flip[rows])
        return torch.stack(index), torch.stack(mirrored) if self.flips else None
