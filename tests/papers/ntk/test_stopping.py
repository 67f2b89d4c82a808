import math

import pytest
import torch
from sklearn.datasets import load_digits

from reproductions.papers.ntk.limits import gaussian_law
from reproductions.papers.ntk.stopping import ErrorCurves, early_stopping

TIMES = torch.logspace(0.0, 5.0, 21, dtype=torch.float64)
SETTING = {"depth": 4, "bias_scale": 0.1, "times": TIMES}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    """Images and parities, the last 797 held out."""
    data = load_digits()
    images, parity = torch.from_numpy(data.data) / 16, 1 - 2 * torch.from_numpy(data.target % 2)
    return images[:1000], parity[:1000], images[1000:], parity[1000:]


def test_stopping_helps_against_flipped_labels_and_not_with_true_ones(digits):
    found = early_stopping(
        *digits, n_train=200, n_test=700, n_repetitions=12, flipped=0.3, generator=generator(),
        **SETTING,
    )  # fmt: skip
    assert found.noisy.test.shape == (12, 22)
    assert found.noisy.times[-1] == math.inf
    assert found.noisy.gain > 0.03
    assert found.noisy.gain > 6 * found.noisy.standard_error
    # the control: no gain, to within what the noisy labels show
    assert abs(found.clean.gain) < 0.1 * found.noisy.gain
    assert found.clean.test[:, -1].mean() < found.noisy.stopped.mean() < 0.3
    # with noise it is stopped early, long before the fit is through
    assert found.noisy.times[found.noisy.chosen].median() < found.clean.times[-6]
    # without a choice at all the curve of the noisy labels turns, that of the true ones does not
    for curves, turns in ((found.noisy, True), (found.clean, False)):
        mean = curves.test.mean(0)
        assert (mean[-1] > mean.min() + 0.03) == turns


def test_errors_are_those_of_the_mean_of_the_limit_law():
    # with pools that are used up and nothing flipped, no draw is left but the order
    x, x_test = random(30, 5), random(40, 5, seed=1)
    y, target = x.prod(1).sign(), x_test.prod(1).sign()
    found = early_stopping(
        x, y, x_test, target, n_train=30, n_test=40, n_repetitions=2, flipped=0.0,
        generator=generator(), **SETTING,
    )  # fmt: skip
    law = gaussian_law(x, y, x_test, depth=4, bias_scale=0.1, time=found.noisy.times)
    expected = (law.mean.sign() != target).double().mean(1).expand(2, -1)
    for curves in (found.noisy, found.clean):
        torch.testing.assert_close((curves.validation + curves.test) / 2, expected)
    assert expected.std() > 0.02
    # the halves are other images in every repetition
    assert not torch.equal(found.clean.test[0], found.clean.test[1])


def test_the_flips_are_as_many_as_said_and_the_truth_judges():
    # held out are the training images themselves: fitted to the end, they err where it was flipped
    x = random(30, 5)
    y = x[:, 0].sign()
    found = early_stopping(
        x, y, x, y, n_train=30, n_test=30, n_repetitions=3, flipped=0.3, generator=generator(),
        **SETTING,
    )  # fmt: skip
    at_infinity = (found.noisy.validation + found.noisy.test)[:, -1] / 2
    assert at_infinity.tolist() == pytest.approx([0.3] * 3, abs=1e-14)
    assert (found.clean.validation + found.clean.test)[:, -1].tolist() == [0.0] * 3
    # other flips in every repetition, and the caller's labels are left alone
    assert len({tuple(row.tolist()) for row in found.noisy.test}) == 3
    assert torch.equal(y, x[:, 0].sign())
    again = early_stopping(
        x, y, x, y, n_train=30, n_test=30, n_repetitions=3, flipped=0.3, generator=generator(),
        **SETTING,
    )  # fmt: skip
    assert torch.equal(again.noisy.test, found.noisy.test)


def test_choice_and_gain_by_hand():
    curves = ErrorCurves(
        torch.tensor([1.0, 2.0, 3.0, math.inf]),
        validation=torch.tensor([[0.5, 0.2, 0.3, 0.4], [0.5, 0.1, 0.1, 0.3], [0.4, 0.2, 0.4, 0.2]]),
        test=torch.tensor([[0.4, 0.3, 0.1, 0.5], [0.4, 0.1, 0.2, 0.6], [0.4, 0.3, 0.1, 0.2]]),
    )
    # the last of equally good times: who stops has to show why
    assert curves.chosen.tolist() == [1, 2, 3]
    assert curves.stopped.tolist() == pytest.approx([0.3, 0.2, 0.2])
    assert curves.gains.tolist() == pytest.approx([0.2, 0.4, 0.0])
    assert curves.gain == pytest.approx(0.2)
    assert curves.standard_error == pytest.approx(0.2 / math.sqrt(3))
    assert curves.hindsight.tolist() == pytest.approx([0.1, 0.1, 0.1])


def test_a_choice_on_other_images_shows_no_gain_where_there_is_none():
    # errors that are nothing but chance: judged by the images that chose, stopping always helps
    validation, test = torch.rand(2, 300, 20, generator=generator(), dtype=torch.float64)
    curves = ErrorCurves(torch.arange(1.0, 21.0), validation, test)
    assert abs(curves.gain) < 4 * curves.standard_error
    leaked = ErrorCurves(curves.times, test, test)
    assert leaked.gain > 20 * leaked.standard_error
    assert torch.equal(leaked.stopped, curves.hindsight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [0.0] * 8}, "train_labels must be -1 or 1, got 0"),
        ({"y": [1.0] * 7}, r"train_images must be \(n, pixels\) beside .* got \(8, 2\) and \(7,\)"),
        ({"n_train": 9}, "n_train must be at most 8, the images there are; got 9"),
        ({"n_test": 10}, "n_test must be at most 8, the images there are; got 10"),
        ({"n_test": 5}, "n_test must be even, one half chooses and one judges; got 5"),
        ({"n_repetitions": 1}, "n_repetitions must be an integer of at least 2, got 1"),
        ({"flipped": 0.6}, r"flipped must be in \[0, 0.5\], got 0.6"),
        ({"times": [0.0, 1.0]}, "times must be greater than 0, got 0"),
        ({"times": [2.0, 1.0]}, r"times must be \(T,\) and ascend, got \[2.0, 1.0\]"),
        ({"times": [1.0, math.inf]}, "times must be finite, got inf"),
    ],
)
def test_errors_name_argument_and_value(changes, message):
    x, y = random(8, 2), changes.pop("y", [1.0] * 8)
    arguments = {"n_train": 4, "n_test": 4, "n_repetitions": 2, "flipped": 0.3} | SETTING | changes
    with pytest.raises(ValueError, match=message):
        early_stopping(x, torch.tensor(y), x, torch.ones(8), generator=generator(), **arguments)
