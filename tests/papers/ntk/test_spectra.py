import math

import pytest
import torch
from sklearn.datasets import load_digits

from reproductions.chapter import datasets
from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.papers.ntk.limits import circle
from reproductions.papers.ntk.spectra import (
    PRINTED_EIGENVALUES,
    BatchSpectra,
    batch_spectra,
    principal_components,
)

DEPTHS = (3, 4, 5, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def close(found, expected, atol, rtol=0.0):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def digits():
    return torch.from_numpy(load_digits().data) / 16


@pytest.fixture(scope="module")
def mnist():
    if next(a.where for a in datasets.available() if a.name == "mnist") == "absent":
        pytest.skip("MNIST is absent; REPRODUCTIONS_DATA names no folder that holds it")
    return torch.from_numpy(datasets.load("mnist").train_images).flatten(1) / 255.0


def test_components_are_eigenfunctions_of_the_kernel_under_the_empirical_measure():
    theta = dual_kernel(random(9, 4), depth=3, bias_scale=0.1)[1]
    found = principal_components(theta)
    assert (found.eigenvalues.diff() < 0).all()
    for k in range(1, 10):
        f = found.component(k)
        # E over x' of Theta(x, x') f(x') = lambda f(x)
        close((theta * f).mean(1), found.eigenvalues[k - 1] * f, 1e-13)
        assert f.square().mean().item() == pytest.approx(1.0, abs=1e-13)
        assert f.abs().max() == f.max()
    close(found.eigenvalues.sum(), theta.diagonal().mean(), 1e-13)


def test_components_move_with_their_data_and_keep_their_sign():
    x, order = random(9, 4), [3, 1, 0, 2, 8, 7, 5, 6, 4]
    options = {"depth": 3, "bias_scale": 0.1}
    first = principal_components(dual_kernel(x, **options)[1])
    second = principal_components(dual_kernel(x[order], **options)[1])
    close(second.component(2), first.component(2)[order], 1e-10)
    # with every point twice, eigenvalues and the size of components stay
    double = principal_components(dual_kernel(x, **options)[1].repeat(2, 2))
    close(double.eigenvalues[:9], first.eigenvalues, 1e-14)
    close(double.component(2)[:9], first.component(2), 1e-10)
    with pytest.raises(ValueError, match="k must be at most 9, the number of data, got 10"):
        first.component(10)
    with pytest.raises(ValueError, match=r"k must be an integer of at least 1, got 0"):
        first.component(0)
    with pytest.raises(ValueError, match=r"theta must be \(N, N\) .* got \(2, 3\)"):
        principal_components(torch.ones(2, 3))


def test_a_batch_has_the_spectrum_of_its_kernel_at_every_depth(digits):
    # a batch of all there is has no choice of rows
    images = digits[:150]
    found = batch_spectra(
        images, batch=150, n_batches=2, depths=(5, 1, 3), bias_scale=0.3, generator=generator(), k=5
    )
    assert found.eigenvalues.shape == (2, 3, 5)
    assert found.flatness.shape == (2, 3)
    for d, depth in enumerate((5, 1, 3)):
        whole = principal_components(dual_kernel(images, depth=depth, bias_scale=0.3)[1])
        for b in range(2):
            close(found.eigenvalues[b, d], whole.eigenvalues[:5], 1e-13)
            flatness = whole.component(1).mean().abs().item()
            assert found.flatness[b, d].item() == pytest.approx(flatness, abs=1e-10)


def test_equal_eigenvalues_are_all_found():
    # on equally spaced points of a circle all but the first come in pairs
    x = circle(torch.arange(96, dtype=torch.float64) * (2 * math.pi / 96))
    found = batch_spectra(
        x, batch=96, n_batches=2, depths=(2, 4), bias_scale=0.1, generator=generator(), k=4
    )
    for d, depth in enumerate((2, 4)):
        whole = principal_components(dual_kernel(x, depth=depth, bias_scale=0.1)[1])
        assert whole.eigenvalues[1] - whole.eigenvalues[2] < 1e-14 < 1e-6 < whole.eigenvalues[0]
        close(found.eigenvalues[0, d], whole.eigenvalues[:4], 1e-14)
    close(found.flatness, torch.ones(2, 2, dtype=torch.float64), 1e-10)


def test_rows_are_drawn_at_random_or_in_blocks():
    # every block of eight rows has a scale of its own, which its largest eigenvalue shows
    images = random(40, 3) * torch.arange(1.0, 6.0).repeat_interleave(8)[:, None]
    options = {"batch": 8, "depths": (2,), "bias_scale": 0.0, "k": 2}
    blocks = [
        principal_components(dual_kernel(rows, depth=2, bias_scale=0.0)[1]).eigenvalues[0].item()
        for rows in images.split(8)
    ]
    found = batch_spectra(images, n_batches=5, rows="blocks", generator=generator(), **options)
    largest = found.eigenvalues[:, 0, 0].tolist()
    assert sorted(largest) == pytest.approx(sorted(blocks), rel=1e-12)
    assert largest != pytest.approx(blocks, rel=1e-12)
    mixed = batch_spectra(images, n_batches=5, generator=generator(), **options)
    assert mixed.sd[0, 0] < 0.5 * found.sd[0, 0]
    assert len(set(mixed.eigenvalues[:, 0, 0].tolist())) == 5
    again = batch_spectra(images, n_batches=5, generator=generator(), **options)
    assert torch.equal(again.eigenvalues, mixed.eigenvalues)


def test_scores_by_hand():
    eigenvalues = torch.tensor([[[4.0, 2.0]], [[6.0, 2.5]]], dtype=torch.float64)
    spectra = BatchSpectra((3,), eigenvalues, torch.ones(2, 1))
    close(spectra.gap, torch.tensor([[2.0], [2.4]], dtype=torch.float64), 1e-15)
    close(spectra.mean, torch.tensor([[5.0, 2.25]], dtype=torch.float64), 1e-15)
    # (7 - 5) / sqrt 2, and the printed number above the mean has a positive score
    scores = spectra.z_scores([7.0, 2.25])
    assert spectra.worst(printed=[7.0, 2.25]).tolist() == scores.abs().amax(1).tolist()
    close(scores, torch.tensor([[math.sqrt(2.0), 0.0]], dtype=torch.float64), 1e-14)
    assert spectra.z_scores([7.0]).shape == (1, 1)
    with pytest.raises(ValueError, match="printed must be at most k = 2 eigenvalues"):
        spectra.z_scores()


def test_scores_allow_for_the_spread_over_networks():
    # two depths: means (5, 3, 1) and (10, 6, 2), all of standard deviation sqrt 2
    middle = torch.tensor([[5.0, 3.0, 1.0], [10.0, 6.0, 2.0]], dtype=torch.float64)
    spectra = BatchSpectra((3, 4), torch.stack([middle - 1, middle + 1]), torch.ones(2, 2))
    printed = [7.0, 1.5]
    ahead = torch.tensor([[2.0, -1.5], [-3.0, -4.5]], dtype=torch.float64)
    for spread, sd in (
        (0.0, [[math.sqrt(2)] * 2] * 2),
        ([0.0, 0.0], [[math.sqrt(2)] * 2] * 2),
        # one number: 2 + (0.1 mean)^2
        (0.1, [[1.5, math.sqrt(2.09)], [math.sqrt(3), math.sqrt(2.36)]]),
        # one for each eigenvalue, the same at every depth
        ([0.1, 1 / 6], [[1.5, 1.5], [math.sqrt(3), math.sqrt(3)]]),
        (torch.tensor([0.0, 1 / 6]), [[math.sqrt(2), 1.5], [math.sqrt(2), math.sqrt(3)]]),
    ):
        found = spectra.z_scores(printed, network_spread=spread)
        close(found, ahead / torch.tensor(sd, dtype=torch.float64), 0.0, rtol=1e-7)
    close(spectra.z_scores(printed), ahead / math.sqrt(2), 1e-14)


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        (-0.1, "network_spread must be at least 0, got -0.1"),
        ([0.1, -0.2], "network_spread must be at least 0, got -0.2"),
        (math.nan, "network_spread must be finite, got nan"),
        ([math.inf, 0.1], "network_spread must be finite, got inf"),
        ([0.1], r"network_spread must be a number or \(2,\), .* got shape \(1,\)"),
        ([0.1] * 3, r"network_spread must be a number or \(2,\), .* got shape \(3,\)"),
        ([[0.1], [0.1]], r"network_spread must be a number or \(2,\), .* got shape \(2, 1\)"),
    ],
)
def test_a_spread_that_fits_nothing_is_refused(spread, message):
    eigenvalues = torch.tensor([[[4.0, 2.0]], [[6.0, 2.5]]], dtype=torch.float64)
    spectra = BatchSpectra((3,), eigenvalues, torch.ones(2, 1))
    with pytest.raises(ValueError, match=message):
        spectra.z_scores([7.0, 2.25], network_spread=spread)


