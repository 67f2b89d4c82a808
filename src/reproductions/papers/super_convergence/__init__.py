"""Super-convergence, Smith and Topin (2017, 2018)."""

from reproductions.kernels.replica import momentum_step

from . import published
from .batches import Batches
from .echo import (
    board,
    noise_checks,
    over_noise,
    quadratic_error,
    rate_in_use,
    relative_estimate,
)
from .estimate import (
    RateEstimator,
    estimate_under_noise,
    learning_rate_estimate,
    noise_estimate_curve,
    noise_ratio,
    secant_rate,
    smoothed,
)
from .networks import LENET, RESNET20, RESNET56, RESNET110, reduced
from .schedules import (
    cosine,
    cyclical_momentum,
    inverse_decay,
    linear_decay,
    one_cycle,
    piecewise_constant,
    range_test,
    triangular,
    warmed_up,
)
from .sizes import SIZES, Sizes
from .statements import STATEMENTS
from .tasks import Task, image_task, stand_in
from .training import Monitor, Outcome, Paused, Recipe, Stack, train

__all__ = [
    "LENET",
    "RESNET20",
    "RESNET56",
    "RESNET110",
    "SIZES",
    "STATEMENTS",
    "Batches",
    "Monitor",
    "Outcome",
    "Paused",
    "RateEstimator",
    "Recipe",
    "Sizes",
    "Stack",
    "Task",
    "board",
    "cosine",
    "cyclical_momentum",
    "estimate_under_noise",
    "image_task",
    "inverse_decay",
    "learning_rate_estimate",
    "linear_decay",
    "momentum_step",
    "noise_checks",
    "noise_estimate_curve",
    "noise_ratio",
    "one_cycle",
    "over_noise",
    "piecewise_constant",
    "published",
    "quadratic_error",
    "range_test",
    "rate_in_use",
    "reduced",
    "relative_estimate",
    "secant_rate",
    "smoothed",
    "stand_in",
    "train",
    "triangular",
    "warmed_up",
]
