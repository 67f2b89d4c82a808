import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.metrics import roc_auc_score

from reproductions.papers.selu.uci import (
    Curves,
    Task,
    baseline_auc,
    compare_methods,
    forest_accuracy,
    htru2_task,
    move_average,
    roc_auc,
    select,
    stratified_folds,
    stratified_splits,
    svm_accuracy,
    train_curves,
)

SMALL = {"depths": [1], "learning_rates": [0.1], "width": 8, "n_epochs": 6, "batch_size": 16}


def blobs(n=120, distance=3.0, n_splits=3, seed=0):
    """Two classes of unit normals at a distance, and splits of them."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    inputs = rng.normal(size=(n, 4)) * 50 + 1000
    inputs[:, 0] += 50 * distance * targets
    return Task(inputs, targets, stratified_splits(targets, n_splits, rng))


def hand_made(validation, test=None, depth=(2, 8), rate=None, drop=None):
    validation = np.array(validation, dtype=float)[:, None, :]
    test = validation if test is None else np.array(test, dtype=float)[:, None, :]
    n = len(validation)
    return Curves(
        np.array(depth),
        np.full(n, 0.1) if rate is None else np.array(rate),
        np.zeros(n) if drop is None else np.array(drop),
        validation,
        test,
    )


def test_moving_average_by_hand():
    curve = np.array([1.0, 2.0, 6.0, 3.0])
    found = move_average(curve, 2)
    assert np.isnan(found[0])
    assert found[1:].tolist() == [1.5, 4.0, 4.5]
    assert move_average(curve, 9)[-1] == 3.0
    assert np.isnan(move_average(curve, 9)[:-1]).all()
    diverged = move_average(np.array([1.0, 2.0, np.nan, np.nan]), 2)
    assert np.isnan(diverged[2:]).all()
    assert diverged[1] == 1.5


def test_selection_takes_the_best_smoothed_epoch_and_its_test_score():
    # a spike of one epoch loses against a plateau, and the test score is that of the epoch itself
    curves = hand_made([[0.1, 0.9, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]], [[9, 9, 9, 9], [1, 2, 3, 4]])
    found = select(curves, window=2)
    assert found.depth.tolist() == [8]
    assert found.test.tolist() == [4]
    assert found.validation.tolist() == [0.6]
    assert select(curves, window=1).test.tolist() == [9]


def test_ties_go_to_more_layers_then_lower_rate_then_higher_dropout():
    depth, rate, drop = [2, 8, 8, 8, 8], [0.01, 0.1, 0.01, 0.01, 0.01], [0.1, 0.1, 0.0, 0.05, 0.5]
    level = [[0.7], [0.7], [0.7], [0.7], [0.6]]
    test = [[1], [2], [3], [4], [5]]
    curves = hand_made(level, test, depth, rate, drop)
    paper, shallow, none = (
        select(curves, window=1, tie_break=t) for t in ("paper", "shallow", "none")
    )
    assert (paper.depth[0], paper.learning_rate[0], paper.test[0]) == (8, 0.01, 4)
    assert (shallow.depth[0], shallow.test[0]) == (2, 1)
    assert (none.depth[0], none.test[0]) == (6.5, 2.5)
    assert paper.n_tied[0] == 4


def test_selection_never_takes_a_diverged_setting():
    nan = np.nan
    found = select(hand_made([[0.5, 0.4], [nan, nan]], [[1, 2], [nan, nan]]), window=1)
    assert found.test.tolist() == [1]
    # one that diverged later may still be taken at an epoch before
    found = select(hand_made([[0.5, 0.4], [0.9, nan]], [[1, 2], [3, nan]]), window=1)
    assert found.test.tolist() == [3]
    with pytest.raises(ValueError, match="diverged"):
        select(hand_made([[nan, nan], [nan, nan]]), window=1)


def test_splits_are_stratified_and_overlap():
    targets = np.repeat([0, 1, 2], [120, 60, 20])
    splits = stratified_splits(targets, 4, np.random.default_rng(0))
    for label, n in ((0, 120), (1, 60), (2, 20)):
        counts = [(splits[targets == label] == part).sum(0) for part in range(3)]
        assert (counts[2] == n // 4).all()
        assert (abs(counts[1] - 0.15 * 0.75 * n) <= 0.5 + 1e-9).all()
    assert not (splits[:, 0] == splits[:, 1]).all()


def test_nested_folds_rotate():
    targets = np.repeat([0, 1], [903, 97])
    folds = stratified_folds(targets, 10, np.random.default_rng(0))
    for label in (0, 1):
        assert np.ptp(np.bincount(folds[targets == label], minlength=10)) <= 1
    assert np.ptp(np.bincount(folds)) <= 1
    task = htru2_task(np.zeros((1000, 2)), targets, folds)
    tested = np.concatenate([task.rows(2, m) for m in range(10)])
    assert sorted(tested) == list(range(1000))
    for m in range(10):
        assert set(folds[task.rows(2, m)]) == {m}
        assert set(folds[task.rows(1, m)]) == {(m - 1) % 10}
        assert set(folds[task.rows(0, m)]) == set(range(10)) - {m, (m - 1) % 10}


def test_scaling_sees_training_rows_only():
    task = blobs()
    train = task.features(1)[task.rows(0, 1)]
    assert train.mean(0) == pytest.approx(np.zeros(4), abs=1e-12)
    assert train.std(0) == pytest.approx(np.ones(4))
    moved = task.inputs.copy()
    moved[task.rows(2, 1)] += 1e6
    moved = Task(moved, task.targets, task.splits).features(1)
    np.testing.assert_array_equal(moved[task.rows(0, 1)], train)
    constant = Task(np.ones((120, 2)), task.targets, task.splits).features(0)
    assert not constant.any()
    raw = Task(task.inputs, task.targets, task.splits, standardize=False).features(0)
    np.testing.assert_array_equal(raw, task.inputs)


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(8, size=200), rng.random(200) < 0.3
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
    assert roc_auc(np.array([1.0, 2.0]), np.array([False, True])) == 1.0
    assert roc_auc(np.array([2.0, 2.0]), np.array([False, True])) == 0.5
    assert np.isnan(roc_auc(np.array([np.nan, 2.0]), np.array([False, True])))
    with pytest.raises(ValueError, match="positive"):
        roc_auc(np.array([2.0, 2.0]), np.array([True, True]))


@pytest.mark.parametrize("network", ["snn", "relu"])
def test_networks_learn_what_is_there_and_nothing_else(network):
    task = blobs(distance=6.0)
    options = {**SMALL, "width": 16, "n_epochs": 15}
    found = train_curves(task, network, seed=0, **options)
    assert found.validation.shape == found.test.shape == (1, 3, 15)
    assert (found.test[..., -1] > 0.9).all()
    rng = np.random.default_rng(1)
    shuffled = Task(task.inputs, rng.permutation(task.targets), task.splits)
    assert train_curves(shuffled, network, seed=0, **options).test[..., -1].mean() < 0.75
    auc = train_curves(task, network, seed=0, score="auc", **options)
    assert (auc.test[..., -1] > 0.97).all()


def test_a_setting_does_not_depend_on_the_grid_around_it():
    task = blobs(distance=1.0)
    options = {
        **SMALL,
        "depths": [1, 2],
        "learning_rates": [0.05, 1e9],
        "dropout_rates": [0.0, 0.3],
    }
    grid = train_curves(task, "snn", seed=3, **options)
    assert grid.depth.tolist() == [1] * 4 + [2] * 4
    assert grid.learning_rate.tolist() == [0.05, 0.05, 1e9, 1e9] * 2
    assert grid.dropout_rate.tolist() == [0.0, 0.3] * 4
    options = {**SMALL, "depths": [2], "learning_rates": [0.05], "dropout_rates": [0.3]}
    first = Task(task.inputs, task.targets, task.splits[:, :1])
    alone = train_curves(first, "snn", seed=3, **options)
    np.testing.assert_array_equal(grid.test[5, 0], alone.test[0, 0])
    assert np.isnan(grid.test[6:, :, -1]).all()
    assert np.isfinite(grid.test[:2]).all()
    assert (select(grid, window=3).learning_rate == 0.05).all()


def test_forest_and_svm_learn_what_is_there_and_nothing_else():
    easy, hopeless = blobs(distance=6.0), blobs(distance=0.0)
    for score in (lambda t: forest_accuracy(t, n_trees=20, seed=0), svm_accuracy):
        assert (score(easy) > 0.9).all()
        assert score(hopeless).mean() < 0.75


def test_logistic_regression_and_naive_bayes_rank():
    task = blobs(n=400, distance=2.0)
    # the AUC of two unit normals at a distance of 2 is Phi(sqrt 2) = .9214
    for model in ("logistic", "naive_bayes"):
        assert baseline_auc(task, model) == pytest.approx(np.full(3, 0.9214), abs=0.07)
    assert baseline_auc(blobs(n=400, distance=0.0), "logistic").mean() == pytest.approx(
        0.5, abs=0.1
    )


def test_the_comparison_on_iris():
    inputs, targets = load_iris(return_X_y=True)
    splits = stratified_splits(targets, 2, np.random.default_rng(0))
    found = compare_methods(
        Task(inputs, targets, splits),
        n_trees=20,
        window=3,
        n_repeats=2,
        seed=0,
        **{**SMALL, "depths": [1, 2]},
    )
    assert list(found.accuracy) == ["forest", "svm", "snn", "relu"]
    assert min(found.accuracy.values()) > 0.6
    for depth in found.depth.values():
        assert 1 <= depth["shallow"] <= depth["none"] <= depth["paper"] <= 2


def test_bad_arguments_are_named():
    x, y, splits = np.zeros((4, 2)), np.zeros(4, dtype=int), np.array([[0], [0], [1], [2]])
    with pytest.raises(ValueError, match="as many rows"):
        Task(x, y[:3], splits)
    with pytest.raises(ValueError, match="splits must be"):
        Task(x, y, splits + 1)
    with pytest.raises(ValueError, match="test rows"):
        Task(x, y, np.array([[0], [0], [1], [1]]))
    with pytest.raises(ValueError, match="network"):
        train_curves(blobs(), "highway", seed=0, **SMALL)
    with pytest.raises(ValueError, match="tie_break"):
        select(hand_made([[0.5], [0.5]]), tie_break="deepest")
