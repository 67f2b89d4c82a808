"""What Tarzanagh, Li, Thrampoulidis and Oymak (2023) claim, in our words, with sources.

Listed before anything is measured: id -> (statement, source). Sources name the kind of result and
its subject; numbers of theorems and figures differ between versions of the paper.
"""

from __future__ import annotations

__all__ = ["STATEMENTS"]

STATEMENTS = {
    "C1": (
        "Gradient descent on W converges in direction to the solution of the Frobenius-norm SVM.",
        "Figures with paths in the plane",
    ),
    "C2": (
        "Gradient descent on (K, Q) converges in direction to the solution of the nuclear-norm "
        "SVM.",
        "Figure with paths in the plane",
    ),
    "C3": (
        "The softmax saturates, so that one token is selected; (K, Q) gets there faster than W.",
        "Figure on local convergence, softmax probabilities",
    ),
    "C4": (
        "Runs on W align with the Frobenius-norm SVM of the tokens that they select, and not with "
        "the nuclear-norm SVM.",
        "Figure on local convergence, correlations",
    ),
    "C5": (
        "Runs on (K, Q) align with the nuclear-norm SVM of the tokens that they select.",
        "Figure on local convergence, correlations",
    ),
    "C6": (
        "Overparameterization catalyzes global convergence: the share of runs that select the "
        "optimal tokens grows with d, and so does the share of problems in which all tokens are "
        "support vectors.",
        "Figure with bars over d",
    ),
    "C7": (
        "For d ≥ max(n, T − 1) the SVM is feasible for almost every data set.",
        "Theorem on separability",
    ),
    "C8": (
        "No finite W attains the least loss; along the SVM solution the loss tends to it.",
        "Lemma on the optimal risk",
    ),
    "C9": (
        "The regularization path of W converges in direction to the Frobenius-norm SVM.",
        "Theorem on regularization paths",
    ),
    "C10": (
        "The regularization path of (K, Q) converges in direction to the nuclear-norm SVM.",
        "Theorem on regularization paths",
    ),
    "C11": (
        "If the first step of gradient descent separates the optimal tokens, it converges to the "
        "global solution.",
        "Theorem on global convergence",
    ),
    "C12": (
        "Started near the direction of a locally optimal selection, gradient descent keeps it; "
        "near one that is not locally optimal, it does not.",
        "Theorem on local convergence",
    ),
    "C13": (
        "Both solutions have rank at most min(n, d); for n = 5 that of the nuclear-norm SVM is 4.5 "
        "to 4.9 on average.",
        "Figure on ranks",
    ),
    "C14": (
        "With a nonlinear head several tokens can survive, and a generalized SVM predicts W, "
        "better so for larger d.",
        "Figure on nonlinear heads",
    ),
    "C15": (
        "The more mass is left on the tokens that should be masked, the worse the prediction.",
        "Figure on nonlinear heads, scatter",
    ),
    "C16": (
        "With the head vᵀo − λ‖o‖², more tokens are kept the larger λ is.",
        "Experiment with λ-heads",
    ),
    "C17": (
        "The equivalence extends to one loss for every position, with causal attention too.",
        "Section on sequences",
    ),
}
