"""The paper's own measurements on 121 UCI tasks, and what its tests make of them.

``table_a11.csv`` holds Table A11 of Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing
Neural Networks", NeurIPS 2017 (arXiv:1706.02515v5, appendix A.4): test accuracies, printed with
four digits, of seven feed-forward networks on the 121 classification tasks of Fernandez-Delgado et
al. (JMLR 15, 2014). Columns: task, N rows, M features with the label, accuracies of SNN, MSRAinit
(MS), highway networks (HW), ResNet, batch (BN), weight (WN) and layer normalization (LN). The task
``trains`` has no value for four methods.

A method's rank difference is its average rank (1 is the best, ties share) minus 4, the mean rank
of seven. Table 1 (left) tests SNN against each other method with Wilcoxon's signed-rank test; the
p-values printed there are one-sided.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from scipy.stats import rankdata, wilcoxon

from reproductions._validate import choice, positive_integer

__all__ = [
    "PUBLISHED_P_VALUES",
    "PUBLISHED_RANKS_A12",
    "PUBLISHED_RANKS_A13",
    "PUBLISHED_RANK_DIFFERENCES",
    "TableA11",
    "average_ranks",
    "bootstrap_ranks",
    "chance_of_a_count",
    "count_summary",
    "is_a_count",
    "load_table_a11",
    "rank_differences",
    "signed_rank_p_values",
]

#: Table 1 (left): average rank difference to the mean rank 4
PUBLISHED_RANK_DIFFERENCES = {
    "SNN": -0.756,
    "MS": -0.240,
    "LN": -0.198,
    "HW": 0.021,
    "ResNet": 0.273,
    "WN": 0.397,
    "BN": 0.504,
}
#: Table 1 (left): p-values of SNN against the method
PUBLISHED_P_VALUES = {
    "MS": 2.7e-2,
    "LN": 1.5e-2,
    "HW": 1.9e-3,
    "ResNet": 5.4e-4,
    "WN": 7.8e-7,
    "BN": 3.5e-6,
}
#: Table A12: average ranks of the best among 24 methods on 75 small tasks
PUBLISHED_RANKS_A12 = {"SVM": 9.3, "RF": 9.6, "SNN": 9.6}
#: Table A13: average ranks of the best among 24 methods on 46 large tasks
PUBLISHED_RANKS_A13 = {
    "SNN": 5.8,
    "SVM": 6.1,
    "RF": 6.6,
    "MS": 7.1,
    "LN": 7.2,
    "HW": 7.9,
    "ResNet": 8.4,
    "WN": 8.7,
    "BN": 9.7,
}


@dataclass(frozen=True)
class TableA11:
    """``accuracy`` is (tasks, methods), NaN where the paper prints none; ``rows`` is (tasks,)."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    accuracy: np.ndarray
    rows: np.ndarray


def load_table_a11() -> TableA11:
    """Read the table shipped with the package."""
    text = (files(__package__) / "table_a11.csv").read_text(encoding="utf-8")
    header, *lines = csv.reader(text.splitlines())
    accuracy = [[float(v) if v else float("nan") for v in line[3:]] for line in lines]
    return TableA11(
        tasks=tuple(line[0] for line in lines),
        methods=tuple(header[3:]),
        accuracy=np.array(accuracy),
        rows=np.array([int(line[1]) for line in lines]),
    )


def average_ranks(accuracy: np.ndarray, missing: str = "drop") -> np.ndarray:
    """Ranks (tasks, methods) within each task, 1 for the highest accuracy; ties share.

    Args:
        accuracy: (tasks, methods), NaN where there is no value.
        missing: ``drop`` leaves out a task with a missing value, ``worst`` gives the missing the
            last ranks of their task (shared).
    """
    choice("missing", missing, ("drop", "worst"))
    accuracy = np.asarray(accuracy, dtype=float)
    if accuracy.ndim != 2:
        raise ValueError(f"accuracy must be (tasks, methods), got shape {accuracy.shape}")
    absent = np.isnan(accuracy)
    if missing == "drop":
        accuracy = accuracy[~absent.any(1)]
    else:
        accuracy = np.where(absent, -np.inf, accuracy)
    if len(accuracy) == 0:
        raise ValueError("accuracy has no complete task left; use missing='worst'")
    return rankdata(-accuracy, axis=1)


