"""How large the experiments of the chapter run: seconds, minutes, or the paper's own scale."""

from __future__ import annotations

from dataclasses import dataclass

from .moments import PAPER_POINTS

__all__ = ["SIZES", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of every experiment.

    Attributes:
        n_monte_carlo: draws behind a Monte Carlo estimate of the moment map.
        grid_points: points along mu, omega, nu and tau of the grids over the boxes.
        propagation_width: units per layer of the random networks.
        propagation_depth: their layers.
        propagation_seeds: networks.
        propagation_inputs: inputs of each (the batch of batch normalization).
        propagation_short_depth: layers for the networks that settle early (tanh, LN, BN).
        centered_seeds: networks with centered and normalized weights.
        centered_depth: their layers.
        dropout_samples: activations behind the moments of dropout.
        dropout_depth: layers of the networks with dropout.
        dropout_seeds: networks with dropout.
        figure1_depths: hidden layers.
        figure1_width: units per hidden layer.
        figure1_epochs: passes over the digits.
        figure1_seeds: repetitions.
        figure1_rate: learning rate for the mean loss.
        figure1_late_epochs: last epochs, whose jitter is measured.
        mnist_rows: training images of the same experiment on MNIST.
        mnist_width: units per hidden layer there.
        mnist_epochs: passes over them.
        mnist_seeds: repetitions.
        mnist_rate: learning rate for the mean loss.
        sweep_rates: learning rates that the methods are compared over.
        sweep_depth: hidden layers there.
        sweep_epochs: passes over the digits there.
        uci_tasks: tasks of the UCI collection, by name; empty stands for all there are.
        uci_splits: splits of the tasks that come without any.
        uci_depths: hidden layers, a setting each.
        uci_rates: learning rates, a setting each.
        uci_dropouts: dropout rates, a setting each.
        uci_width: units per hidden layer.
        uci_epochs: passes over the training rows.
        uci_batch: rows per step.
        uci_window: epochs of the moving average in the selection.
        uci_seeds: repetitions of the whole comparison.
        uci_repeats: networks per split and setting, each from a start of its own.
        uci_trees: trees per forest.
        n_bootstrap: resamples of tasks behind an interval.
        htru2_rows: pulsar candidates, drawn from all of them; 0 stands for all.
        htru2_folds: folds.
        htru2_depths: hidden layers, a setting each.
        htru2_rates: learning rates, a setting each.
        htru2_width: units per hidden layer.
        htru2_epochs: passes over the training folds.
        htru2_batch: rows per step.
        sweep_htru2_depths: hidden layers of the depth sweep.
        sweep_htru2_folds: test folds of the depth sweep.
        sweep_htru2_rate: its learning rate.
        sweep_htru2_epochs: its passes over the training folds.
        clt_widths: units per hidden layer.
        clt_layers: layers whose preactivations are looked at.
        clt_rows: images.
        clt_epochs: passes over them between the two looks.
        clt_rate: learning rate of those.
        clt_seeds: networks.
        control_fan_ins: numbers of i.i.d. summands.
        control_samples: inputs per unit of the control.
        control_units: units of the control.
    """

    n_monte_carlo: int
    grid_points: tuple[int, int, int, int]
    propagation_width: int
    propagation_depth: int
    propagation_seeds: int
    propagation_inputs: int
    propagation_short_depth: int
    centered_seeds: int
    centered_depth: int
    dropout_samples: int
    dropout_depth: int
    dropout_seeds: int
    figure1_depths: tuple[int, ...]
    figure1_width: int
    figure1_epochs: int
    figure1_seeds: int
    figure1_rate: float
    figure1_late_epochs: int
    mnist_rows: int
    mnist_width: int
    mnist_epochs: int
    mnist_seeds: int
    mnist_rate: float
    sweep_rates: tuple[float, ...]
    sweep_depth: int
    sweep_epochs: int
    uci_tasks: tuple[str, ...]
    uci_splits: int
    uci_depths: tuple[int, ...]
    uci_rates: tuple[float, ...]
    uci_dropouts: tuple[float, ...]
    uci_width: int
    uci_epochs: int
    uci_batch: int
    uci_window: int
    uci_seeds: int
    uci_repeats: int
    uci_trees: int
    n_bootstrap: int
    htru2_rows: int
    htru2_folds: int
    htru2_depths: tuple[int, ...]
    htru2_rates: tuple[float, ...]
    htru2_width: int
    htru2_epochs: int
    htru2_batch: int
    sweep_htru2_depths: tuple[int, ...]
    sweep_htru2_folds: int
    sweep_htru2_rate: float
    sweep_htru2_epochs: int
    clt_widths: tuple[int, ...]
    clt_layers: tuple[int, ...]
    clt_rows: int
    clt_epochs: int
    clt_rate: float
    clt_seeds: int
    control_fan_ins: tuple[int, ...]
    control_samples: int
    control_units: int


SIZES = {
    "smoke": Sizes(
        n_monte_carlo=100_000,
        grid_points=(5, 5, 11, 9),
        propagation_width=64,
        propagation_depth=64,
        propagation_seeds=8,
        propagation_inputs=8,
        propagation_short_depth=16,
        centered_seeds=8,
        centered_depth=4,
        dropout_samples=100_000,
        dropout_depth=8,
        dropout_seeds=2,
        figure1_depths=(4, 8),
        figure1_width=16,
        figure1_epochs=4,
        figure1_seeds=2,
        figure1_rate=0.03,
        figure1_late_epochs=3,
        mnist_rows=512,
        mnist_width=16,
        mnist_epochs=2,
        mnist_seeds=1,
        mnist_rate=0.03,
        sweep_rates=(0.03, 0.1),
        sweep_depth=4,
        sweep_epochs=3,
        uci_tasks=("wine", "seeds"),
        uci_splits=2,
        uci_depths=(2, 4),
        uci_rates=(0.1,),
        uci_dropouts=(0.0,),
        uci_width=16,
        uci_epochs=4,
        uci_batch=32,
        uci_window=2,
        uci_seeds=1,
        uci_repeats=1,
        uci_trees=10,
        n_bootstrap=100,
        htru2_rows=2000,
        htru2_folds=3,
        htru2_depths=(2,),
        htru2_rates=(0.1,),
        htru2_width=8,
        htru2_epochs=2,
        htru2_batch=128,
        sweep_htru2_depths=(2, 4),
        sweep_htru2_folds=1,
        sweep_htru2_rate=0.03,
        sweep_htru2_epochs=1,
        clt_widths=(16, 32),
        clt_layers=(1, 2),
        clt_rows=512,
        clt_epochs=1,
        clt_rate=0.01,
        clt_seeds=1,
        control_fan_ins=(8, 32),
        control_samples=2000,
        control_units=4,
    ),
    "cpu": Sizes(
        n_monte_carlo=10_000_000,
        grid_points=(13, 13, 121, 91),
        propagation_width=256,
        propagation_depth=1000,
        propagation_seeds=8,
        propagation_inputs=16,
        propagation_short_depth=100,
        centered_seeds=64,
        centered_depth=8,
        dropout_samples=4_000_000,
        dropout_depth=32,
        dropout_seeds=8,
        figure1_depths=(8, 16, 32),
        figure1_width=64,
        figure1_epochs=12,
        figure1_seeds=3,
        figure1_rate=0.01,
        figure1_late_epochs=6,
        mnist_rows=4000,
        mnist_width=128,
        mnist_epochs=5,
        mnist_seeds=2,
        mnist_rate=0.01,
        sweep_rates=(0.01, 0.03, 0.1, 0.3, 1.0),
        sweep_depth=16,
        sweep_epochs=12,
        # The small tasks of 120 to 300 rows, but for those that the comparison was developed on.
        uci_tasks=(
            "acute-inflammation",
            "acute-nephritis",
            "heart-switzerland",
            "echocardiogram",
            "lymphography",
            "teaching",
            "hepatitis",
            "hayes-roth",
            "planning",
            "flags",
            "audiology-std",
            "breast-cancer-wisc-prog",
            "heart-va",
            "conn-bench-sonar-mines-rocks",
            "spect",
            "spectf",
            "breast-cancer",
            "heart-hungarian",
        ),
        uci_splits=4,
        uci_depths=(2, 8),
        uci_rates=(0.01, 0.1),
        uci_dropouts=(0.0,),
        uci_width=64,
        uci_epochs=30,
        uci_batch=32,
        uci_window=10,
        uci_seeds=3,
        uci_repeats=1,
        uci_trees=100,
        n_bootstrap=2000,
        htru2_rows=0,
        htru2_folds=10,
        htru2_depths=(2, 8),
        htru2_rates=(0.01, 0.1),
        htru2_width=64,
        htru2_epochs=10,
        htru2_batch=128,
        sweep_htru2_depths=(2, 4, 8, 16, 32),
        sweep_htru2_folds=3,
        sweep_htru2_rate=0.03,
        sweep_htru2_epochs=3,
        clt_widths=(64, 256),
        clt_layers=(1, 2, 4, 8, 16),
        clt_rows=2000,
        clt_epochs=3,
        clt_rate=0.01,
        clt_seeds=2,
        control_fan_ins=(8, 32, 128),
        control_samples=10_000,
        control_units=16,
    ),
    "paper": Sizes(
        n_monte_carlo=1_000_000_000,
        grid_points=PAPER_POINTS,
        propagation_width=4096,
        propagation_depth=1000,
        propagation_seeds=64,
        propagation_inputs=16,
        propagation_short_depth=1000,
        centered_seeds=64,
        centered_depth=32,
        dropout_samples=20_000_000,
        dropout_depth=32,
        dropout_seeds=64,
        figure1_depths=(8, 16, 32),
        figure1_width=64,
        figure1_epochs=2000,
        figure1_seeds=10,
        figure1_rate=128e-5,
        figure1_late_epochs=200,
        mnist_rows=60_000,
        mnist_width=784,
        mnist_epochs=500,
        mnist_seeds=1,
        mnist_rate=128e-5,
        sweep_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        sweep_depth=16,
        sweep_epochs=200,
        uci_tasks=(),
        uci_splits=4,
        uci_depths=(2, 3, 4, 8, 16, 32),
        uci_rates=(0.01, 0.1, 1.0),
        uci_dropouts=(0.0, 0.05),
        uci_width=256,
        uci_epochs=100,
        uci_batch=32,
        uci_window=10,
        uci_seeds=3,
        uci_repeats=3,
        uci_trees=500,
        n_bootstrap=10_000,
        htru2_rows=0,
        htru2_folds=10,
        htru2_depths=(2, 4, 8, 16, 32),
        htru2_rates=(0.01, 0.1, 1.0),
        htru2_width=256,
        htru2_epochs=100,
        htru2_batch=128,
        sweep_htru2_depths=(2, 3, 4, 6, 8, 16, 32),
        sweep_htru2_folds=10,
        sweep_htru2_rate=0.01,
        sweep_htru2_epochs=20,
        clt_widths=(64, 256, 784),
        clt_layers=(1, 2, 4, 8, 16, 32),
        clt_rows=20_000,
        clt_epochs=10,
        clt_rate=0.01,
        clt_seeds=2,
        control_fan_ins=(8, 32, 128, 512),
        control_samples=100_000,
        control_units=64,
    ),
}
