"""Ensembles at initialization: outputs, tangent kernels, and how both vary (Theorem 1, Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from reproductions.kernels.structured_ntk import sweep

from .networks import Networks, in_blocks, widths_of

__all__ = [
    "initial_kernels",
    "initial_outputs",
    "output_coupling",
    "relative_deviation",
    "relative_variance",
    "standard_kernel",
]


def _collect(
    measure: Callable[[Networks], torch.Tensor], widths: Sequence[int], seeds: Sequence[int], **how
) -> torch.Tensor:
    """``measure`` of every block of networks, float64 on the CPU, one row a network."""
    return torch.cat([measure(block).double().cpu() for block in in_blocks(widths, seeds, **how)])


def initial_outputs(
    width: int, seeds: Sequence[int], x: torch.Tensor, *, depth: int, **options
) -> torch.Tensor:
    """f_theta(x) of one network a seed, (R, N) for x of shape (N, n_0).

    Proposition 1: as the widths grow, a Gaussian process of covariance Sigma^(L).
    Options: ``bias_scale`` (required), ``activation``, ``dtype``, ``device`` as for ``draw``.
    """
    widths = widths_of(x.shape[-1], width, depth)
    return _collect(lambda nets: nets.outputs(x), widths, seeds, **options)


def initial_kernels(
    width: int,
    seeds: Sequence[int],
    x: torch.Tensor,
    z: torch.Tensor | None = None,
    *,
    depth: int,
    **options,
) -> torch.Tensor:
    """Tangent kernels at initialization, (R, N, M), one a seed.

    Theorem 1: as the widths grow, each tends to the limit kernel. Options as for
    ``initial_outputs``.
    """
    widths = widths_of(x.shape[-1], width, depth)
    return _collect(lambda nets: nets.kernel(x, z), widths, seeds, **options)


def relative_deviation(kernels: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """||Theta_r - limit||_F / ||limit||_F of every kernel (R, N, M), shape (R,)."""
    return (kernels - limit).flatten(1).norm(dim=1) / limit.norm()


def output_coupling(
    width: int, seeds: Sequence[int], x: torch.Tensor, *, depth: int, **options
) -> torch.Tensor:
    """||Theta_12||_F / ||Theta_11||_F of networks with two outputs, shape (R,).

    In the limit the outputs do not see each other: the kernel is Theta ⊗ Id (Theorem 1). Options
    as for ``initial_outputs``.
    """

    def ratio(nets: Networks) -> torch.Tensor:
        off, on = (nets.kernel(x, output=pair).flatten(1).norm(dim=1) for pair in ((0, 1), (0, 0)))
        return off / on

    return _collect(ratio, widths_of(x.shape[-1], width, depth, 2), seeds, **options)


def relative_variance(
    width: int, seeds: Sequence[int], x: torch.Tensor, *, depth: int, **options
) -> torch.Tensor:
    """Var Theta(x, x) / (E Theta(x, x))^2 over networks, averaged over the rows of x; a scalar.

    For ReLU and ``bias_scale`` 0, where the variance of a weight drops out, it grows with
    depth / width, so it stays where both grow together (Hanin & Nica 2020). Biases undo that:
    beta^2 outlasts a signal that loses half of itself in each layer, and what early layers drew is
    forgotten. Options as for ``initial_outputs``.

    Raises:
        ValueError: fewer than two seeds.
    """
    if len(seeds) < 2:
        raise ValueError(f"seeds must name at least two networks for a variance, got {len(seeds)}")
    widths = widths_of(x.shape[-1], width, depth)

    def diagonal(nets: Networks) -> torch.Tensor:
        return nets.kernel(x).diagonal(dim1=1, dim2=2)

    values = _collect(diagonal, widths, seeds, **options)
    return (values.var(0) / values.mean(0).square()).mean()


def standard_kernel(nets: Networks, x: torch.Tensor) -> torch.Tensor:
    """Tangent kernel (R, N, N) of the same functions in the standard parametrization.

    There the parameters are W / sqrt(n_l) ~ N(0, 1/n_l) and beta b, so the chain rule multiplies
    the gradient of a weight by sqrt(n_l), that of a bias by 1/beta:

        sum_l (A_l^T A_l + 1) * (G_l^T G_l)

    with A_l what enters layer l and G_l the derivative of f by what layer l puts out. What
    the paper's kernel divides by n_l is not divided here: this one grows with the width.
    """
    now = sweep(nets.weights, nets.biases, x.to(nets.weights[0]), **nets.options)
    pairs = zip(now.inputs, now.signals, strict=True)
    return sum((a.mT @ a + 1.0) * (g.mT @ g) for a, g in pairs)
