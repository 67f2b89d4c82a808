"""Images as the networks see them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from reproductions.kernels.replica import LeNetSpec, ReplicaLeNet, ReplicaResNet, ResidualSpec
from reproductions.papers.super_convergence import image_task, reduced, stand_in
from reproductions.papers.super_convergence.tasks import PIXEL_UNIT


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(n=10, n_test=6, shape=(3, 8, 8)):
    rng = np.random.default_rng(1)
    return (
        pixels(n, *shape),
        rng.integers(0, 4, n),
        pixels(n_test, *shape, seed=2),
        rng.integers(0, 4, n_test),
    )


def test_the_mean_image_of_the_training_set_is_subtracted_from_both_sets():
    x, y, test_x, test_y = arrays()
    task = image_task("noise", x, y, test_x, test_y)
    mean = x.astype(np.float64).mean(0)
    for images, found in ((x, task.train_images), (test_x, task.test_images)):
        expected = torch.from_numpy((images - mean) / PIXEL_UNIT).float()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert task.train_images.mean(0).abs().max() < 1e-6
    assert task.test_images.mean(0).abs().max() > 0.1
    assert task.train_labels.tolist() == y.tolist()
    assert task.test_labels.tolist() == test_y.tolist()
    assert task.train_labels.dtype == torch.int64
    assert (task.channels, task.device.type) == (3, "cpu")


def test_the_mean_is_that_of_the_images_that_are_trained_on():
    task = image_task("noise", *arrays(), n_train=4, n_test=3)
    assert (len(task.train_images), len(task.train_labels)) == (4, 4)
    assert (len(task.test_images), len(task.test_labels)) == (3, 3)
    assert task.train_images.mean(0).abs().max() < 1e-6
    assert task.train_labels.tolist() == arrays()[1][:4].tolist()


@pytest.mark.parametrize("unit", [1.0, 64, 256.0])
def test_gray_levels_that_are_left_uncentered(unit):
    x, y, test_x, test_y = arrays()
    task = image_task("noise", x, y, test_x, test_y, center=False, unit=unit)
    for images, found in ((x, task.train_images), (test_x, task.test_images)):
        expected = torch.from_numpy(images / unit).float()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert found.dtype == torch.float32
    # black counts as zero, in a margin too
    framed = image_task("noise", x, y, test_x, test_y, margin=2, center=False, unit=unit)
    inside = framed.test_images[..., 2:-2, 2:-2]
    assert torch.equal(inside, task.test_images)
    assert framed.test_images.sum().item() == pytest.approx(inside.sum().item())


def test_the_unit_of_centered_images():
    x, y, test_x, test_y = arrays()
    task = image_task("noise", x, y, test_x, test_y, unit=16.0)
    mean = x.astype(np.float64).mean(0)
    for images, found in ((x, task.train_images), (test_x, task.test_images)):
        expected = torch.from_numpy((images - mean) / 16).float()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_pooling_averages_squares_and_a_margin_is_black():
    x, y, test_x, test_y = arrays(shape=(6, 6))
    task = image_task("gray", x, y, test_x, test_y, pool=2, margin=1)
    assert task.train_images.shape == (10, 1, 4, 4)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    pooled = padded.reshape(10, 4, 2, 4, 2).mean((2, 4))
    expected = torch.from_numpy((pooled - pooled.mean(0)) / PIXEL_UNIT).float()
    torch.testing.assert_close(task.train_images[:, 0], expected, rtol=0, atol=1e-6)


def test_the_first_images_of_a_task():
    task = image_task("noise", *arrays())
    few = task.first(3)
    assert torch.equal(few.train_images, task.train_images[:3])
    assert torch.equal(few.train_labels, task.train_labels[:3])
    assert few.test_images is task.test_images
    assert len(task.train_labels) == 10
    for n_train in (0, 11):
        with pytest.raises(ValueError, match=rf"n_train must be in \[1, 10\], got {n_train}"):
            task.first(n_train)


def test_a_task_keeps_its_parts_in_place_on_another_device():
    task = image_task("noise", *arrays())
    moved = task.to("meta")
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(task, name).shape
        assert getattr(moved, name).dtype == getattr(task, name).dtype


def test_no_result_of_a_residual_network_depends_on_the_unit_of_the_pixels():
    spec = ResidualSpec(blocks=(1, 1), widths=(4, 8), n_classes=4)
    found, digits = [], []
    for unit in (1.0, 64.0):
        task = image_task("noise", *arrays(), unit=unit)
        net = ReplicaResNet(spec, [0])
        found.append(net.gradients(task.train_images, task.train_labels))
        task = image_task("noise", *arrays(shape=(16, 16)), unit=unit)
        net = ReplicaLeNet(LeNetSpec(size=16, widths=(2, 3), hidden=4, n_classes=4), [0])
        digits.append(net.gradients(task.train_images, task.train_labels)[0].item())
    # pixels have a variance of about 1.3 in units of 64 gray levels; epsilon is 1e-5
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
    # the control: without batch norm they do
    assert abs(digits[1] - digits[0]) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 11}, r"n_train must be in \[1, 10\], got 11"),
        ({"n_test": 7}, r"n_test must be in \[1, 6\], got 7"),
        ({"n_train": 0}, "n_train must be .*, got 0"),
        ({"n_train": 2.5}, "n_train must be an integer"),
        ({"pool": 3}, "pool must divide the image size 8, got 3"),
        ({"pool": 0}, "pool must be an integer of at least 1"),
        ({"margin": -1}, "margin must be an integer of at least 0"),
        ({"unit": 0.0}, "unit must be a finite number greater than 0, got 0.0"),
        ({"unit": -256.0}, "unit must be a finite number greater than 0, got -256.0"),
        ({"unit": float("nan")}, "unit must be a finite number greater than 0, got nan"),
        ({"unit": float("inf")}, "unit must be a finite number greater than 0, got inf"),
    ],
)
def test_what_the_data_do_not_have_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        image_task("noise", *arrays(), **options)


def test_digits_stand_in_for_larger_images():
    """The last quarter are tests, rows of pixels stay rows, and white is 255 instead of 16."""
    digits = load_digits()
    task = stand_in(digits.data, digits.target)
    assert task.train_images.shape == (1347, 1, 8, 8)
    assert task.test_images.shape == (450, 1, 8, 8)
    assert task.train_labels.tolist() == digits.target[:1347].tolist()
    assert task.test_labels.tolist() == digits.target[1347:].tolist()
    # digits.images is the same in two dimensions
    gray = digits.images * 255 / 16
    expected = torch.from_numpy((gray - gray[:1347].mean(0)) / PIXEL_UNIT).float()
    for images, part in ((task.train_images, expected[:1347]), (task.test_images, expected[1347:])):
        torch.testing.assert_close(images[:, 0], part, rtol=0, atol=1e-5)
    assert not torch.allclose(expected, expected.transpose(1, 2), atol=0.1)
    assert task.train_images.max() > 1


def test_the_small_network_fits_the_digits():
    digits = load_digits()
    task = stand_in(digits.data, digits.target)
    spec = reduced(task)
    assert (spec.channels, spec.stem_stride, spec.n_classes) == (1, 1, 10)
    loss, gradient = ReplicaResNet(spec, [0]).gradients(
        task.train_images[:20], task.train_labels[:20]
    )
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
