"""What several papers share."""

from itertools import pairwise

import pytest

from reproductions.papers.shared import log_steps


def test_logarithmic_steps_by_hand():
    assert log_steps(10_000, 5) == [0, 1, 10, 100, 1000, 10_000]
    # powers of the square root of ten are 3.16, 31.6, 316.2
    assert log_steps(1000, 7) == [0, 1, 3, 10, 32, 100, 316, 1000]
    # 1, 1.26, 1.59, 2, 2.52, 3.17, 4: the first two are one, so are the second two
    assert log_steps(4, 7) == [0, 1, 2, 3, 4]
    assert log_steps(1, 9) == [0, 1]


@pytest.mark.parametrize("last", [1, 2, 3, 7, 300, 1656, 9_999_999, 10**9 + 7])
@pytest.mark.parametrize("n", [2, 3, 24])
def test_logarithmic_steps_ascend_from_zero_to_the_last(last, n):
    steps = log_steps(last, n)
    assert steps[:2] == [0, 1]
    assert steps[-1] == last
    assert all(a < b for a, b in pairwise(steps))
    assert len(steps) <= n + 1
    assert all(type(step) is int for step in steps)


def test_errors_name_argument_and_value():
    with pytest.raises(ValueError, match="last must be an integer of at least 1, got 0"):
        log_steps(0, 5)
    with pytest.raises(ValueError, match="n must be an integer of at least 2, got 1"):
        log_steps(100, 1)
