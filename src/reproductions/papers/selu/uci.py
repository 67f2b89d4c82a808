"""Small networks, forests and support vector machines on UCI tasks, and pulsars (HTRU2).

Model selection follows Klambauer et al. 2017, appendix A.4: every setting (depth, learning rate,
dropout) is trained on the training rows; its curve of validation accuracy is smoothed by a moving
average over ten epochs; the setting and the epoch with the highest smoothed accuracy are selected,
ties going to more layers, then to the lower learning rate, then to the higher dropout rate. The
test rows are looked at once, with the network of that epoch.

HTRU2 (appendix A.4.4) is ten stratified folds: fold M is the test set, fold M - 1 the validation
set, the other eight train.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC

from reproductions._validate import choice, positive_integer
from reproductions.kernels.replica import ReplicaMLP

__all__ = [
    "PUBLISHED_HTRU2",
    "PUBLISHED_SELECTED_LAYERS",
    "PUBLISHED_TOX21",
    "PUBLISHED_TOX21_DEPTHS",
    "Comparison",
    "Curves",
    "Selection",
    "Task",
    "baseline_auc",
    "compare_methods",
    "forest_accuracy",
    "htru2_task",
    "move_average",
    "roc_auc",
    "select",
    "stratified_folds",
    "stratified_splits",
    "svm_accuracy",
    "train_curves",
]

#: section 3: mean number of layers of the selected networks (ResNet: blocks)
PUBLISHED_SELECTED_LAYERS = {
    "SNN": 10.8,
    "BN": 6.0,
    "WN": 3.8,
    "LN": 7.0,
    "HW": 5.9,
    "MS": 7.1,
    "ResNet": 6.35,
}
#: Table 3: area under the ROC curve on HTRU2; NB, C4.5 and SVM are quoted there from Lyon et al.
PUBLISHED_HTRU2 = {
    "SNN": 0.9803,
    "MS": 0.9791,
    "WN": 0.9786,
    "HW": 0.9766,
    "LN": 0.9762,
    "BN": 0.9760,
    "ResNet": 0.9753,
    "NB": 0.976,
    "C4.5": 0.946,
    "SVM": 0.929,
}
#: Table 2: mean AUC in percent over the twelve Tox21 targets, by number of layers
PUBLISHED_TOX21_DEPTHS = (2, 3, 4, 6, 8, 16, 32)
PUBLISHED_TOX21 = {
    "SNN": (83.7, 84.4, 84.2, 83.9, 84.5, 83.5, 82.5),
    "BN": (80.0, None, None, None, None, None, 76.0),
    "WN": (83.7, None, None, None, None, None, 56.6),
    "LN": (84.3, None, None, None, None, None, 78.8),
    "HW": (83.3, None, None, None, None, None, 79.6),
    "MS": (82.7, None, None, None, None, None, 80.4),
    "ResNet": (82.2, None, None, None, None, None, 81.2),
}

TRAIN, VALIDATION, TEST = 0, 1, 2
_TIE_BREAKS = ("paper", "shallow", "none")

_NETWORKS = {
    "snn": {"activation": "selu", "initialization": "lecun", "dropout": "alpha"},
    "relu": {"activation": "relu", "initialization": "he", "dropout": "plain"},
}


@dataclass(frozen=True)
class Task:
    """A classification task with several splits of its rows.

    Attributes:
        inputs: (rows, features), as they came; ``standardize`` says what is done to them.
        targets: class numbers (rows,) from 0.
        splits: (rows, splits) of 0 (train), 1 (validation) and 2 (test).
        standardize: z-score every split's features with the mean and standard deviation of its own
            training rows. False leaves the inputs as they are.
    """

    inputs: np.ndarray
    targets: np.ndarray
    splits: np.ndarray
    standardize: bool = True

    def __post_init__(self) -> None:
        n = len(self.targets)
        if self.inputs.ndim != 2 or len(self.inputs) != n or self.splits.shape[:1] != (n,):
            raise ValueError(
                "inputs (rows, features), targets (rows,) and splits (rows, splits) must have as "
                f"many rows; got {self.inputs.shape}, {self.targets.shape}, {self.splits.shape}"
            )
        if self.splits.ndim != 2 or not np.isin(self.splits, (TRAIN, VALIDATION, TEST)).all():
            raise ValueError("splits must be (rows, splits) of 0 (train), 1 (validation), 2 (test)")
        for part, name in enumerate(("training", "validation", "test")):
            if not (self.splits == part).any(0).all():
                raise ValueError(f"splits must give every split {name} rows, but one has none")

    @property
    def n_splits(self) -> int:
        """Number of splits."""
        return self.splits.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.targets.max()) + 1

    def features(self, split: int) -> np.ndarray:
        """All rows as split ``split`` sees them, float64 (rows, features)."""
        x = np.asarray(self.inputs, dtype=float)
        if not self.standardize:
            return x
        train = x[self.splits[:, split] == TRAIN]
        deviation = train.std(0)
        return (x - train.mean(0)) / np.where(deviation > 0, deviation, 1.0)

    def rows(self, part: int, split: int) -> np.ndarray:
        """Row numbers of one part of one split."""
        return np.flatnonzero(self.splits[:, split] == part)


def stratified_folds(targets: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold number (rows,) of every row; each class is spread evenly over the folds."""
    positive_integer("n_folds", n_folds, low=2)
    folds = np.empty(len(targets), dtype=int)
    offset = 0
    for label in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == label))
        folds[rows] = (offset + np.arange(len(rows))) % n_folds
        offset += len(rows)
    return folds


