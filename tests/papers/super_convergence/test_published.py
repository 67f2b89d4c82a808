import math

import numpy as np
import pytest

from reproductions.papers.super_convergence.published import (
    INDEPENDENT,
    LOGS,
    TABLE,
    TABLES_2018,
    curve,
    limited_data,
    published,
)

CURVES = (
    "clr3SS5kFig1a",
    "lr35Fig1a",
    "lr35Tr20kTab1",
    "lr35Tr10kTab1",
    "range3Iter5kFig2b",
    "clr3SS5kWD-3Fig11",
)


def n_tested(log):
    """Images to one test of a log: 200 batches, mostly of 125."""
    if log.network == "ResNet-110":
        return 20_000
    return 22_400 if log.log == "range2SS80kRes56LR" else 25_000


def is_a_count(percent, n):
    """Whether a printed accuracy, six digits, is a whole number of n images."""
    share = np.asarray(percent) / 100
    return np.abs(np.round(share * n) / n - share) < 1.1e-6


def test_every_accuracy_of_the_logs_is_a_count_of_test_images():
    for log in LOGS.values():
        assert is_a_count(log.accuracy, n_tested(log)), log
    for name in CURVES:
        found = curve(name)
        assert is_a_count(found.accuracy, 25_000).all(), name
        assert is_a_count(found.train_accuracy, 125).all(), name
        assert (np.diff(found.iterations) > 0).all()
        assert found.iterations.max() < LOGS[name].iterations
        assert (found.loss > 0).all()
        assert (found.train_loss > 0).all()
    # what a slip of a digit would do
    assert not is_a_count(92.441, 25_000)
    assert not is_a_count(92.44, 22_400)


def test_the_paper_and_its_logs_agree_but_for_one():
    gaps = {
        row.log: row.accuracy - LOGS[row.log].accuracy
        for row in TABLE
        if row.log and not math.isnan(row.accuracy)
    }
    assert {log for log, gap in gaps.items() if abs(gap) > 1.4} == {"lr35Tr20kTab1"}
    assert gaps["lr35Tr20kTab1"] == pytest.approx(82.7 - 62.328)
    cycles = [abs(gap) for log, gap in gaps.items() if log.startswith("clr")]
    assert max(cycles) < 0.5
    for row in TABLE:
        if row.log:
            assert LOGS[row.log].iterations == row.iterations
            assert LOGS[row.log].n_images == row.n_images
            assert LOGS[row.log].arm.startswith(row.arm)


def test_the_gain_grows_with_fewer_images_in_the_paper_and_is_gone_with_another_baseline():
    rows = limited_data()
    assert [row.n_images for row in rows] == [50_000, 40_000, 30_000, 20_000, 10_000]
    assert [row.gain for row in rows] == pytest.approx([1.2, 2.0, 3.9, 5.2, 9.2])
    other = [row.gain_independent for row in rows]
    assert other == pytest.approx([-5.18, -7.77, -6.24, -3.13, -1.21])
    assert [row.constant_independent for row in rows] == [93.69, 91.89, 90.01, 86.7, 81.67]
    assert rows[3].constant_log < rows[4].constant_log < rows[3].constant


def test_the_baseline_with_few_images_was_tested_at_chance_while_it_fitted_its_batches():
    for name in ("lr35Tr10kTab1", "lr35Tr20kTab1"):
        found = curve(name)
        early = found.iterations < 50_000
        fitted = early & (found.train_accuracy == 100)
        assert fitted.sum() >= 7
        assert (found.accuracy[fitted] < 15).all()
        # the log of the guess of equal chances is 2.3: the losses are no better than that
        assert (found.loss[fitted] > math.log(10)).all()
        assert (found.train_loss[fitted] < 1e-3).all()
    # the cycle's averages follow its weights
    cycle = curve("clr3SS5kFig1a")
    assert (cycle.accuracy[cycle.train_accuracy > 80] > 57).all()


def test_rows_by_claim():
    assert [row.accuracy for row in published("C2")] == [89.7, 91.1, 92.1, 91.7, 92.4, 92.7]
    assert [row.iterations for row in published("C2")][-1] == 20_000
    assert [row.accuracy for row in published("C6")] == [91.3, 90.9, 91.7, 92.3, 92.4, 92.1]
    decays = {row.setting: LOGS[row.log].accuracy for row in published("C9")}
    assert decays == {
        "weight decay 1e-3": 9.952,
        "weight decay 1e-4": 92.44,
        "weight decay 1e-5": 88.28,
        "weight decay 1e-6": 87.252,
    }
    assert math.isnan(published("C9")[0].accuracy)
    with pytest.raises(ValueError, match="claim must be one of C1, C2"):
        published("C99")
    with pytest.raises(ValueError, match="log must be one of clr3SS5kFig1a"):
        curve("clr3SS5kFig1")


def test_what_the_third_version_added():
    digits = [row for row in TABLES_2018 if row.data == "MNIST"]
    assert [(row.epochs, row.accuracy) for row in digits if row.arm == "1cycle"] == [
        (12, 99.25), (25, 99.28), (50, 99.27), (85, 99.35),
    ]  # fmt: skip
    assert max(row.accuracy for row in digits if row.arm != "1cycle") == 99.03
    # a port finds half the gain; it has another rival in the place of "step"
    ported = [row.independent for row in digits]
    assert ported == pytest.approx([98.92, math.nan, 99.05, 99.01, 99.02, 99.07], nan_ok=True)
    # the best 1cycle beats the best of the usual schedules on every network, by very little on one
    gains = {}
    for row in TABLES_2018:
        best = gains.setdefault((row.data, row.network), {True: 0.0, False: 0.0})
        kind = row.arm == "1cycle"
        best[kind] = max(best[kind], row.accuracy)
    gains = {network: best[True] - best[False] for (_, network), best in gains.items()}
    assert gains == pytest.approx(
        {
            "LeNet": 0.32,
            "Wide ResNet-32": 1.6,
            "DenseNet-40": 0.1,
            "ResNet-56": 7.4,
            "ResNet-50": 3.9,
            "Inception-ResNet-v2": 6.4,
        }
    )


def test_independent_runs_of_the_headline():
    same = {row.arm: row.accuracy for row in INDEPENDENT if row.source == "PE51K"}
    assert same == {"cycle": 91.756, "piecewise constant": 91.492}
    assert all(is_a_count(accuracy, 25_000) for accuracy in same.values())
