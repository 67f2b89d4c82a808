"""What Jacot, Gabriel and Hongler (2018) claim, in our words, with sources.

Listed before anything is measured: id -> (statement, source in the paper, arXiv version 4).
"""

from __future__ import annotations

__all__ = ["STATEMENTS"]

STATEMENTS = {
    "C1": (
        "At initialization, the outputs of a wide network are a Gaussian process with covariance "
        "Σ^(L).",
        "Proposition 1",
    ),
    "C2": (
        "At initialization, the tangent kernel of a wide network tends to a deterministic limit.",
        "Theorem 1",
    ),
    "C3": (
        "Kernels of narrower networks vary more, while their expectation is very close for both "
        "widths.",
        "Section 6.1, Figure 1 (t = 0)",
    ),
    "C4": (
        "The kernel inflates during training, much less so in the wider network.",
        "Section 6.1, Figure 1 (t = 200)",
    ),
    "C5": (
        "In the limit of large width the tangent kernel stays constant during training.",
        "Theorem 2",
    ),
    "C6": (
        "Each activation and each weight moves little; together they move enough to learn.",
        "Remark 4",
    ),
    "C7": (
        "The outputs of trained networks follow the Gaussian law of the limit; a width of 50 "
        "already gives a good indication of it.",
        "Section 6.2, Figure 2",
    ),
    "C8": (
        "On MNIST the three largest eigenvalues of the kernel are 0.0457, 0.00108 and 0.00078.",
        "Section 6.3, Figure 3",
    ),
    "C9": (
        "The first kernel principal component is nearly a constant function.",
        "Section 6.3",
    ),
    "C10": (
        "With β = 1 the gap between the first two eigenvalues is about ten times as large.",
        "Footnote 3",
    ),
    "C11": (
        "Training toward the second component follows a straight line, and wider networks deviate "
        "less from it.",
        "Section 6.3, Figure 3b",
    ),
    "C12": (
        "Along the line the error falls as exp(−λ₂t) in the limit, and faster in narrower "
        "networks.",
        "Section 6.3, Figure 3c",
    ),
    "C13": (
        "Convergence is faster along large components of the kernel, which is a reason for early "
        "stopping.",
        "Section 5",
    ),
    "C14": (
        "For inputs on the sphere, a non-polynomial activation and at least two layers, the limit "
        "kernel is positive definite.",
        "Proposition 2",
    ),
    "C15": (
        "Along the flow the cost falls at the rate of the squared norm of its derivative in the "
        "kernel.",
        "Section 3",
    ),
    "C16": (
        "A sum of P random functions has a tangent kernel that is constant in training and tends "
        "to the kernel of the functions as P grows.",
        "Section 3.1",
    ),
    "C17": (
        "A network with several outputs behaves in the limit like independent networks with one.",
        "Sections 4 and 6",
    ),
}