def rank_differences(accuracy: np.ndarray, missing: str = "drop") -> np.ndarray:
    """Average rank of each method minus the mean rank (methods + 1)/2; negative is better."""
    ranks = average_ranks(accuracy, missing)
    return ranks.mean(0) - (ranks.shape[1] + 1) / 2


def signed_rank_p_values(
    accuracy: np.ndarray, method: int, *, alternative: str = "greater", missing: str = "drop"
) -> np.ndarray:
    """Wilcoxon signed-rank p-values that column ``method`` is more accurate than each column.

    ``alternative='greater'`` is one-sided, ``'two-sided'`` asks for any difference. Tasks with
    equal accuracies carry no sign and are left out. ``missing`` as in ``average_ranks``; a missing
    value counts as an accuracy of 0 under ``worst``. The entry of ``method`` itself is NaN.
    """
    choice("alternative", alternative, ("greater", "less", "two-sided"))
    choice("missing", missing, ("drop", "worst"))
    accuracy = np.asarray(accuracy, dtype=float)
    absent = np.isnan(accuracy)
    accuracy = accuracy[~absent.any(1)] if missing == "drop" else np.where(absent, 0.0, accuracy)
    p = np.full(accuracy.shape[1], np.nan)
    for other in range(accuracy.shape[1]):
        # four printed digits: differences below rounding are ties
        difference = np.round(accuracy[:, method] - accuracy[:, other], 6)
        if other != method and difference.any():
            p[other] = wilcoxon(difference, alternative=alternative, method="asymptotic").pvalue
    return p


def bootstrap_ranks(
    ranks: np.ndarray, *, n_resamples: int, rng: np.random.Generator, level: float = 0.95
) -> np.ndarray:
    """Percentile intervals (methods, 2) of the average ranks when tasks are drawn anew.

    Args:
        ranks: (tasks, methods), e.g. from ``average_ranks``.
        n_resamples: number of resamples.
        rng: source of randomness.
        level: coverage of the interval.
    """
    positive_integer("n_resamples", n_resamples)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    ranks = np.asarray(ranks, dtype=float)
    counts = rng.multinomial(len(ranks), np.full(len(ranks), 1 / len(ranks)), size=n_resamples)
    means = counts @ ranks / len(ranks)
    tail = (1 - level) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0).T


def is_a_count(
    accuracy: np.ndarray | float, n_test: np.ndarray | int, digits: int = 4
) -> np.ndarray:
    """Whether an accuracy printed with ``digits`` digits can be k / n_test for a whole k.

    The average over several splits usually cannot. Compare with ``chance_of_a_count``: the test
    says something only while n_test is far below 10^digits.
    """
    accuracy, n_test = np.asarray(accuracy, dtype=float), np.asarray(n_test)
    k = np.round(accuracy * n_test)
    # half a unit of the last digit, whichever way the printer rounds a tie
    return np.abs(k / n_test - accuracy) <= 0.5 * 10.0**-digits * (1 + 1e-6)


def chance_of_a_count(n_test: np.ndarray | int, digits: int = 4) -> np.ndarray:
    """Share of all printable accuracies in [0, 1] that pass ``is_a_count``."""
    return np.minimum(1.0, (np.asarray(n_test) + 1) / (10.0**digits + 1))


def count_summary(accuracy: np.ndarray, n_test: Sequence[int]) -> tuple[np.ndarray, float]:
    """Per task whether all its accuracies are counts, and how many tasks chance would give.

    Args:
        accuracy: (tasks, methods) without missing values.
        n_test: rows of one test split, per task.
    """
    accuracy, n_test = np.asarray(accuracy, dtype=float), np.asarray(n_test)
    per_task = is_a_count(accuracy, n_test[:, None]).all(1)
    return per_task, float((chance_of_a_count(n_test) ** accuracy.shape[1]).sum())
