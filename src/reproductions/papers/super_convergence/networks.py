"""The networks of the paper and the small one that a laptop trains in seconds."""

from __future__ import annotations

from reproductions.kernels.replica import LeNetSpec, ResidualSpec

from .tasks import Task

__all__ = ["LENET", "RESNET20", "RESNET56", "RESNET110", "reduced"]

#: The authors' architecture files, not the table of their paper: the first convolution has stride
#: 1, and the blocks that halve the image keep the narrow width (808,682 parameters for ResNet-56;
#: He et al. 2016 have about 853,000).
RESNET20 = ResidualSpec(blocks=(3, 3, 3), down="narrow")
RESNET56 = ResidualSpec(blocks=(9, 9, 9), down="narrow")
RESNET110 = ResidualSpec(blocks=(18, 18, 18), down="narrow")
#: for MNIST, in the third version of the paper
LENET = LeNetSpec()


def reduced(task: Task) -> ResidualSpec:
    """R8 for the images of a task: one block a stage, eight layers with weights.

    The first convolution halves images of more than 8 pixels. About 75,000 parameters.
    """
    return ResidualSpec(
        blocks=(1, 1, 1),
        channels=task.channels,
        stem_stride=2 if task.train_images.shape[-1] > 8 else 1,
        n_classes=int(task.train_labels.max()) + 1,
    )