def test_the_first_component_is_nearly_constant_and_its_gap_grows_with_the_bias(digits):
    options = {"batch": 256, "n_batches": 4, "depths": DEPTHS}
    small, large = (
        batch_spectra(digits, bias_scale=beta, generator=generator(), **options)
        for beta in (0.1, 1.0)
    )
    assert (small.flatness > 0.99).all()
    assert (small.gap > 10).all()
    growth = large.gap / small.gap
    assert ((growth > 8) & (growth < 20)).all()
    # not so for a linear kernel on data around the origin, without a bias
    options["depths"] = (1,)
    linear = batch_spectra(
        digits - digits.mean(0), bias_scale=0.0, generator=generator(), **options
    )
    assert (linear.flatness < 0.5).all()
    assert (linear.gap < 10).all()


def test_the_printed_spectrum_is_that_of_five_layers(mnist):
    found = batch_spectra(
        mnist, batch=512, n_batches=12, depths=DEPTHS, bias_scale=0.1, generator=generator()
    )
    scores = dict(zip(DEPTHS, found.z_scores(), strict=True))
    assert (scores[5].abs() < 3).all()
    assert scores[4][0] < -5
    assert scores[6][0] > 5
    assert (scores[3].abs() > 5).all()
    close(found.mean[2], torch.tensor([0.04569, 0.00114, 0.00082]).double(), 0.0, rtol=0.04)
    # pixels in another range fit at no depth
    other = batch_spectra(
        2 * mnist[:2000] - 1,
        batch=512,
        n_batches=3,
        depths=DEPTHS,
        bias_scale=0.1,
        generator=generator(),
    )
    assert (other.eigenvalues[..., 0] > 2 * PRINTED_EIGENVALUES[0]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 41}, "batch must fit the 40 images, got 41 images to draw"),
        ({"rows": "blocks", "n_batches": 6}, "batch must fit the 40 images, got 48"),
        ({"rows": "all"}, "rows must be one of random, blocks"),
        ({"k": 8}, "k must be less than batch = 8, got 8"),
        ({"k": 1}, "k must be an integer of at least 2, got 1"),
        ({"n_batches": 1}, "n_batches must be an integer of at least 2, got 1"),
        ({"depths": ()}, "depths must name at least one depth"),
        ({"depths": (2, 0)}, "depths must be an integer of at least 1, got 0"),
        ({"bias_scale": -0.1}, "bias_scale must be at least 0, got -0.1"),
        ({"images": torch.ones(40, 2, 2)}, r"images must be \(n, pixels\), got \(40, 2, 2\)"),
    ],
)
def test_errors_name_argument_and_value(changes, message):
    arguments = {"images": random(40, 3), "batch": 8, "n_batches": 2, "depths": (2,)}
    arguments |= {"bias_scale": 0.1, "generator": generator(), **changes}
    images = arguments.pop("images")
    with pytest.raises(ValueError, match=message):
        batch_spectra(images, **arguments)
