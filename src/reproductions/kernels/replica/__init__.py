"""Many small networks of one shape as one batched program.

Seeds, learning rates, dropout rates, folds and train/test splits become a leading axis of length
``replicas``; a step trains them all at once. ``naive`` loops over networks, ``batched`` stacks.
``ReplicaResNet`` and ``ReplicaLeNet`` do the same for networks on images, and ``momentum_step`` is
the optimizer whose rates may differ from network to network and from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from reproductions._validate import choice, positive_integer

from . import batched, naive
from .lenet import LeNetSpec, ReplicaLeNet
from .momentum import MOMENTUM_FORMS, momentum_step
from .residual import ReplicaResNet, ResidualSpec
from .spec import SELU_SATURATION, Parameters, Spec, dropout_affine, initialize

__all__ = [
    "MOMENTUM_FORMS",
    "SELU_SATURATION",
    "LeNetSpec",
    "Parameters",
    "ReplicaLeNet",
    "ReplicaMLP",
    "ReplicaResNet",
    "ResidualSpec",
    "Spec",
    "dropout_affine",
    "momentum_step",
]

_BACKENDS = {"naive": naive, "batched": batched}
#: keep the streams of dropout and of batch orders apart from that of the initial weights
_DROPOUT_STREAM, _ORDER_STREAM = 0x5DEECE66D, 0x2545F4914F


def _generators(seeds: Sequence[int], stream: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(int(seed) ^ stream) for seed in seeds]


class ReplicaMLP:
    """Multilayer perceptrons of one shape, one per seed, trained by gradient descent together.

    Layer l of replica g computes h_l = f(h_{l-1} W_{g,l} + b_{g,l}) (plus normalization and
    dropout, see ``Spec``); the last layer is linear and the loss is the cross entropy, averaged
    over the rows of the batch. A replica's result depends on its own seed, data and rates only:
    not on how many others are stacked with it, and not on whether they diverge.

    Args:
        widths: numbers of units from input to output, e.g. ``(784, 128, 128, 10)``.
        seeds: one integer per replica, for initial weights, dropout and batch order.
        activation: ``selu``, ``relu`` or ``tanh``.
        initialization: ``lecun`` (variance 1/fan_in) or ``he`` (2/fan_in); biases start at 0.
        norm: ``none``, or batch normalization ``before`` or ``after`` the activation, with the
            statistics of the batch in training and evaluation alike.
        dropout: ``none``, ``plain`` (zero, rescale by 1/q) or ``alpha`` (for SELU).
        dropout_rate: probability of dropping, a number or one per replica, in [0, 1).
        dtype: dtype of parameters and computation.
        device: where the parameters live.
        backend: ``auto`` (batched), ``batched`` or ``naive``.

    Raises:
        ValueError: an unknown choice, a width below 1, no seeds, a rate outside [0, 1).
    """

    def __init__(
        self,
        widths: Sequence[int],
        seeds: Sequence[int],
        *,
        activation: str = "selu",
        initialization: str = "lecun",
        norm: str = "none",
        dropout: str = "none",
        dropout_rate: float | Sequence[float] | torch.Tensor = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        backend: str = "auto",
    ) -> None:
        self.spec = Spec(tuple(widths), activation, initialization, norm, dropout)
        choice("backend", backend, ("auto", *_BACKENDS))
        self._backend = _BACKENDS["batched" if backend == "auto" else backend]
        self.seeds = [int(seed) for seed in seeds]
        if not self.seeds:
            raise ValueError("seeds must name at least one replica, got none")
        self.parameters = initialize(self.spec, self.seeds, dtype=dtype, device=device)
        rate = torch.as_tensor(dropout_rate, dtype=dtype)
        if not bool(((rate >= 0) & (rate < 1)).all()):
            raise ValueError(f"dropout_rate must be in [0, 1), got {rate.tolist()}")
        if dropout == "none" and bool((rate > 0).any()):
            raise ValueError("dropout_rate is above 0 but dropout is 'none'; choose a dropout")
        self._dropout_rate = self._per_replica(rate)
        self._noise = _generators(self.seeds, _DROPOUT_STREAM)
        self._order = _generators(self.seeds, _ORDER_STREAM)

    def __len__(self) -> int:
        return len(self.seeds)

    def _per_replica(self, value: float | Sequence[float] | torch.Tensor) -> torch.Tensor:
        like = self.parameters.weights[0]
        value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
        if value.dim() > 1 or (value.dim() == 1 and len(value) != len(self)):
            raise ValueError(
                f"a rate must be one number or one per replica ({len(self)}), "
                f"got shape {tuple(value.shape)}"
            )
        return value.expand(len(self))

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (replicas, batch, out) of inputs (batch, in) or (replicas, batch, in).

        Dropout is off; batch normalization uses the statistics of these inputs.
        """
        self._check(inputs)
        with torch.no_grad():
            return self._backend.outputs(self.spec, self.parameters, inputs)

    def preactivations(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Preactivations (replicas, batch, units) of every hidden layer, dropout off."""
        self._check(inputs)
        record: list[torch.Tensor] = []
        with torch.no_grad():
            self._backend.outputs(self.spec, self.parameters, inputs, record)
        return record

    def train_step(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        learning_rate: float | Sequence[float] | torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One step of gradient descent on every replica; returns the losses before it (replicas,).

        Args:
            inputs: (batch, in), shared, or (replicas, batch, in).
            targets: class numbers (batch,) or (replicas, batch).
            learning_rate: one number or one per replica; it multiplies the gradient of the *mean*
                loss over the batch.
            weight: (replicas, batch), 1 where a row is there and 0 where it is padding; a replica
                without rows keeps its parameters and reports a loss of 0.
        """
        self._check(inputs)
        if self.spec.dropout == "none":
            uniforms = None
        else:
            like, rows = self.parameters.weights[0], inputs.shape[-2]
            uniforms = [
                torch.stack([torch.rand(rows, n, generator=g) for g in self._noise]).to(like)
                for n in self.spec.widths[1:-1]
            ]
        self.parameters, losses = self._backend.sgd_step(
            self.spec,
            self.parameters,
            inputs,
            targets,
            weight,
            self._per_replica(learning_rate),
            uniforms,
            self._dropout_rate,
        )
        return losses

    def minibatches(
        self, sizes: int | Sequence[int], batch_size: int, *, drop_last: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Batches of one epoch; training sets may differ in size from replica to replica.

        Replica g visits a fresh permutation of ``range(sizes[g])`` of its own. All replicas take
        the same number of steps; one that has run out of rows gets padding.

        Args:
            sizes: number of training rows, one for all or one per replica.
            batch_size: rows per step.
            drop_last: leave out what does not fill a batch (of the smallest replica).

        Yields:
            (index, weight), both (replicas, batch): row numbers, and 1 or 0 for there or padding;
            weight is None where nothing is padding.
        """
        positive_integer("batch_size", batch_size)
        sizes = [sizes] * len(self) if isinstance(sizes, int) else [int(size) for size in sizes]
        if len(sizes) != len(self) or min(sizes) < 1:
            raise ValueError(f"sizes must be {len(self)} positive integers, got {sizes}")
        rows = min(sizes) // batch_size * batch_size if drop_last else max(sizes)
        if rows == 0:
            raise ValueError(f"batch_size {batch_size} is above the number of rows, {min(sizes)}")
        orders = torch.full((len(self), max(sizes)), -1, dtype=torch.long)
        for order, size, generator in zip(orders, sizes, self._order, strict=True):
            order[:size] = torch.randperm(size, generator=generator)
        like = self.parameters.weights[0]
        for start in range(0, rows, batch_size):
            index = orders[:, start : min(start + batch_size, rows)].to(like.device)
            there = index >= 0
            yield index.clamp(min=0), None if bool(there.all()) else there.to(like.dtype)

    def _check(self, inputs: torch.Tensor) -> None:
        shape, width = tuple(inputs.shape), self.spec.widths[0]
        stacked = inputs.dim() == 3 and shape[0] == len(self)
        if not (inputs.dim() == 2 or stacked) or shape[-1] != width:
            raise ValueError(
                f"inputs must have shape (batch, {width}) or ({len(self)}, batch, {width}), "
                f"got {shape}"
            )
