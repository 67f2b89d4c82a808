"""Neural Tangent Kernel, Jacot, Gabriel and Hongler (NeurIPS 2018)."""

from .costs import KernelCost, jacobian_cost, structured_cost
from .ensembles import (
    covariance_scores,
    coverage,
    excess_kurtosis,
    in_errors,
    kernel_bias,
    least_step,
    over_widths,
    pooled,
    scaled_bias,
)
from .initialization import (
    initial_kernels,
    initial_outputs,
    output_coupling,
    relative_deviation,
    relative_variance,
    standard_kernel,
)
from .limits import (
    PRIORS,
    Law,
    circle,
    gaussian_law,
    posterior,
    spectral_decay,
    spectral_filter,
    spectral_flow,
)
from .networks import Networks, draw, in_blocks, seeds_from, widths_of
from .positivity import CASES, antipodal_pairs, definiteness, definiteness_of
from .random_features import (
    expected_deviation,
    feature_deviation,
    feature_kernel,
    random_functions,
    tangent_kernel,
    train_model,
)
from .sizes import SIZES, Sizes
from .slopes import Slope, width_slope
from .spectra import PRINTED_EIGENVALUES, batch_spectra, principal_components
from .statements import STATEMENTS
from .stopping import early_stopping
from .tracing import half_times, predicted_half_times, trace
from .training import (
    descend,
    dissipation_errors,
    linearized,
    movement,
    product_target,
    trained_outputs,
)
from .trajectory import rounded, trajectory

__all__ = [
    "CASES",
    "PRINTED_EIGENVALUES",
    "PRIORS",
    "SIZES",
    "STATEMENTS",
    "KernelCost",
    "Law",
    "Networks",
    "Sizes",
    "Slope",
    "antipodal_pairs",
    "batch_spectra",
    "circle",
    "covariance_scores",
    "coverage",
    "definiteness",
    "definiteness_of",
    "descend",
    "dissipation_errors",
    "draw",
    "early_stopping",
    "excess_kurtosis",
    "expected_deviation",
    "feature_deviation",
    "feature_kernel",
    "gaussian_law",
    "half_times",
    "in_blocks",
    "in_errors",
    "initial_kernels",
    "initial_outputs",
    "jacobian_cost",
    "kernel_bias",
    "least_step",
    "linearized",
    "movement",
    "output_coupling",
    "over_widths",
    "pooled",
    "posterior",
    "predicted_half_times",
    "principal_components",
    "product_target",
    "random_functions",
    "relative_deviation",
    "relative_variance",
    "rounded",
    "scaled_bias",
    "seeds_from",
    "spectral_decay",
    "spectral_filter",
    "spectral_flow",
    "standard_kernel",
    "structured_cost",
    "tangent_kernel",
    "trace",
    "train_model",
    "trained_outputs",
    "trajectory",
    "width_slope",
    "widths_of",
]
