"""The networks of ``ReplicaResNet`` as users of PyTorch write them, one module a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from reproductions.kernels.replica import ReplicaResNet, ResidualSpec, momentum_step

MOMENTUM, DECAY, KEPT = 0.9, 1e-4, 0.95
# small, since large steps through many layers amplify the rounding
RATE = 0.01


class GhostNorm(nn.BatchNorm2d):
    """Batch normalization of one part of the batch after the other."""

    def __init__(self, channels: int, group_size: int, **options):
        super().__init__(channels, **options)
        self.group_size = group_size

    def forward(self, x):
        """X (batch, channels, height, width), normalized in groups of ``group_size`` images."""
        if not self.training:
            return super().forward(x)
        parts = [
            functional.batch_norm(
                part,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                True,
                self.momentum,
                self.eps,
            )
            for part in x.split(self.group_size)
        ]
        return torch.cat(parts)


def _widened(h: torch.Tensor) -> torch.Tensor:
    return functional.pad(h, (0, 0, 0, 0, 0, h.shape[1]))


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, into: int, width: int, norm: Callable, *, halves: bool, narrow: bool):
        super().__init__()
        out = into if halves and narrow else width
        self.conv1 = nn.Conv2d(into, out, 3, 2 if halves else 1, 1, bias=False)
        self.norm1 = norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = norm(out)
        self.halves, self.narrow = halves, narrow

    def forward(self, h):
        """The next activations."""
        shortcut = functional.avg_pool2d(h, 3, 2, ceil_mode=True) if self.halves else h
        if self.halves and not self.narrow:
            shortcut = _widened(shortcut)
        h = functional.relu(self.norm1(self.conv1(h)), inplace=True)
        h = functional.relu(self.norm2(self.conv2(h)) + shortcut, inplace=True)
        return _widened(h) if self.halves and self.narrow else h


class ResidualTwin(nn.Module):
    """A network of ``spec``; without the biases before normalization, which change nothing.

    ``group_size`` is that of ghost batches; None normalizes over the whole batch.
    """

    def __init__(self, spec: ResidualSpec, group_size: int | None = None):
        super().__init__()
        self.spec = spec

        def norm(channels):
            if group_size is None:
                return nn.BatchNorm2d(channels, momentum=1 - KEPT)
            return GhostNorm(channels, group_size, momentum=1 - KEPT)

        widths = spec.widths
        self.stem = nn.Conv2d(spec.channels, widths[0], 3, spec.stem_stride, 1, bias=False)
        self.norm = norm(widths[0])
        blocks = []
        for stage, (n_blocks, width) in enumerate(zip(spec.blocks, widths, strict=True)):
            for block in range(n_blocks):
                halves = stage > 0 and block == 0
                into = width // 2 if halves else width
                narrow = spec.down == "narrow"
                blocks.append(Block(into, width, norm, halves=halves, narrow=narrow))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], spec.n_classes)

    def forward(self, x):
        """Logits (batch, n_classes)."""
        h = functional.relu(self.norm(self.stem(x)), inplace=True)
        return self.head(self.blocks(h).mean((2, 3)))

    @torch.no_grad()
    def take(self, row: torch.Tensor) -> ResidualTwin:
        """Copy one row of ``ReplicaResNet.parameters``; return the module."""
        for entry, p in self._pairs():
            value = row[entry.columns].view(entry.shape)
            p.copy_(value.permute(0, 3, 1, 2) if entry.name == "conv" else value)
        return self

    @torch.no_grad()
    def row(self) -> torch.Tensor:
        """The parameters in the order of ``ReplicaResNet.parameters``, zeros where it has more."""
        row = self.head.weight.new_zeros(self.spec.n_parameters)
        for entry, p in self._pairs():
            value = p.permute(0, 2, 3, 1) if entry.name == "conv" else p
            row[entry.columns] = value.flatten()
        return row

    def _pairs(self):
        entries = [entry for entry in self.spec.entries if entry.name != "conv bias"]
        return zip(entries, self.parameters(), strict=True)

    def optimizer(self, rate: float) -> torch.optim.SGD:
        """SGD with twice the rate for the bias of the last layer, as in Caffe."""
        *others, bias = self.parameters()
        groups = [{"params": others}, {"params": [bias], "lr": 2 * rate}]
        return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, weight_decay=DECAY)


def difference(
    spec: ResidualSpec, size: int, batch: int, group_size: int | None = None, steps: int = 3
) -> float:
    """Largest difference of losses, weights and logits after some steps, both in float64.

    Raises:
        AssertionError: above 1e-9.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, spec.channels, size, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(spec.n_classes, (batch,), generator=generator)
    ours = ReplicaResNet(spec, [0], group_size=group_size, averaging=(KEPT,), dtype=torch.float64)
    twin = ResidualTwin(spec, group_size).double().take(ours.parameters[0])
    optimizer = twin.optimizer(RATE)
    velocity = torch.zeros_like(ours.parameters)
    multiplier = 1 + spec.columns("linear bias").double()
    errors = []
    for _ in range(steps):
        losses, gradient = ours.gradients(images, labels)
        options = {"momentum": MOMENTUM, "decay": DECAY, "multiplier": multiplier}
        momentum_step(ours.parameters, velocity, gradient, RATE, form="torch", **options)
        optimizer.zero_grad()
        loss = functional.cross_entropy(twin(images), labels)
        loss.backward()
        optimizer.step()
        errors.append((losses[0] - loss.detach()).abs())
    errors.append((ours.parameters[0] - twin.row()).abs().max())
    if group_size is None:
        # of ghost batches the module averages one after the other, ours their mean
        found = ours.logits(images, ours.running_statistics(corrected=False))[0]
        with torch.no_grad():
            errors.append((found - twin.eval()(images)).abs().max())
    largest = torch.stack(errors).max().item()
    if not largest < 1e-9:
        raise AssertionError(f"the module must agree within 1e-9, got {largest}")
    return largest
