"""Early stopping as a spectral filter (Jacot, Gabriel and Hongler 2018, Section 5).

The paper infers it from the flow and shows no experiment: components of large eigenvalues are
learned first, noise in the labels sits mostly in those of small ones, so stopping in between should
keep the signal and leave the noise. Here infinitely wide networks, from f_0 = 0, learn a binary
target from labels of which a part is flipped; the same images with their true labels are the
control, in which there is nothing to leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reproductions._validate import finite, positive_integer, within
from reproductions.kernels.dual_kernel import dual_kernel

from .limits import spectral_filter, spectrum

__all__ = ["EarlyStopping", "ErrorCurves", "early_stopping"]


@dataclass(frozen=True, eq=False)
class ErrorCurves:
    """Errors over training time; the last time is infinity.

    The time to stop is chosen on one half of the held-out images and judged on the other.

    Attributes:
        times: (T,).
        validation: share of errors on the half that chooses, (repetitions, T).
        test: share of errors on the half that judges, (repetitions, T).
    """

    times: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor

    @property
    def chosen(self) -> torch.Tensor:
        """Index of the time with the fewest validation errors, the last of several, (reps,)."""
        return self.validation.shape[1] - 1 - self.validation.flip(1).argmin(1)

    @property
    def stopped(self) -> torch.Tensor:
        """Test error at the chosen time, (repetitions,)."""
        return self.test.gather(1, self.chosen[:, None])[:, 0]

    @property
    def gains(self) -> torch.Tensor:
        """Test error at infinity minus that at the chosen time, (repetitions,)."""
        return self.test[:, -1] - self.stopped

    @property
    def gain(self) -> float:
        """Mean of ``gains``."""
        return self.gains.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of ``gain``, paired: over repetitions of the difference."""
        return (self.gains.std() / len(self.gains) ** 0.5).item()

    @property
    def hindsight(self) -> torch.Tensor:
        """Least test error over all times, (repetitions,): what no choice can beat, so no result.

        Even where stopping is worthless, it is below the error at infinity, by chance.
        """
        return self.test.amin(1)


@dataclass(frozen=True, eq=False)
class EarlyStopping:
    """Errors after training on labels of which a part is flipped, and on the true ones."""

    noisy: ErrorCurves
    clean: ErrorCurves


def early_stopping(
    train_images: torch.Tensor,
    train_labels: torch.Tensor,
    test_images: torch.Tensor,
    test_labels: torch.Tensor,
    *,
    n_train: int,
    n_test: int,
    n_repetitions: int,
    flipped: float,
    times: Sequence[float] | torch.Tensor,
    depth: int,
    bias_scale: float,
    generator: torch.Generator,
) -> EarlyStopping:
    """Train by kernel gradient flow on flipped and on true labels, and count errors over time.

        f_t(x) = (Theta(x, X) / N) V diag((1 - e^(-lambda t)) / lambda) V^T y,

    classified by its sign. Every repetition draws its own training images, flips and held-out
    images; within one, both kinds of labels and all times share them, so that differences are
    paired.

    Args:
        train_images: (n, pixels), already scaled, to draw training images from.
        train_labels: -1 or 1, (n,).
        test_images: (m, pixels), to draw held-out images from.
        test_labels: -1 or 1, (m,).
        n_train: N, training images per repetition.
        n_test: held-out images per repetition, an even number: half to choose, half to judge.
        n_repetitions: at least 2.
        flipped: share of the training labels that are flipped, in [0, 1/2]; rounded to images.
        times: finite times to look at, ascending, greater than 0; infinity is appended.
        depth: L, number of weight layers.
        bias_scale: beta.
        generator: source of all draws, on the CPU.

    Raises:
        ValueError: labels other than -1 and 1, shapes that do not fit, more images asked for than
            there are, a share, size or time out of range.
    """
    train = _pool("train", train_images, train_labels, n_train)
    test = _pool("test", test_images, test_labels, n_test)
    if n_test % 2:
        raise ValueError(f"n_test must be even, one half chooses and one judges; got {n_test}")
    positive_integer("n_repetitions", n_repetitions, low=2)
    flipped = within("flipped", flipped, 0.0, 0.5).item()
    times = within("times", times, 0.0, open_low=True)
    if times.ndim != 1 or not (times.diff() > 0).all():
        raise ValueError(f"times must be (T,) and ascend, got {times.tolist()}")
    times = torch.cat([times, times.new_tensor([torch.inf])])
    options = {"depth": depth, "bias_scale": bias_scale}
    errors = []
    for _ in range(n_repetitions):
        x, y = _draw(*train, n_train, generator)
        x_test, truth = _draw(*test, n_test, generator)
        wrong = torch.randperm(n_train, generator=generator)[: round(flipped * n_train)]
        noisy = y.clone()
        noisy[wrong.to(y.device)] *= -1.0
        outputs = _outputs(x, torch.stack([noisy, y]), x_test, times, options)
        halves = (outputs.sign() != truth).unflatten(2, (2, n_test // 2))
        errors.append(halves.double().mean(3).cpu())
    # kind of labels, half, repetitions, times
    curves = torch.stack(errors).permute(1, 3, 0, 2)
    return EarlyStopping(*(ErrorCurves(times.cpu(), *halves) for halves in curves))


def _pool(name, images, labels, wanted):
    """The images and labels of one split, checked."""
    labels = finite(f"{name}_labels", labels)
    if images.ndim != 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{name}_images must be (n, pixels) beside (n,) {name}_labels, "
            f"got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if not (labels.abs() == 1).all():
        raise ValueError(
            f"{name}_labels must be -1 or 1, got {labels[labels.abs() != 1][0].item():g}"
        )
    if positive_integer(f"n_{name}", wanted, low=2) > len(images):
        raise ValueError(
            f"n_{name} must be at most {len(images)}, the images there are; got {wanted}"
        )
    return images, labels


def _draw(images, labels, size, generator):
    rows = torch.randperm(len(images), generator=generator)[:size].to(images.device)
    return images[rows].double(), labels[rows]


def _outputs(x, y, x_test, times, options):
    """Outputs (K, T, M) on ``x_test`` at ``times`` after training on K sets of labels, (K, N)."""
    n = len(x)
    eigenvalues, vectors = spectrum(dual_kernel(x, **options)[1])
    gain = spectral_filter(eigenvalues, times) / eigenvalues
    modes = dual_kernel(x_test, x, **options)[1] / n @ vectors
    return (gain * (y @ vectors)[:, None]) @ modes.T
