"""Kernel principal components, and the spectrum of the limit kernel over batches of images.

Jacot, Gabriel and Hongler 2018, Section 6.3 and Figure 3: with p_in the empirical measure of N
inputs the kernel acts on functions through Theta / N, whose eigenvalues are the rates at which its
principal components are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import eigsh

from reproductions._validate import choice, finite, positive_integer, within
from reproductions.kernels.dual_kernel import dual_kernel

__all__ = [
    "PRINTED_EIGENVALUES",
    "BatchSpectra",
    "PrincipalComponents",
    "batch_spectra",
    "principal_components",
]

#: the three largest eigenvalues of Theta / N on MNIST that Section 6.3 prints, N = 512
PRINTED_EIGENVALUES = (0.0457, 0.00108, 0.00078)

ROWS = ("random", "blocks")


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Eigenpairs of Theta / N: eigenvalues (N,), descending, and unit eigenvectors (N, N).

    The sign of an eigenvector is arbitrary; here its entry of the largest magnitude is positive.
    """

    eigenvalues: torch.Tensor
    vectors: torch.Tensor

    def component(self, k: int) -> torch.Tensor:
        """Return f^(k) on the data, (N,), k from 1: root mean square 1, sqrt(N) times unit."""
        n = len(self.eigenvalues)
        if positive_integer("k", k) > n:
            raise ValueError(f"k must be at most {n}, the number of data, got {k}")
        return self.vectors[:, k - 1] * n**0.5


def principal_components(theta: torch.Tensor) -> PrincipalComponents:
    """Return the principal components of a kernel on N data, given its Gram (N, N), symmetric.

    Raises:
        ValueError: no square matrix, or entries that are not finite.
    """
    theta = finite("theta", theta)
    if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or not len(theta):
        raise ValueError(f"theta must be (N, N) with N of at least 1, got {tuple(theta.shape)}")
    eigenvalues, vectors = torch.linalg.eigh(theta / len(theta))
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return PrincipalComponents(eigenvalues.flip(0), (vectors * largest.sign()).flip(1))