def stratified_splits(
    targets: np.ndarray,
    n_splits: int,
    rng: np.random.Generator,
    *,
    test: float = 0.25,
    validation: float = 0.15,
) -> np.ndarray:
    """Independent random splits (rows, n_splits): ``test`` of the rows, ``validation`` of the rest.

    As in the paper's collection the splits overlap: they are not a partition, and their spread is
    not a standard error.
    """
    positive_integer("n_splits", n_splits)
    splits = np.zeros((len(targets), n_splits), dtype=int)
    for split in splits.T:
        for label in np.unique(targets):
            rows = rng.permutation(np.flatnonzero(targets == label))
            n_test = max(1, round(test * len(rows)))
            n_validation = max(1, round(validation * (len(rows) - n_test)))
            split[rows[:n_test]] = TEST
            split[rows[n_test : n_test + n_validation]] = VALIDATION
    return splits


def htru2_task(inputs: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> Task:
    """Nested folds: split M tests on fold M, validates on fold M - 1, trains on the others."""
    n_folds = int(folds.max()) + 1
    behind = (np.arange(n_folds)[None, :] - folds[:, None]) % n_folds
    splits = np.select([behind == 0, behind == 1], [TEST, VALIDATION], TRAIN)
    return Task(inputs, targets, splits)


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: P(score of a positive > of a negative), ties count one half.

    NaN where a score is NaN.
    """
    scores, positive = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        raise ValueError("positive must mark some rows and leave some, or there is no curve")
    if np.isnan(scores).any():
        return float("nan")
    ranks = rankdata(scores)
    below = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(below / (n_positive * n_negative))


@dataclass(frozen=True)
class Curves:
    """Validation and test scores of settings: (settings, splits, epochs) each, NaN if diverged.

    ``depth``, ``learning_rate`` and ``dropout_rate`` are (settings,).
    """

    depth: np.ndarray
    learning_rate: np.ndarray
    dropout_rate: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def train_curves(
    task: Task,
    network: str,
    *,
    depths: Sequence[int],
    learning_rates: Sequence[float],
    dropout_rates: Sequence[float] = (0.0,),
    width: int,
    n_epochs: int,
    batch_size: int,
    seed: int,
    score: str = "accuracy",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Curves:
    """Train every setting on every split; all nets of a depth are one stacked program.

    Args:
        task: data and splits.
        network: ``snn`` (SELU, LeCun, alpha dropout) or ``relu`` (ReLU, He, plain dropout).
        depths: numbers of hidden layers.
        learning_rates: rates of SGD on the mean loss.
        dropout_rates: probabilities of dropping.
        width: units per hidden layer.
        n_epochs: passes over the training rows.
        batch_size: rows per step.
        seed: of weights, batch order and dropout; split s uses seed + s in every setting.
        score: ``accuracy``, or ``auc`` of class 1 for two classes.
        dtype: dtype of the networks.
        device: where they run.
    """
    choice("network", network, _NETWORKS)
    choice("score", score, ("accuracy", "auc"))
    positive_integer("n_epochs", n_epochs)
    splits = range(task.n_splits)
    settings = [(rate, drop) for rate in learning_rates for drop in dropout_rates]
    features = torch.tensor(np.stack([task.features(s) for s in splits]), dtype=dtype)
    features = features.to(device)
    targets = torch.as_tensor(task.targets, dtype=torch.long, device=device)
    parts = [[_row_tensor(task, part, s, device) for s in splits] for part in range(3)]
    of_replica = torch.arange(task.n_splits).repeat(len(settings)).to(device)
    options = dict(_NETWORKS[network])
    drops = [drop for _, drop in settings for _ in splits]
    if not any(drops):
        options["dropout"] = "none"
    rates = torch.tensor([rate for rate, _ in settings for _ in splits], dtype=dtype, device=device)
    train = _padded(parts[TRAIN]).repeat(len(settings), 1)
    sizes = [len(rows) for rows in parts[TRAIN]] * len(settings)
    scores = np.empty((2, len(depths), len(settings), task.n_splits, n_epochs))
    for d, depth in enumerate(depths):
        net = ReplicaMLP(
            (features.shape[2], *[width] * depth, task.n_classes),
            [seed + s for s in splits] * len(settings),
            dropout_rate=drops,
            dtype=dtype,
            device=device,
            **options,
        )
        for epoch in range(n_epochs):
            for index, weight in net.minibatches(sizes, batch_size):
                rows = train.gather(1, index)
                net.train_step(features[of_replica[:, None], rows], targets[rows], rates, weight)
            for k, part in enumerate((VALIDATION, TEST)):
                found = _scores(net, features, targets, of_replica, parts[part], score)
                scores[k, d, :, :, epoch] = found.reshape(len(settings), task.n_splits)
    flat = scores.reshape(2, -1, task.n_splits, n_epochs)
    return Curves(
        depth=np.repeat(np.array(depths), len(settings)),
        learning_rate=np.tile([rate for rate, _ in settings], len(depths)),
        dropout_rate=np.tile([drop for _, drop in settings], len(depths)),
        validation=flat[0],
        test=flat[1],
    )


def _row_tensor(task: Task, part: int, split: int, device: torch.device | str) -> torch.Tensor:
    return torch.as_tensor(task.rows(part, split), device=device)


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _scores(net, features, targets, of_replica, parts, score) -> np.ndarray:
    """Score of every replica on its split's rows; NaN for one whose logits are not finite."""
    rows = _padded(parts)[of_replica % len(parts)]
    logits = net(features[of_replica[:, None], rows])
    sizes = torch.tensor([len(p) for p in parts], device=rows.device)[of_replica]
    there = torch.arange(rows.shape[1], device=rows.device) < sizes[:, None]
    finite = (torch.isfinite(logits).all(2) | ~there).all(1)
    if score == "accuracy":
        right = (logits.argmax(2) == targets[rows]) & there
        found = right.sum(1).double() / sizes
    else:
        margin = (logits[..., 1] - logits[..., 0]).double().cpu().numpy()
        labels, kept = targets[rows].cpu().numpy() == 1, there.cpu().numpy()
        found = torch.tensor(
            [roc_auc(m[k], y[k]) for m, y, k in zip(margin, labels, kept, strict=True)],
            dtype=torch.float64,
        )
    return torch.where(finite.cpu(), found.cpu(), torch.nan).numpy()


def move_average(curves: np.ndarray, window: int) -> np.ndarray:
    """Mean of each point and the ``window - 1`` before it, along the last axis.

    The first points have fewer to average and are NaN, unless the whole curve is shorter than the
    window: then the window is the curve. NaN where any averaged point is NaN.
    """
    positive_integer("window", window)
    curves = np.asarray(curves, dtype=float)
    window = min(window, curves.shape[-1])
    smooth = np.full(curves.shape, np.nan)
    views = np.lib.stride_tricks.sliding_window_view(curves, window, axis=-1)
    smooth[..., window - 1 :] = views.mean(-1)
    return smooth


@dataclass(frozen=True)
class Selection:
    """What was selected, one value per split (splits,).

    ``depth`` is a mean over the tied settings when ties are not broken; ``n_tied`` counts the
    settings that reach the highest smoothed validation score.
    """

    depth: np.ndarray
    learning_rate: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    n_tied: np.ndarray


def select(curves: Curves, *, window: int = 10, tie_break: str = "paper") -> Selection:
    """Select setting and epoch per split by the smoothed validation curve.

    Args:
        curves: scores of all settings.
        window: epochs of the moving average.
        tie_break: ``paper`` (more layers, then the lower learning rate, then the higher dropout),
            ``shallow`` (fewer layers first, the rest as in the paper) or ``none`` (average over the
            tied settings). Among tied epochs of a setting the first counts.

    Raises:
        ValueError: every setting diverged on some split.
    """
    choice("tie_break", tie_break, _TIE_BREAKS)
    smooth = move_average(curves.validation, window)
    usable = np.where(np.isnan(smooth), -np.inf, smooth)
    epoch = usable.argmax(-1)
    best = usable.max(-1)
    if not np.isfinite(best.max(0)).all():
        raise ValueError("every setting diverged on some split; add a lower learning rate")
    test = np.take_along_axis(curves.test, epoch[..., None], -1)[..., 0]
    # a mean of k/n over the window is the same tie whatever the order of its terms
    tied = best >= best.max(0) - 1e-9
    deep_first = np.lexsort((-curves.dropout_rate, curves.learning_rate, -curves.depth))
    shallow_first = np.lexsort((-curves.dropout_rate, curves.learning_rate, curves.depth))
    order = {"paper": deep_first, "shallow": shallow_first, "none": None}[tie_break]
    weight = tied / tied.sum(0)
    if order is not None:
        first = order[tied[order].argmax(0)]
        weight = (np.arange(len(tied))[:, None] == first).astype(float)
    return Selection(
        depth=weight.T @ curves.depth,
        learning_rate=weight.T @ curves.learning_rate,
        validation=best.max(0),
        test=np.where(weight > 0, weight * test, 0.0).sum(0),
        n_tied=tied.sum(0),
    )


def forest_accuracy(task: Task, *, n_trees: int, seed: int) -> np.ndarray:
    """Test accuracy (splits,) of a random forest with the library's defaults, on training rows."""
    found = []
    for s in range(task.n_splits):
        x, train, test = task.features(s), task.rows(TRAIN, s), task.rows(TEST, s)
        forest = RandomForestClassifier(n_trees, random_state=seed + s)
        forest.fit(x[train], task.targets[train])
        found.append(forest.score(x[test], task.targets[test]))
    return np.array(found)


def svm_accuracy(
    task: Task,
    *,
    penalties: Sequence[float] = (0.1, 1.0, 10.0, 100.0),
    scales: Sequence[float] = (0.1, 0.3, 1.0, 3.0),
) -> np.ndarray:
    """Test accuracy (splits,) of an SVM with Gaussian kernel, selected on the validation rows.

    The kernel's gamma is a scale divided by the number of features. Ties go to the smaller penalty,
    then to the smaller gamma.
    """
    found = []
    for s in range(task.n_splits):
        x = task.features(s)
        train, validation, test = (task.rows(part, s) for part in range(3))
        best = (-1.0, 0.0)
        for penalty in penalties:
            for scale in scales:
                svm = SVC(C=penalty, gamma=scale / x.shape[1])
                svm.fit(x[train], task.targets[train])
                score = svm.score(x[validation], task.targets[validation])
                if score > best[0]:
                    best = (score, svm.score(x[test], task.targets[test]))
        found.append(best[1])
    return np.array(found)


def baseline_auc(task: Task, model: str) -> np.ndarray:
    """Test AUC (splits,) of ``logistic`` regression or of ``naive_bayes``, on training rows."""
    choice("model", model, ("logistic", "naive_bayes"))
    found = []
    for s in range(task.n_splits):
        x, train, test = task.features(s), task.rows(TRAIN, s), task.rows(TEST, s)
        fitted = LogisticRegression(max_iter=1000) if model == "logistic" else GaussianNB()
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            fitted.fit(x[train], task.targets[train])
        # log-odds rank like probabilities and do not saturate at 1
        odds = fitted.predict_log_proba(x[test])
        found.append(roc_auc(odds[:, 1] - odds[:, 0], task.targets[test] == 1))
    return np.array(found)


@dataclass(frozen=True)
class Comparison:
    """Four methods on one task: mean test accuracy over the splits, and the selected depths.

    ``accuracy`` and ``depth`` (networks only) map a method to a number; ``depth`` is there for
    every way of breaking ties.
    """

    accuracy: dict[str, float]
    depth: dict[str, dict[str, float]]
    n_tied: dict[str, float]


def compare_methods(
    task: Task, *, n_trees: int, window: int = 10, n_repeats: int = 1, seed: int, **options
) -> Comparison:
    """Random forest, SVM, SNN and ReLU networks on one task with the paper's selection rule.

    Args:
        task: data and splits.
        n_trees: trees of the forest.
        window: epochs of the moving average.
        n_repeats: times that the networks are trained and selected on every split, each with a
            seed of its own; more of them are stacked, and average out the luck of one start.
        seed: of everything random.
        options: those of ``train_curves``, the same for both networks.
    """
    positive_integer("n_repeats", n_repeats)
    accuracy = {
        "forest": _mean(forest_accuracy(task, n_trees=n_trees, seed=seed)),
        "svm": _mean(svm_accuracy(task)),
    }
    splits = np.tile(task.splits, (1, n_repeats))
    repeated = Task(task.inputs, task.targets, splits, task.standardize)
    depth: dict[str, dict[str, float]] = {}
    n_tied: dict[str, float] = {}
    for network in _NETWORKS:
        curves = train_curves(repeated, network, seed=seed, **options)
        chosen = {t: select(curves, window=window, tie_break=t) for t in _TIE_BREAKS}
        accuracy[network] = _mean(chosen["paper"].test)
        depth[network] = {t: _mean(found.depth) for t, found in chosen.items()}
        n_tied[network] = _mean(chosen["paper"].n_tied)
    return Comparison(accuracy, depth, n_tied)


def _mean(values: np.ndarray) -> float:
    """Mean to twelve digits: equal accuracies must tie, whatever the order of their summation."""
    return round(float(np.mean(values)), 12)
