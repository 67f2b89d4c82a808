"""Transformers as Support Vector Machines, Tarzanagh, Li, Thrampoulidis and Oymak (2023)."""

from .att_svm import AttSVM, att_svm
from .census import Census, census, feasible_share
from .conic import conic_svm, numerical_rank
from .descent import gradient_direction, loss_and_gradient, normalised_gd
from .generalized import finite_part, generalized_svm
from .heads import (
    LambdaRun,
    keeps_local_optimum,
    lambda_experiment,
    orthonormal_problems,
    quadratic_head,
    relu_head,
    sparsemax,
)
from .multi_token import (
    Funnel,
    MultiToken,
    Prediction,
    active_svm,
    multi_token_run,
    relu_problems,
)
from .nuclear import NuclearSVM, att_svm_nuclear
from .optimality import is_locally_optimal, margins, optimal, scores, support
from .outcomes import (
    Outcome,
    correlation,
    first_step_separates,
    largest_attention,
    outcome,
    runner_up,
    standard_error,
)
from .plain import attention_loss, autograd_descent
from .planar import PlanarRun, level_line, log_length, planar_run, small_factors
from .problems import Problems, causal, default_start, draw, factor_start, plane, seeds_from
from .regularization import ball_minimum, excess_loss, stationarity
from .second_order import (
    margin_residuals,
    predicted_margins,
    residual_spread,
    shuffled_duals,
)
from .sizes import SIZES, Sizes
from .statements import STATEMENTS
from .trained_head import TrainedHead, train_with_head

__all__ = [
    "SIZES",
    "STATEMENTS",
    "AttSVM",
    "Census",
    "Funnel",
    "LambdaRun",
    "MultiToken",
    "NuclearSVM",
    "Outcome",
    "PlanarRun",
    "Prediction",
    "Problems",
    "Sizes",
    "TrainedHead",
    "active_svm",
    "att_svm",
    "att_svm_nuclear",
    "attention_loss",
    "autograd_descent",
    "ball_minimum",
    "causal",
    "census",
    "conic_svm",
    "correlation",
    "default_start",
    "draw",
    "excess_loss",
    "factor_start",
    "feasible_share",
    "finite_part",
    "first_step_separates",
    "generalized_svm",
    "gradient_direction",
    "is_locally_optimal",
    "keeps_local_optimum",
    "lambda_experiment",
    "largest_attention",
    "level_line",
    "log_length",
    "loss_and_gradient",
    "margin_residuals",
    "margins",
    "multi_token_run",
    "normalised_gd",
    "numerical_rank",
    "optimal",
    "orthonormal_problems",
    "outcome",
    "planar_run",
    "plane",
    "predicted_margins",
    "quadratic_head",
    "relu_head",
    "relu_problems",
    "residual_spread",
    "runner_up",
    "scores",
    "seeds_from",
    "shuffled_duals",
    "small_factors",
    "sparsemax",
    "standard_error",
    "stationarity",
    "support",
    "train_with_head",
]
