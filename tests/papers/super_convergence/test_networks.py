"""The paper's networks: the parameters that the authors' files describe, counted anew."""

import pytest
import torch

from reproductions.kernels.replica import ReplicaLeNet, ReplicaResNet
from reproductions.papers.super_convergence import (
    LENET,
    RESNET20,
    RESNET56,
    RESNET110,
    Task,
    reduced,
)


def count(n_blocks, narrow, channels=3):
    """Weights and biases of convolutions, scales and shifts, and a linear layer to 10 classes."""

    def conv(into, out):
        return 9 * into * out + 3 * out

    total, width = conv(channels, 16), 16
    for stage in range(3):
        for block in range(n_blocks):
            into = width
            if stage and not block:
                width *= 2
            out = into if narrow else width
            total += conv(into, out) + conv(out, out)
    return total + 10 * width + 10


@pytest.mark.parametrize(
    ("spec", "n_blocks", "published"),
    [(RESNET20, 3, None), (RESNET56, 9, 808_682), (RESNET110, 18, None)],
)
def test_the_authors_networks(spec, n_blocks, published):
    assert spec.n_parameters == count(n_blocks, narrow=True)
    assert published in (None, spec.n_parameters)
    # 6 n + 2 layers with weights
    assert len(spec.convolutions) + 1 == 6 * n_blocks + 2
    # the first convolution of the authors' files has stride 1; two blocks halve
    assert [stride for *_, stride in spec.convolutions].count(2) == 2
    assert spec.convolutions[0] == (3, 16, 1)
    # the other kind of halving would be another network
    assert spec.n_parameters != count(n_blocks, narrow=False)


def test_the_network_for_mnist():
    """Weights and biases of Caffe's file: 20 and 50 maps, 500 units and ten classes."""
    convolutions = (25 * 1 * 20 + 20) + (25 * 20 * 50 + 50)
    assert LENET.n_parameters == convolutions + (50 * 4 * 4 * 500 + 500) + (500 * 10 + 10)
    assert LENET.n_parameters == 431_080
    task = blank(channels=1, size=28)
    assert ReplicaLeNet(LENET, [0, 1]).logits(task.test_images).shape == (2, 10, 10)


def blank(channels=3, size=16, n_classes=10):
    """A task of black images, one of every class."""
    images, labels = torch.zeros(n_classes, channels, size, size), torch.arange(n_classes)
    return Task("blank", images, labels, images, labels)


def test_the_small_network():
    spec = reduced(blank())
    assert spec.n_parameters == count(1, narrow=False) == 75_530
    assert len(spec.convolutions) + 1 == 8
    assert reduced(blank(channels=1)).n_parameters == count(1, narrow=False, channels=1)
    assert reduced(blank(n_classes=7)).n_parameters == 75_530 - 3 * 65


@pytest.mark.parametrize(
    ("size", "stem_stride", "sizes"),
    [
        (8, 1, [8, 8, 8, 4, 4, 2, 2]),
        (16, 2, [8, 8, 8, 4, 4, 2, 2]),
        (32, 2, [16] * 3 + [8] * 2 + [4] * 2),
    ],
)
def test_the_stem_halves_images_of_more_than_eight_pixels(size, stem_stride, sizes):
    """So 8 x 8 and 16 x 16 pixels both end as 2 x 2, whose mean is taken."""
    spec = reduced(blank(size=size))
    assert spec.stem_stride == stem_stride
    net = ReplicaResNet(spec, [0])
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    found = []
    original = torch.nn.functional.conv2d

    def recorded(*args, **kwargs):
        output = original(*args, **kwargs)
        found.append(output.shape[-1])
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", recorded)
        net.gradients(images, torch.zeros(2, dtype=torch.long))
    assert found == sizes