@dataclass(frozen=True, eq=False)
class BatchSpectra:
    """The largest eigenvalues of Theta^(L) / N over batches and depths.

    Attributes:
        depths: L, numbers of weight layers.
        eigenvalues: (batches, depths, k), descending.
        flatness: |mean(v_1)| sqrt(N), (batches, depths): the cosine between the first eigenvector
            and a constant.
    """

    depths: tuple[int, ...]
    eigenvalues: torch.Tensor
    flatness: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Mean eigenvalues over the batches, (depths, k)."""
        return self.eigenvalues.mean(0)

    @property
    def sd(self) -> torch.Tensor:
        """Standard deviation of the eigenvalues over the batches, (depths, k)."""
        return self.eigenvalues.std(0)

    @property
    def gap(self) -> torch.Tensor:
        """lambda_1 / lambda_2, (batches, depths)."""
        return self.eigenvalues[..., 0] / self.eigenvalues[..., 1]

    def z_scores(
        self,
        printed: Sequence[float] = PRINTED_EIGENVALUES,
        *,
        network_spread: float | Sequence[float] | torch.Tensor = 0.0,
    ) -> torch.Tensor:
        """Return how far printed eigenvalues are from each depth, (depths, len(printed)).

        (printed - mean) / sqrt(sd^2 + (network_spread mean)^2): in standard deviations of what one
        network shows on one batch, if batch and network vary independently.

        Args:
            printed: eigenvalues, descending, at most k.
            network_spread: standard deviation over networks of the width that was used, relative to
                the mean; one number, or one for each printed eigenvalue. With 0, that of the limit,
                batches alone vary.

        Raises:
            ValueError: more printed eigenvalues than k; a ``network_spread`` that is negative or
                not finite, or of another number than those printed.
        """
        printed = finite("printed", printed)
        k = self.eigenvalues.shape[2]
        if printed.ndim != 1 or len(printed) > k:
            raise ValueError(f"printed must be at most k = {k} eigenvalues, got {printed.tolist()}")
        spread = within("network_spread", network_spread, 0.0).to(self.eigenvalues)
        if spread.ndim and spread.shape != printed.shape:
            raise ValueError(
                f"network_spread must be a number or ({len(printed)},), one for each printed "
                f"eigenvalue, got shape {tuple(spread.shape)}"
            )
        mean, sd = (part[:, : len(printed)] for part in (self.mean, self.sd))
        return ((printed - mean) / torch.hypot(sd, spread * mean)).cpu()

    def worst(self, **how) -> torch.Tensor:
        """Largest distance of a printed eigenvalue from each depth, (depths,); see ``z_scores``."""
        return self.z_scores(**how).abs().amax(1)


def batch_spectra(
    images: torch.Tensor,
    *,
    batch: int,
    n_batches: int,
    depths: Sequence[int],
    bias_scale: float,
    generator: torch.Generator,
    k: int = 3,
    rows: str = "random",
) -> BatchSpectra:
    """Return the largest eigenvalues of Theta^(L) / N on batches of images, for several depths.

    One recursion yields all depths of a batch. Equal generators draw equal batches, so that
    settings of ``bias_scale`` can be compared batch by batch.

    Args:
        images: (n, pixels), already scaled.
        batch: N, images per batch.
        n_batches: batches, at least 2.
        depths: numbers of weight layers, at least 1 each.
        bias_scale: beta.
        generator: draws the batches, on the CPU.
        k: eigenvalues per spectrum, at least 2 and less than N.
        rows: ``"random"`` draws N images out of all; ``"blocks"`` draws blocks of N images that
            follow each other in the file, in which one writer's images sit together.

    Raises:
        ValueError: more images asked for than there are; sizes below their minimum; an unknown
            kind of rows.
    """
    choice("rows", rows, ROWS)
    if images.ndim != 2:
        raise ValueError(f"images must be (n, pixels), got {tuple(images.shape)}")
    n = len(images)
    positive_integer("n_batches", n_batches, low=2)
    if positive_integer("k", k, low=2) >= positive_integer("batch", batch, low=3):
        raise ValueError(f"k must be less than batch = {batch}, got {k}")
    wanted = batch if rows == "random" else batch * n_batches
    if wanted > n:
        raise ValueError(f"batch must fit the {n} images, got {wanted} images to draw")
    depths = tuple(positive_integer("depths", depth) for depth in depths)
    if not depths:
        raise ValueError("depths must name at least one depth, got none")
    blocks = torch.randperm(n // batch, generator=generator)
    spectra = []
    for b in range(n_batches):
        if rows == "random":
            picked = images[torch.randperm(n, generator=generator)[:batch].to(images.device)]
        else:
            picked = images[blocks[b] * batch : (blocks[b] + 1) * batch]
        _, theta = dual_kernel(picked, depth=max(depths), bias_scale=bias_scale, all_depths=True)
        spectra.append([_largest(theta[depth - 1] / batch, k) for depth in depths])
    eigenvalues = [[values for values, _ in spectrum] for spectrum in spectra]
    flatness = [[flat for _, flat in spectrum] for spectrum in spectra]
    return BatchSpectra(
        depths,
        torch.tensor(np.array(eigenvalues)),
        torch.tensor(flatness, dtype=torch.float64),
    )


def _largest(theta: torch.Tensor, k: int) -> tuple[np.ndarray, float]:
    """The k largest eigenvalues, descending, and the flatness of the first eigenvector."""
    # Lanczos to machine precision, a fifth of the time of LAPACK's partial solvers at N = 512
    start = np.random.default_rng(0).standard_normal(len(theta))
    values, vectors = eigsh(theta.cpu().numpy(), k=k, v0=start, tol=0)
    order = np.argsort(-values)
    return values[order], abs(vectors[:, order[0]].mean()) * len(theta) ** 0.5
