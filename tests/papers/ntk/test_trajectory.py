import json
import math

import pytest
import torch

from reproductions.papers.ntk.limits import circle
from reproductions.papers.ntk.networks import draw, widths_of
from reproductions.papers.ntk.training import descend, product_target
from reproductions.papers.ntk.trajectory import rounded, trajectory

X = circle([-2.2, -0.6, 0.5, 1.9])
Y = product_target(X)
PROBE = circle([-1.0, 0.0, 2.2])
ANCHOR = circle([0.4])
DOUBLE = {"bias_scale": 0.3, "dtype": torch.float64}


def walk(at, seeds=(5,), anchor=ANCHOR, y=Y, **options):
    options = {"depth": 3, "learning_rate": 0.5, **DOUBLE, **options}
    return trajectory(6, seeds, X, y, PROBE, anchor, at=at, **options)


def test_each_look_is_at_a_network_that_was_trained_so_long():
    at = [0, 1, 4, 9, 30]
    found = walk(at)
    assert found.function.shape == found.kernel.shape == (5, 3)
    for k, steps in enumerate(at):
        net = draw(widths_of(2, 6, 3), [5], **DOUBLE)
        descend(net, X, Y, learning_rate=0.5, steps=steps)
        torch.testing.assert_close(found.function[k], net.outputs(PROBE)[0], rtol=1e-12, atol=1e-13)
        kernel = net.kernel(ANCHOR, PROBE)[0, 0]
        torch.testing.assert_close(found.kernel[k], kernel, rtol=1e-12, atol=0)
    # so short a way that a step more or less would not show proves nothing
    assert found.function.diff(dim=0).abs().amax(1).min() > 1e-2
    assert found.kernel.diff(dim=0).abs().amax(1).min() > 1e-3


def test_it_starts_from_the_network_that_was_drawn():
    net = draw(widths_of(2, 6, 3), [5], **DOUBLE)
    found = walk([0])
    torch.testing.assert_close(found.function, net.outputs(PROBE), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(found.kernel, net.kernel(ANCHOR, PROBE)[0], rtol=1e-13, atol=0)


def test_looking_does_not_disturb_and_need_not_begin_at_once():
    all_of_it, some = walk(range(8)), walk([3, 7])
    for one, other in zip(all_of_it, some, strict=True):
        torch.testing.assert_close(one[[3, 7]], other, rtol=1e-12, atol=1e-13)


def test_it_is_the_network_of_the_first_seed():
    first = walk([0, 6])
    for one, other in zip(walk([0, 6], seeds=[5, 8, 9]), first, strict=True):
        assert torch.equal(one, other)
    assert (walk([0, 6], seeds=[8, 5]).function - first.function).abs().min() > 1e-3


def test_options_reach_the_network_and_the_result_is_double():
    short, long = (walk([0, 6], activation="erf", dtype=t) for t in (torch.float32, torch.float64))
    for part in (*short, *long):
        assert part.dtype is torch.float64
    # seeds draw other numbers in float32
    assert (short.function - long.function).abs().max() > 1e-2
    expected = draw(widths_of(2, 6, 3), [5], activation="erf", **DOUBLE).outputs(PROBE)
    torch.testing.assert_close(long.function[:1], expected, rtol=1e-13, atol=1e-14)


def test_rounded_values_are_short_in_a_page():
    # 0.1 in float32 has seventeen digits as a double
    values = torch.tensor([[0.1, -1.23456], [2 / 3, 1e6]], dtype=torch.float32)
    assert json.dumps(rounded(values)) == "[[0.1, -1.235], [0.667, 1000000.0]]"
    assert json.dumps(rounded(values, 1)) == "[[0.1, -1.2], [0.7, 1000000.0]]"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: walk([]), r"at must name steps in ascending order, got \[\]"),
        (lambda: walk([0, 5, 3]), r"at must name steps in ascending order, got \[0, 5, 3\]"),
        (lambda: walk([0, 3, 3]), r"at must name steps in ascending order, got \[0, 3, 3\]"),
        (lambda: walk([-1, 3]), r"at\[0\] must be an integer of at least 0, got -1"),
        (lambda: walk([0, 2.5]), r"at\[1\] must be an integer of at least 0, got 2.5"),
        (lambda: walk([1], anchor=PROBE), r"anchor must be \(1, 2\), got \(3, 2\)"),
        (lambda: walk([1], anchor=ANCHOR[0]), r"anchor must be \(1, 2\), got \(2,\)"),
        (lambda: walk([1], seeds=[]), "seeds must name at least one network, got none"),
        (lambda: walk([0], y=Y[:3]), r"y must have shape .* got \(3,\)"),
        (lambda: rounded(torch.tensor([1.0, math.nan])), "values must be finite, got nan"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
