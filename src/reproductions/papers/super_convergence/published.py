"""Published numbers on super-convergence: the paper's, its logs', later ones, and other people's.

Sources, by file beside this one; accuracies are test accuracies in percent.

``published.csv``: values printed in Smith and Topin, "Super-Convergence: Very Fast Training of
Residual Networks Using Large Learning Rates" (ICLR 2018 submission, the text of arXiv:1708.07120v1
and v2), by claim, figure and table; single runs. Its Table 1 quotes for piecewise-constant rates
the highest accuracy attained, for cycles the final one. ``log`` names the authors' log of the same
setting, where they released one.

``authors_logs.csv``: the last test of 37 of the 43 Caffe logs in the folder ``Results`` of
github.com/lnsmith54/super-convergence (commit 5c5632e), one run each; the six left out belong to no
claim (gradient clipping). Figures are numbered as in the paper; the logs' own names are off by one
from Figure 7 on. A test takes 200 batches of 125 images, that is the 10,000 test images two and a
half times. ``authors_curves.csv``: stretches of six of these logs, thinned: test accuracy and loss
with the accuracy and loss on the training batch (125 images, one of eight devices) printed next to
them.

``tables_2018.csv``: the experiments added in arXiv:1708.07120v3 (May 2018), with mean and standard
deviation. Smith, arXiv:1803.09820, prints the same table, and these rows are from a transcription
of that one, with an evident slip set right (Wide ResNet, 400 epochs: 89.8 for 98.8); its caption
gives 512 as the batch size of all runs. The ImageNet rows are from the text: the standard runs were
stopped at about 100 epochs (of the first, 130 is also written) and expected to end at 65 and at 69
to 70 %.

``independent.csv``: ``kwaugh``, github.com/kwaugh/Super-Convergence-Verification (TensorFlow, batch
256, ICLR reproducibility challenge); ``PE51K``, github.com/PE51K/itmo-ai-talent-hub-efficient-
models-course, hw2 (PyTorch, the authors' settings, batch 1000 in groups of 125; one seed).

Nothing but numbers was taken from these repositories.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import TypeVar, get_type_hints

import numpy as np

from reproductions._validate import choice

__all__ = [
    "AIRBENCH",
    "INDEPENDENT",
    "LOGS",
    "TABLE",
    "TABLES_2018",
    "Anchor",
    "Curve",
    "Independent",
    "LaterResult",
    "LimitedData",
    "Log",
    "Published",
    "curve",
    "limited_data",
    "published",
]


@dataclass(frozen=True)
class Published:
    """A value printed in the paper (v1, v2); ``accuracy`` is NaN where a figure shows no number."""

    claim: str
    where: str
    arm: str
    setting: str
    n_images: int
    iterations: int
    accuracy: float
    log: str


@dataclass(frozen=True)
class Log:
    """The last test of one of the authors' logs: accuracy in percent, loss in nats."""

    log: str
    claim: str
    figure: str
    arm: str
    network: str
    n_images: int
    iterations: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class LaterResult:
    """A row of the tables of 2018: mean and standard deviation; NaN where none is given.

    ``independent`` is the mean of five runs of a port to Keras with the same rates and lengths
    (github.com/coxy1989/superconv), NaN where there is none.
    """

    claim: str
    data: str
    network: str
    arm: str
    rates: str
    momentum: str
    weight_decay: float
    epochs: int
    accuracy: float
    spread: float
    independent: float


@dataclass(frozen=True)
class Independent:
    """A run of somebody else's reproduction with ResNet-56 on CIFAR-10."""

    source: str
    arm: str
    rates: str
    batch: int
    n_images: int
    iterations: int
    accuracy: float


@dataclass(frozen=True)
class LimitedData:
    """Final accuracies for one size of the training set, in percent (Table 1 and Fig. 6a).

    Attributes:
        n_images: training images.
        cycle: cycle 0.1-3, 10,000 iterations at batch 1000, the paper's value.
        cycle_log: the same in the authors' log.
        constant: piecewise constant from 0.35, 80,000 iterations at batch 1000, the paper's value.
        constant_log: the same in the authors' log.
        constant_independent: piecewise constant from 0.35, 80,000 iterations, of other people
            (``kwaugh``): batches of 256, random crops, twice the weight decay, other drops.
        cycle_independent: their cycle 0.1-3, 10,000 iterations of batches of 256.
    """

    n_images: int
    cycle: float
    cycle_log: float
    constant: float
    constant_log: float
    constant_independent: float
    cycle_independent: float

    @property
    def gain(self) -> float:
        """Points by which the paper's cycle beats the paper's piecewise-constant run."""
        return self.cycle - self.constant

    @property
    def gain_independent(self) -> float:
        """Points by which the other people's cycle beats their piecewise-constant run."""
        return self.cycle_independent - self.constant_independent


