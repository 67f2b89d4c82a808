"""What Smith and Topin (2017, 2018) claim, in our words, with sources.

Listed before anything is measured: id -> (statement, source). v1/v2 is the first version (August
2017, submitted to ICLR 2018), v3 the one of May 2018, which adds data sets and names the policy.
"""

from __future__ import annotations

__all__ = ["STATEMENTS"]

STATEMENTS = {
    "C1": (
        "One cycle of a large learning rate in 10,000 iterations beats piecewise constant training "
        "in 80,000.",
        "v1, Fig. 1a",
    ),
    "C2": (
        "Accuracy grows with the length of the cycle, and 2,000 iterations already come near.",
        "v1, Fig. 1b and Table 1",
    ),
    "C3": (
        "The gain over piecewise constant training grows as training data become few.",
        "v1, Fig. 6a and Table 1",
    ),
    "C4": (
        "In a range test the accuracy stays high up to a learning rate of 3, which announces "
        "super-convergence.",
        "v1, Fig. 2b",
    ),
    "C5": (
        "Large learning rates regularize: they raise the training loss and lower the test loss, so "
        "that the gap between them closes.",
        "v1, Fig. 4",
    ),
    "C6": (
        "The largest rate of the cycle has an optimum inside the range, and near it the result "
        "depends on it little.",
        "v1, Table 1",
    ),
    "C7": (
        "Super-convergence needs large batches: smaller ones do worse at equal iterations.",
        "v1, Table 5 and Fig. 9a",
    ),
    "C8": (
        "A momentum of 0.8 to 0.9 serves about equally well; 0.95 is worse.",
        "v1, Table 6 and Fig. 10a",
    ),
    "C9": (
        "A weight decay of 1e-3 prevents super-convergence where 1e-4 allows it: other "
        "regularization must shrink as the learning rate grows.",
        "v1, Fig. 10b; v3, section on regularization",
    ),
    "C10": (
        "Super-convergence occurs on CIFAR-100 too.",
        "v1, Fig. 7",
    ),
    "C11": (
        "Adam, AdaGrad, AdaDelta and Nesterov momentum with a piecewise constant rate do not reach "
        "the accuracy of the cycle.",
        "v1, Fig. 8a",
    ),
    "C12": (
        "With Nesterov momentum the cycle serves as well.",
        "v1, Fig. 8b",
    ),
    "C13": (
        "The gain is there for residual networks of 20 and 110 layers too.",
        "v1, Fig. 6b",
    ),
    "C14": (
        "A little dropout helps the cycle slightly.",
        "v1, Fig. 9b",
    ),
    "C15": (
        "Bottleneck residual networks and ResNeXt do not show super-convergence.",
        "v1, Fig. 11",
    ),
    "C16": (
        "A curvature estimate from three successive weight vectors indicates optimal learning "
        "rates of 2 to 4, and falls to about 0.2 in training with a constant rate of 0.1.",
        "v1, Eqs. (3)-(8) and Fig. 5",
    ),
    "C17": (
        "Batch-norm averages with a fraction of 0.999 hide super-convergence; 0.95 shows it.",
        "v1, section 6.1",
    ),
    "C18": (
        "On MNIST one cycle in 12 epochs beats 85 epochs of the usual schedules.",
        "v3; numbers from the companion report",
    ),
    "C19": (
        "Wide residual networks and DenseNets show super-convergence.",
        "v3; numbers from the companion report",
    ),
    "C20": (
        "On ImageNet 20 epochs of one cycle beat 100 of standard training.",
        "v3; numbers from the companion report",
    ),
}
