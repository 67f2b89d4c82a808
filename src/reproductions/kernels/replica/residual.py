"""Many residual networks of one shape as one batched program, for any schedule of rates.

The channels of all networks lie side by side: convolutions are grouped, one group a network, and
batch normalization, which works channel by channel, keeps them apart by itself. All parameters of a
network are one row of a matrix (replicas, n_parameters), so that an optimizer is a few operations
on matrices and a learning rate, a momentum or a weight decay can be a column of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from reproductions._validate import choice, positive_integer, within
from reproductions.kernels.ghost_norm import ghost_norm

from .rows import Entry, RowSpec, entries_of, replica_losses, stacked_images

__all__ = ["EPSILON", "ReplicaResNet", "ResidualSpec"]

#: added to the variance by batch normalization, Caffe's and PyTorch's value
EPSILON = 1e-5
DOWNSAMPLING = ("narrow", "wide")

#: (layer, tensor, residual) -> relu of the tensor normalized plus the residual: what differs
#: between training and evaluation
Normalize = Callable[[int, torch.Tensor, torch.Tensor | None], torch.Tensor]
#: means and biased variances (groups, channels) of a layer, and how many values each is of
Statistics = tuple[torch.Tensor, torch.Tensor, int]


@dataclass(frozen=True)
class ResidualSpec(RowSpec):
    """Shape of a residual network of basic blocks (He et al. 2016) for small images.

    A 3x3 convolution, then one stage of blocks for each width, then the mean over pixels and a
    linear layer. The first block of a stage but the first halves the image: its shortcut is a 3x3
    average pool of stride 2 with zero channels appended.

    Attributes:
        blocks: residual blocks in each stage, the one that halves the image included.
        widths: channels of each stage, each twice the one before.
        channels: channels of the images.
        n_classes: number of logits.
        stem_stride: stride of the first convolution.
        down: ``wide``, where the halving block has the channels of its own stage, or ``narrow``,
            where it keeps those of the stage before and zeros are appended to its output (the
            networks of Smith and Topin 2017).

    Raises:
        ValueError: a number below 1, stages and widths that do not match, widths that do not
            double, an unknown ``down``.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (16, 32, 64)
    channels: int = 3
    n_classes: int = 10
    stem_stride: int = 1
    down: str = "wide"

    def __post_init__(self) -> None:
        choice("down", self.down, DOWNSAMPLING)
        for name in ("blocks", "widths"):
            for value in getattr(self, name):
                positive_integer(name, value)
        for name in ("channels", "n_classes", "stem_stride"):
            positive_integer(name, getattr(self, name))
        if len(self.blocks) != len(self.widths) or not self.blocks:
            raise ValueError(
                f"blocks and widths must name as many stages, got {self.blocks} and {self.widths}"
            )
        if any(b != 2 * a for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise ValueError(f"each of widths must be twice the one before, got {self.widths}")

    @property
    def convolutions(self) -> list[tuple[int, int, int]]:
        """(in, out, stride) of every convolution, in order."""
        found = [(self.channels, self.widths[0], self.stem_stride)]
        for stage, (n_blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for block in range(n_blocks):
                halves = stage > 0 and block == 0
                into = width // 2 if halves else width
                out = into if halves and self.down == "narrow" else width
                found += [(into, out, 2 if halves else 1), (out, out, 1)]
        return found

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor of a network, in the order of the row of parameters."""
        tensors: list[tuple] = []
        for into, out, _ in self.convolutions:
            tensors.append(("conv", (out, 3, 3, into), 9 * into))
            tensors += [("conv bias", (out,)), ("scale", (out,)), ("shift", (out,))]
        tensors.append(("linear", (self.n_classes, self.widths[-1]), self.widths[-1]))
        return entries_of([*tensors, ("linear bias", (self.n_classes,))])

    @property
    def n_statistics(self) -> int:
        """Normalized channels of one network."""
        return sum(out for _, out, _ in self.convolutions)

    def initialize(self, seeds: Sequence[int]) -> torch.Tensor:
        """Draw one network a seed: float64 (replicas, n_parameters), on the CPU.

        Convolutions N(0, 2/fan_in) (He et al. 2015; "MSRA"), the linear layer uniform in
        +-sqrt(3/fan_in) ("Xavier" as Caffe has it), scales 1, biases and shifts 0. A network
        depends on its own seed alone.
        """
        parameters = torch.zeros(len(seeds), self.n_parameters, dtype=torch.float64)
        for row, seed in zip(parameters, seeds, strict=True):
            generator = torch.Generator().manual_seed(int(seed))
            for entry in self.entries:
                if entry.name == "conv":
                    drawn = torch.randn(entry.size, generator=generator, dtype=torch.float64)
                    row[entry.columns] = drawn * math.sqrt(2 / entry.fan_in)
                elif entry.name == "linear":
                    drawn = torch.rand(entry.size, generator=generator, dtype=torch.float64)
                    row[entry.columns] = (2 * drawn - 1) * math.sqrt(3 / entry.fan_in)
                elif entry.name == "scale":
                    row[entry.columns] = 1.0
        return parameters


def _widen(h: torch.Tensor, replicas: int) -> torch.Tensor:
    """Append as many zero channels to every network's own."""
    batch, channels, height, width = h.shape
    # channels-last memory is (batch, height, width, replicas, channels of one)
    h = h.permute(0, 2, 3, 1).reshape(batch, height, width, replicas, channels // replicas)
    h = functional.pad(h, (0, channels // replicas))
    return h.reshape(batch, height, width, 2 * channels).permute(0, 3, 1, 2)


class ReplicaResNet:
    """Residual networks of one shape, one per seed, differentiated and evaluated together.

    Block: h <- relu(norm(conv(relu(norm(conv(h))))) + shortcut(h)). Training normalizes with the
    statistics of ghost batches (``ghost_norm``); the running averages that evaluation may use are
    kept for several averaging fractions at once. The biases of the convolutions are parameters, as
    in Caffe, but are not added: batch normalization subtracts them again, so that their gradient is
    zero and no output depends on them.

    Args:
        spec: shape of the networks.
        seeds: one integer per replica.
        group_size: images of a ghost batch; None takes the whole batch.
        averaging: fractions that the running averages keep at a step ("moving_average_fraction" in
            Caffe, one minus ``momentum`` in PyTorch), each in [0, 1).
        dtype: dtype of the parameters.
        compute_dtype: dtype of convolutions and activations, such as bfloat16 beside float32
            parameters; None takes ``dtype``.
        device: where everything lives.
        backend: of ``ghost_norm``.

    Attributes:
        parameters: (replicas, n_parameters).
        running: (averages, replicas, 2, n_statistics): running means and variances, started at
            0 and 1 as PyTorch does.
        n_averaged: steps that ``running`` has seen, an integer tensor.

    Raises:
        ValueError: no seeds, a fraction outside [0, 1).
    """

    def __init__(
        self,
        spec: ResidualSpec,
        seeds: Sequence[int],
        *,
        group_size: int | None = None,
        averaging: Sequence[float] = (0.95,),
        dtype: torch.dtype = torch.float32,
        compute_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        backend: str = "auto",
    ) -> None:
        self.spec, self.seeds = spec, [int(seed) for seed in seeds]
        if not self.seeds:
            raise ValueError("seeds must name at least one replica, got none")
        if not len(averaging):
            raise ValueError("averaging must name at least one fraction, got none")
        if group_size is not None:
            positive_integer("group_size", group_size)
        kept = within("averaging", torch.as_tensor(averaging, dtype=torch.float64), 0, 1)
        if bool((kept == 1).any()):
            raise ValueError("averaging must be below 1, got 1; nothing would be averaged")
        self.group_size, self.backend = group_size, backend
        self.parameters = spec.initialize(self.seeds).to(device=device, dtype=dtype)
        self.compute_dtype = dtype if compute_dtype is None else compute_dtype
        statistics = (len(kept), len(self.seeds), 2, spec.n_statistics)
        self.averaging = kept.to(device=device, dtype=dtype)
        self.running = torch.zeros(statistics, dtype=dtype, device=device)
        self.running[:, :, 1] = 1.0
        self.n_averaged = torch.zeros((), dtype=torch.int64, device=device)
        self._unbiased: tuple[tuple[int, ...], torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def gradients(
        self, images: torch.Tensor, labels: torch.Tensor, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (replicas,) and their gradients (replicas, n_parameters); the averages move on.

        The loss is the cross entropy, averaged over the batch. One that has run into NaN leaves
        the other replicas alone.

        Args:
            images: (batch, channels, height, width), shared, or (replicas, batch, ...).
            labels: class numbers (batch,) or (replicas, batch).
            out: where the gradients are written, (replicas, n_parameters); new by default.
        """
        x = self._stacked(images)
        leaves = [leaf.requires_grad_() for leaf in self._leaves(self.parameters)]
        statistics: list[Statistics] = []
        logits = self._network(leaves, x, self._own(leaves, self.group_size, statistics))
        losses = replica_losses(logits.to(self.parameters.dtype), labels)
        found = torch.autograd.grad(losses.sum(), leaves)
        gradient = torch.zeros_like(self.parameters) if out is None else out
        with torch.no_grad():
            self._gather(found, gradient)
            self._average(statistics)
        return losses.detach(), gradient

    def logits(self, images: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
        """Logits (replicas, batch, n_classes) with given statistics (replicas, 2, n_statistics)."""
        x = self._stacked(images)
        with torch.no_grad():
            return self._network(self._leaves(self.parameters), x, self._frozen(statistics))

    def running_statistics(self, average: int = 0, *, corrected: bool = True) -> torch.Tensor:
        """Running means and variances (replicas, 2, n_statistics) of one averaging fraction.

        Caffe divides by the sum of its weights: ``corrected``, (r_t - f^t r_0) / (1 - f^t).
        PyTorch keeps the start (0, 1) in the average: not ``corrected``, r_t.

        Raises:
            ValueError: an average that is not kept; ``corrected`` before the first step.
        """
        if not 0 <= average < len(self.averaging):
            raise ValueError(
                f"average must be in [0, {len(self.averaging) - 1}], got {average}; "
                f"kept are the fractions {self.averaging.tolist()}"
            )
        running = self.running[average]
        if not corrected:
            return running.clone()
        if int(self.n_averaged) == 0:
            raise ValueError("no training step has been averaged yet; take one first")
        left = self.averaging[average].double() ** self.n_averaged
        start = torch.tensor([0.0, 1.0], dtype=torch.float64, device=running.device).view(2, 1)
        return ((running.double() - left * start) / (1 - left)).to(running.dtype)

    def estimated_statistics(self, images: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Statistics (replicas, 2, n_statistics) of the present weights: means over batches.

        Every batch of ``images`` (n, ...) is normalized by its own statistics, as in training; the
        means and (biased) variances of the batches are averaged. A last batch that is not full is
        left out.
        """
        total = torch.zeros_like(self.running[0])
        n_batches = len(images) // batch_size
        if n_batches == 0:
            raise ValueError(f"batch_size {batch_size} is above the number of images {len(images)}")
        for k in range(n_batches):
            x = self._stacked(images[k * batch_size : (k + 1) * batch_size])
            statistics: list[Statistics] = []
            leaves = self._leaves(self.parameters)
            with torch.no_grad():
                self._network(leaves, x, self._own(leaves, None, statistics))
                total += self._matrix(statistics, unbiased=False)
        return total / n_batches

    def _leaves(self, parameters: torch.Tensor) -> list[torch.Tensor]:
        """The tensors that enter the network: convolutions stacked, in the computing dtype."""
        replicas = len(self)
        # one conversion for the whole row is one launch on a GPU
        cast = parameters.to(self.compute_dtype)
        leaves = []
        for entry in self.spec.entries:
            if entry.name == "conv":
                w = cast[:, entry.columns].reshape(replicas * entry.shape[0], *entry.shape[1:])
                leaves.append(w.permute(0, 3, 1, 2).detach())
            elif entry.name == "linear":
                w = parameters[:, entry.columns].reshape(replicas, *entry.shape)
                leaves.append(w.detach())
            elif entry.name == "linear bias":
                leaves.append(parameters[:, entry.columns].reshape(replicas, 1, -1).detach())
            elif entry.name != "conv bias":
                leaves.append(parameters[:, entry.columns].reshape(-1).detach())
        return leaves

    def _gather(self, found: Sequence[torch.Tensor], gradient: torch.Tensor) -> None:
        """Write the leaves' gradients into the columns of the parameters."""
        found = iter(found)
        into, values = [], []
        for entry in self.spec.entries:
            if entry.name == "conv bias":
                continue
            value = next(found)
            if entry.name == "conv":
                value = value.permute(0, 2, 3, 1)
            into.append(gradient[:, entry.columns])
            values.append(value.reshape(len(self), -1))
        torch._foreach_copy_(into, values)

    def _matrix(self, statistics: Sequence[Statistics], *, unbiased: bool) -> torch.Tensor:
        """(replicas, 2, n_statistics): means over groups of the means and variances of layers.

        Running variances are unbiased in Caffe and PyTorch; those that normalize are not.
        """
        replicas, widths = len(self), [out for _, out, _ in self.spec.convolutions]
        means, variances, counts = zip(*statistics, strict=True)
        # one mean for all layers: on a GPU every operation is a launch
        parts = [
            torch.cat([t.view(len(t), replicas, -1) for t in part], -1).mean(0)
            for part in (means, variances)
        ]
        if not unbiased:
            return torch.stack(parts, 1)
        if self._unbiased is None or self._unbiased[0] != counts:
            factors = [c / max(c - 1, 1) for c in counts]
            values = torch.tensor(factors, dtype=parts[0].dtype, device=parts[0].device)
            repeats = torch.tensor(widths, device=parts[0].device)
            self._unbiased = (counts, values.repeat_interleave(repeats))
        return torch.stack([parts[0], parts[1] * self._unbiased[1]], 1)

    def _average(self, statistics: Sequence[Statistics]) -> None:
        step = (1 - self.averaging).view(-1, 1, 1, 1)
        self.running.lerp_(
            self._matrix(statistics, unbiased=True).to(self.running.dtype)[None], step
        )
        self.n_averaged += 1

    def _own(
        self, leaves: Sequence[torch.Tensor], group_size: int | None, statistics: list[Statistics]
    ) -> Normalize:
        """Normalization by the statistics of each group, which are appended to a list."""

        def normalize(k: int, t: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
            y, mean, variance = ghost_norm(
                t,
                leaves[3 * k + 1],
                leaves[3 * k + 2],
                group_size=group_size,
                residual=residual,
                relu=True,
                epsilon=EPSILON,
                backend=self.backend,
            )
            statistics.append((mean, variance, len(t) // len(mean) * t.shape[2] * t.shape[3]))
            return y

        return normalize

    def _frozen(self, statistics: torch.Tensor) -> Normalize:
        """Normalization by given statistics."""
        sizes = [out for _, out, _ in self.spec.convolutions]
        means, variances = (
            [t.reshape(-1) for t in statistics[:, k].split(sizes, 1)] for k in (0, 1)
        )
        leaves = self._leaves(self.parameters)

        def normalize(k: int, t: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
            scale, shift = leaves[3 * k + 1], leaves[3 * k + 2]
            y = functional.batch_norm(t, means[k], variances[k], scale, shift, eps=EPSILON)
            return functional.relu_(y if residual is None else y.add_(residual))

        return normalize

    def _network(
        self, leaves: Sequence[torch.Tensor], x: torch.Tensor, normalize: Normalize
    ) -> torch.Tensor:
        replicas, k = len(self), 0
        convolutions = self.spec.convolutions

        def layer(h: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
            nonlocal k
            t = functional.conv2d(
                h, leaves[3 * k], stride=convolutions[k][2], padding=1, groups=replicas
            )
            k += 1
            return normalize(k - 1, t, residual)

        h = layer(x)
        for stage, n_blocks in enumerate(self.spec.blocks):
            for block in range(n_blocks):
                halves = stage > 0 and block == 0
                shortcut = functional.avg_pool2d(h, 3, 2, ceil_mode=True) if halves else h
                if halves and self.spec.down == "wide":
                    shortcut = _widen(shortcut, replicas)
                h = layer(layer(h), shortcut)
                if halves and self.spec.down == "narrow":
                    h = _widen(h, replicas)
        pooled = h.mean((2, 3), dtype=leaves[-1].dtype).view(len(x), replicas, -1).transpose(0, 1)
        return torch.baddbmm(leaves[-1], pooled, leaves[-2].mT)

    def _stacked(self, images: torch.Tensor) -> torch.Tensor:
        """Images as (batch, replicas * channels, height, width), channels last."""
        channels, shape = self.spec.channels, tuple(images.shape)
        if not (len(shape) == 4 or (len(shape) == 5 and shape[0] == len(self))) or (
            shape[-3] != channels
        ):
            raise ValueError(
                f"images must have shape (batch, {channels}, height, width) or "
                f"({len(self)}, batch, {channels}, height, width), got {shape}"
            )
        stride, halvings = self.spec.stem_stride, len(self.spec.blocks) - 1
        if any(-(-size // stride) % 2**halvings for size in shape[-2:]):
            raise ValueError(
                f"images must have sides that, divided by {stride}, can be halved {halvings} "
                f"times, got {shape[-2]} x {shape[-1]}; pad or pool them"
            )
        return stacked_images(images, len(self)).to(self.compute_dtype)