@dataclass(frozen=True, eq=False)
class Curve:
    """A stretch of one of the authors' logs; every attribute is (n_tests,).

    Attributes:
        iterations: when it was tested.
        accuracy: test accuracy in percent, with BatchNorm's running averages.
        loss: test loss.
        train_accuracy: accuracy on the training batch in percent, with the batch's own statistics.
        train_loss: loss on it.
    """

    iterations: np.ndarray
    accuracy: np.ndarray
    loss: np.ndarray
    train_accuracy: np.ndarray
    train_loss: np.ndarray


@dataclass(frozen=True)
class Anchor:
    """A modern speed record for CIFAR-10: accuracy in percent, epochs, seconds on the device."""

    accuracy: float
    epochs: float
    seconds: float
    device: str


#: github.com/KellerJordan/cifar10-airbench (Jordan 2024, arXiv:2404.00498), a rise and fall of the
#: rate of Nesterov SGD
AIRBENCH = Anchor(accuracy=94.01, epochs=9.9, seconds=3.8, device="A100")

Row = TypeVar("Row")


def _read(name: str, row: type[Row]) -> tuple[Row, ...]:
    """The rows of a CSV file of this folder; an empty number is NaN."""
    types = get_type_hints(row)
    text = (files(__package__) / name).read_text(encoding="utf-8")

    def value(field: str, entry: str):
        kind = types[field]
        return kind(entry or "nan") if kind is float else kind(entry)

    names = [field.name for field in fields(row)]
    lines = csv.DictReader(text.splitlines())
    return tuple(row(**{name: value(name, line[name]) for name in names}) for line in lines)


#: values printed in the paper (v1, v2), by claim
TABLE = _read("published.csv", Published)
#: the last test of the authors' logs, by the name of the log
LOGS = {log.log: log for log in _read("authors_logs.csv", Log)}
#: the experiments added in v3
TABLES_2018 = _read("tables_2018.csv", LaterResult)
#: reproductions by other people
INDEPENDENT = _read("independent.csv", Independent)


def published(claim: str) -> tuple[Published, ...]:
    """The rows of ``TABLE`` of a claim such as ``C1``, in the paper's order.

    Raises:
        ValueError: for a claim that ``TABLE`` does not have.
    """
    choice("claim", claim, dict.fromkeys(row.claim for row in TABLE))
    return tuple(row for row in TABLE if row.claim == claim)


def limited_data() -> tuple[LimitedData, ...]:
    """The comparison of claim C3 at 50,000 to 10,000 training images, the largest first."""

    def pick(rows, arm: str, n_images: int, **more: str):
        return next(
            row
            for row in rows
            if row.arm == arm
            and row.n_images == n_images
            and all(getattr(row, key) == value for key, value in more.items())
        )

    rows = [row for row in TABLE if row.claim in ("C1", "C3")]
    found = []
    for n_images in (50_000, 40_000, 30_000, 20_000, 10_000):
        cycle = pick(rows, "cycle", n_images)
        constant = pick(rows, "piecewise constant", n_images)
        found.append(
            LimitedData(
                n_images=n_images,
                cycle=cycle.accuracy,
                cycle_log=LOGS[cycle.log].accuracy,
                constant=constant.accuracy,
                constant_log=LOGS[constant.log].accuracy,
                constant_independent=pick(
                    INDEPENDENT, "piecewise constant", n_images, source="kwaugh"
                ).accuracy,
                cycle_independent=pick(
                    INDEPENDENT, "cycle", n_images, source="kwaugh", rates="0.1-3"
                ).accuracy,
            )
        )
    return tuple(found)


@cache
def _curves() -> dict[str, Curve]:
    text = (files(__package__) / "authors_curves.csv").read_text(encoding="utf-8")
    lines: dict[str, list[list[float]]] = {}
    for log, *numbers in list(csv.reader(text.splitlines()))[1:]:
        lines.setdefault(log, []).append([float(number) for number in numbers])
    return {log: Curve(*np.array(rows).T) for log, rows in lines.items()}


def curve(log: str) -> Curve:
    """The stretches of one of the authors' logs that ship with the package.

    Args:
        log: name of the log, such as ``clr3SS5kFig1a``.

    Raises:
        ValueError: for a log of which no stretch is here.
    """
    curves = _curves()
    return curves[choice("log", log, curves)]
