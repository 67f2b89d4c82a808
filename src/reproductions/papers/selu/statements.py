"""What Klambauer, Unterthiner, Mayr and Hochreiter (2017) claim, in our words, with sources.

Listed before anything is measured: id -> (statement, source in the paper, arXiv version 5).
"""

from __future__ import annotations

__all__ = ["STATEMENTS"]

STATEMENTS = {
    "C1": (
        "Two constants, α ≈ 1.6733 and λ ≈ 1.0507, make (mean, variance) = (0, 1) a fixed point.",
        "Eq. 14",
    ),
    "C2": (
        "Mean and variance of SELU applied to a Gaussian have an exact closed form.",
        "Eqs. 4 and 5",
    ),
    "C3": (
        "At (0, 1) the Jacobian of the layer map has spectral norm 0.7877, so the point attracts.",
        "Eq. 6",
    ),
    "C4": (
        "On a box around (0, 1) the layer map is a contraction: the spectral norm stays below 1.",
        "Theorem 1, Lemma 12",
    ),
    "C5": (
        "The box is mapped into itself, so each (ω, τ) has exactly one attracting fixed point.",
        "Theorem 1",
    ),
    "C6": ("A variance in [3, 16] shrinks in one layer.", "Theorem 2"),
    "C7": ("A variance close to zero grows in one layer.", "Theorem 3"),
    "C8": ("For ω = 0 and τ = 1 every nearby (mean, variance) flows to (0, 1).", "Figure 2"),
    "C9": (
        "Propagated through many layers, activations are pushed to zero mean and unit variance.",
        "Abstract, Section 1",
    ),
    "C10": (
        "Deep SNNs train: their training loss falls with depth and lies below batch "
        "normalization's, with less variance.",
        "Figure 1",
    ),
    "C11": ("Alpha dropout keeps mean 0 and variance 1; plain dropout does not.", "Section 2"),
    "C12": (
        "On 121 UCI tasks SNNs have the best average rank of seven feed-forward methods, "
        "significantly so.",
        "Table 1 (left), Table A11",
    ),
    "C13": (
        "Among 24 methods SNNs rank first on large UCI tasks, and near random forests and SVMs "
        "on small ones.",
        "Tables A12 and A13",
    ),
    "C14": (
        "The SNNs that validation selects are deeper than the other networks it selects.",
        "Section 3",
    ),
    "C15": (
        "On HTRU2 (pulsars) an SNN reaches an AUC of 0.9803, above the methods before.",
        "Table 3",
    ),
    "C16": (
        "On Tox21 the best SNN is level with the challenge's winning ensemble, and other networks "
        "lose more with depth.",
        "Table 2",
    ),
    "C17": (
        "The inputs of a unit are close to normally distributed, before and after training.",
        "Figure A8",
    ),
    "C18": (
        "Other fixed points can be chosen: (0, 2) needs α = 1.97126 and λ = 1.06071.",
        "Appendix A5",
    ),
    "C19": (
        "Self-normalization cannot be had with (scaled) ReLU, leaky ReLU, tanh or sigmoid units.",
        "Section 2",
    ),
    "C20": ("Vanishing and exploding gradients are impossible.", "Abstract"),
}
