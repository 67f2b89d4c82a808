"""Images to classify: a training and a test set, centered, on the device that trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from reproductions._validate import positive_integer

__all__ = ["Task", "image_task", "stand_in"]

PIXEL_UNIT = 64.0


@dataclass(frozen=True, eq=False)
class Task:
    """A data set, ready for training.

    Attributes:
        name: what the images are, for titles.
        train_images: float32 (n, channels, size, size), as a rule minus the mean image of the
            training set.
        train_labels: int64 (n,).
        test_images: likewise, minus the same mean image.
        test_labels: int64.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.train_images.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train_images.device

    def to(self, device: torch.device | str) -> Task:
        """The same task on another device."""
        return Task(
            self.name,
            *(
                t.to(device)
                for t in (
                    self.train_images,
                    self.train_labels,
                    self.test_images,
                    self.test_labels,
                )
            ),
        )

    def first(self, n_train: int) -> Task:
        """The first ``n_train`` training images; the test set stays."""
        if not 1 <= n_train <= len(self.train_labels):
            raise ValueError(
                f"n_train must be in [1, {len(self.train_labels)}], got {n_train}; "
                f"{self.name} has no more"
            )
        return replace(
            self,
            train_images=self.train_images[:n_train],
            train_labels=self.train_labels[:n_train],
        )


def image_task(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    pool: int = 1,
    margin: int = 0,
    center: bool = True,
    unit: float = PIXEL_UNIT,
    device: torch.device | str = "cpu",
) -> Task:
    """Prepare images as the authors do: by default subtract the mean image, nothing else.

    Pixels are in units of 64 gray levels; no result of a residual network depends on the unit,
    because batch normalization follows its first convolution.

    Args:
        name: title of the task.
        train_images: (n, size, size) or (n, channels, size, size), any numbers.
        train_labels: (n,) class numbers.
        test_images: test images, likewise.
        test_labels: their class numbers.
        n_train: take the first so many training images; None takes all.
        n_test: the same for the test set.
        pool: side of the squares of pixels that are averaged.
        margin: pixels of zeros around every image, before pooling.
        center: subtract the mean image of the training set; Caffe's LeNet does not.
        unit: gray levels that count as 1, such as 256 for Caffe's LeNet.
        device: where the images are kept.

    Raises:
        ValueError: counts that the data set does not have, a size that ``pool`` does not divide, a
            unit that is not positive.
    """
    positive_integer("pool", pool)
    positive_integer("margin", margin, low=0)
    if not 0 < unit < math.inf:
        raise ValueError(f"unit must be a finite number greater than 0, got {unit}")

    def prepared(which: str, images, labels, count) -> tuple[torch.Tensor, torch.Tensor]:
        if count is not None and not 1 <= positive_integer(which, count) <= len(images):
            raise ValueError(f"{which} must be in [1, {len(images)}], got {count}")
        x = torch.as_tensor(np.asarray(images[:count])).to(torch.float32)
        x = x.unsqueeze(1) if x.dim() == 3 else x
        x = functional.pad(x, (margin,) * 4)
        if x.shape[-1] % pool:
            raise ValueError(f"pool must divide the image size {x.shape[-1]}, got {pool}")
        x = functional.avg_pool2d(x, pool) if pool > 1 else x
        return x, torch.as_tensor(np.asarray(labels[:count])).long()

    x, y = prepared("n_train", train_images, train_labels, n_train)
    test_x, test_y = prepared("n_test", test_images, test_labels, n_test)
    mean = x.mean(0) if center else 0.0
    return Task(
        name,
        ((x - mean) / unit).to(device),
        y.to(device),
        ((test_x - mean) / unit).to(device),
        test_y.to(device),
    )


def stand_in(
    features: np.ndarray, labels: np.ndarray, *, device: torch.device | str = "cpu"
) -> Task:
    """Digits of 8 x 8 pixels in 0..16 for where no larger images can be had: a quarter are tests.

    Args:
        features: (n, 64).
        labels: (n,) class numbers.
        device: where the images are kept.
    """
    images = np.asarray(features).reshape(-1, 8, 8) * (255 / 16)
    cut = len(images) * 3 // 4
    return image_task(
        "8 x 8 digits", images[:cut], labels[:cut], images[cut:], labels[cut:], device=device
    )
