import numpy as np
import pytest
from scipy.stats import wilcoxon

from reproductions.papers.selu.table_a11 import (
    PUBLISHED_P_VALUES,
    PUBLISHED_RANK_DIFFERENCES,
    average_ranks,
    bootstrap_ranks,
    chance_of_a_count,
    count_summary,
    is_a_count,
    load_table_a11,
    rank_differences,
    signed_rank_p_values,
)

NAN = float("nan")


@pytest.fixture(scope="module")
def table():
    return load_table_a11()


def test_the_table_is_complete(table):
    assert len(table.tasks) == len(set(table.tasks)) == 121
    assert table.methods == ("SNN", "MS", "HW", "ResNet", "BN", "WN", "LN")
    assert table.accuracy.shape == (121, 7)
    missing = np.isnan(table.accuracy)
    assert [table.tasks[i] for i in np.flatnonzero(missing.any(1))] == ["trains"]
    assert missing.sum() == 4
    assert (table.rows >= 1000).sum() == 46
    at = table.tasks.index("abalone")
    assert table.accuracy[at].tolist() == [0.6657, 0.6284, 0.6427, 0.6466, 0.6303, 0.6351, 0.6178]


def test_ranks_by_hand():
    accuracy = np.array([[0.9, 0.8, 0.8], [0.1, 0.2, 0.3], [0.5, NAN, NAN]])
    assert average_ranks(accuracy).tolist() == [[1, 2.5, 2.5], [3, 2, 1]]
    assert average_ranks(accuracy, "worst").tolist()[-1] == [1, 2.5, 2.5]
    assert rank_differences(accuracy).tolist() == [0.0, 0.25, -0.25]
    assert rank_differences(accuracy, "worst").sum() == pytest.approx(0.0)
    with pytest.raises(ValueError, match="complete"):
        average_ranks(accuracy[2:])
    with pytest.raises(ValueError, match="average"):
        average_ranks(accuracy, "average")


@pytest.mark.parametrize("missing", ["drop", "worst"])
def test_published_rank_differences(table, missing):
    found = dict(zip(table.methods, rank_differences(table.accuracy, missing), strict=True))
    for method, published in PUBLISHED_RANK_DIFFERENCES.items():
        assert found[method] == pytest.approx(published, abs=0.035)


def test_published_p_values_are_one_sided(table):
    found = {
        alternative: dict(
            zip(
                table.methods,
                signed_rank_p_values(table.accuracy, 0, alternative=alternative),
                strict=True,
            )
        )
        for alternative in ("greater", "less", "two-sided")
    }
    for method, published in PUBLISHED_P_VALUES.items():
        assert found["greater"][method] == pytest.approx(published, rel=0.08)
        assert found["two-sided"][method] == pytest.approx(2 * found["greater"][method])
        assert found["two-sided"][method] != pytest.approx(published, rel=0.5)
        assert found["less"][method] == pytest.approx(1 - found["greater"][method])
    assert found["two-sided"]["MS"] > 0.05
    assert np.isnan(found["greater"]["SNN"])


def test_signed_ranks_by_hand():
    # the first column wins by 1, 2, 3, 4, loses by 5 once, ties once: W+ = 10 of 15
    gain = np.array([1, 2, 3, 4, -5, 0]) / 100
    accuracy = np.stack([0.5 + gain, np.full(6, 0.5)], axis=1)
    z = (10 - 7.5) / np.sqrt(5 * 6 * 11 / 24)
    expected = wilcoxon(gain[:5], alternative="greater", method="asymptotic")
    assert expected.statistic == 10
    assert expected.zstatistic == pytest.approx(z)
    assert signed_rank_p_values(accuracy, 0)[1] == pytest.approx(expected.pvalue)
    same = signed_rank_p_values(np.full((3, 2), 0.5), 0)
    assert np.isnan(same).all()


def test_bootstrap_intervals():
    rng = np.random.default_rng(0)
    certain = np.tile([1.0, 2.0, 3.0], (20, 1))
    assert bootstrap_ranks(certain, n_resamples=50, rng=rng).tolist() == [[1, 1], [2, 2], [3, 3]]
    # a fair coin between ranks 1 and 2: the mean over 400 tasks has standard error 1/40
    coin = 1.0 + (np.arange(400) % 2)
    found = bootstrap_ranks(np.stack([coin, 3 - coin], 1), n_resamples=4000, rng=rng)
    half = 1.96 / 40
    assert found == pytest.approx(np.array([[1.5 - half, 1.5 + half]] * 2), abs=0.01)
    with pytest.raises(ValueError, match="level"):
        bootstrap_ranks(coin[:, None], n_resamples=5, rng=rng, level=95)


def test_counts():
    assert is_a_count(0.3333, 3)
    assert not is_a_count(0.3333, 4)
    assert is_a_count(np.round(np.arange(38) / 37, 4), 37).all()
    # averages over four splits of 37 rows are k / 148: one in four is k / 37
    averages = np.round(np.arange(149) / 148, 4)
    assert is_a_count(averages, 37).sum() == 38
    assert chance_of_a_count(37) == pytest.approx(38 / 10001)
    assert chance_of_a_count(20_000) == 1.0


def test_every_printed_accuracy_is_a_count_of_one_split(table):
    # rows of one test split of the collection: a quarter of the rows, rounded down
    n_test = {"wine": 44, "seeds": 52, "glass": 53, "iris": 37, "ecoli": 84, "parkinsons": 49}
    rows = [table.tasks.index(task) for task in n_test]
    counts, by_chance = count_summary(table.accuracy[rows], list(n_test.values()))
    assert counts.all()
    assert by_chance < 1e-10
    wrong, _ = count_summary(table.accuracy[rows], [n + 1 for n in n_test.values()])
    assert not wrong.any()
