"""How large the experiments of the chapter run: seconds, minutes, or the paper's own scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SIZES", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of every experiment. A mapping ``width -> number of networks`` names an ensemble.

    Attributes:
        face: kernels at initialization in the opening figure.
        outputs: outputs at initialization, to compare with the Gaussian process.
        deviation: kernels at initialization, to measure how fast they approach the limit.
        variation: kernels at initialization whose standard deviation is measured.
        bias: kernels at initialization whose mean is compared with the limit.
        lines: the two widths of Figure 1.
        movement: networks trained on the circle, to measure what moves.
        smooth_movement: the same with erf in place of ReLU.
        gaussian_inputs: the same on inputs from N(0, 1), as one sentence of the paper has it.
        movement_rows: inputs of those trainings.
        movement_steps: steps of gradient descent, learning rate 1.
        trained: networks trained on four points, to compare with the limit law.
        trained_steps: their steps, learning rate 1.
        pictured: networks of each width drawn in Figure 2.
        shown: widths of the interactive figure.
        spectrum_rows: images in a batch whose spectrum is taken.
        spectrum_batches: batches.
        scale_batches: batches for each scale of the pixels.
        spectrum_networks: finite networks whose spectrum is taken.
        trace: networks trained along the second component, for each batch.
        trace_batches: batches of images.
        trace_rows: images of a batch.
        trace_rate: learning rate.
        trace_steps: steps.
        trace_every: steps between two looks at the kernel.
        stopping_rows: training images for early stopping.
        stopping_repeats: draws of training set and flipped labels.
        stopping_tests: test images, one half to choose the time and one half to judge it.
        features: numbers P of random functions.
        features_draws: draws of each.
        coupling: networks with two outputs.
        deep: width -> networks, for depth in proportion to width.
    """

    face: Mapping[int, int]
    outputs: Mapping[int, int]
    deviation: Mapping[int, int]
    variation: Mapping[int, int]
    bias: Mapping[int, int]
    lines: Mapping[int, int]
    movement: Mapping[int, int]
    smooth_movement: Mapping[int, int]
    gaussian_inputs: Mapping[int, int]
    movement_rows: int
    movement_steps: int
    trained: Mapping[int, int]
    trained_steps: int
    pictured: int
    shown: tuple[int, ...]
    spectrum_rows: int
    spectrum_batches: int
    scale_batches: int
    spectrum_networks: Mapping[int, int]
    trace: Mapping[int, int]
    trace_batches: int
    trace_rows: int
    trace_rate: float
    trace_steps: int
    trace_every: int
    stopping_rows: int
    stopping_repeats: int
    stopping_tests: int
    features: tuple[int, ...]
    features_draws: int
    coupling: Mapping[int, int]
    deep: Mapping[int, int]


SIZES = {
    "smoke": Sizes(
        face={16: 20, 128: 20, 512: 10},
        outputs={8: 4000, 64: 4000, 256: 100},
        deviation={32: 20, 64: 20, 128: 20},
        variation={32: 100, 128: 100},
        bias={8: 4000, 16: 4000},
        lines={32: 5, 128: 5},
        movement={32: 12, 64: 12, 128: 12},
        smooth_movement={32: 12, 64: 12, 128: 12},
        gaussian_inputs={64: 6},
        movement_rows=16,
        movement_steps=50,
        trained={50: 30, 100: 20},
        trained_steps=300,
        pictured=10,
        shown=(32, 64),
        spectrum_rows=128,
        spectrum_batches=4,
        scale_batches=3,
        spectrum_networks={128: 2},
        trace={32: 4, 64: 4, 128: 4},
        trace_batches=2,
        trace_rows=64,
        trace_rate=5.0,
        trace_steps=160,
        trace_every=10,
        stopping_rows=128,
        stopping_repeats=3,
        stopping_tests=1000,
        features=(100, 400, 1600),
        features_draws=10,
        coupling={64: 20, 256: 20},
        deep={20: 200, 40: 200},
    ),
    "cpu": Sizes(
        face={16: 20, 128: 20, 1024: 20},
        outputs={8: 40_000, 16: 40_000, 64: 40_000, 512: 1500},
        deviation={64: 200, 128: 200, 256: 100, 512: 60, 1024: 40},
        variation={64: 400, 512: 200},
        bias={8: 64_000, 16: 64_000, 32: 64_000},
        lines={64: 10, 500: 10},
        movement={64: 96, 128: 96, 256: 48, 512: 32},
        smooth_movement={64: 24, 128: 24, 256: 12, 512: 12},
        gaussian_inputs={125: 24, 500: 12},
        movement_rows=16,
        movement_steps=200,
        trained={50: 200, 200: 100},
        trained_steps=1000,
        pictured=10,
        shown=(32, 64, 128, 512),
        spectrum_rows=512,
        spectrum_batches=60,
        scale_batches=16,
        spectrum_networks={1000: 30},
        trace={64: 12, 128: 12, 256: 6, 512: 3},
        trace_batches=3,
        trace_rows=128,
        trace_rate=5.0,
        trace_steps=200,
        trace_every=10,
        stopping_rows=512,
        stopping_repeats=20,
        stopping_tests=2000,
        features=(100, 400, 1600, 6400),
        features_draws=20,
        coupling={64: 200, 256: 200, 1024: 40},
        deep={20: 4000, 40: 2000, 80: 1000},
    ),
    "paper": Sizes(
        face={16: 20, 128: 20, 10_000: 10},
        outputs={8: 40_000, 16: 40_000, 64: 40_000, 10_000: 200},
        deviation={64: 200, 256: 200, 1024: 100, 4096: 40, 16_384: 20},
        variation={512: 200, 10_000: 40},
        bias={8: 400_000, 16: 400_000, 32: 400_000},
        lines={500: 10, 10_000: 10},
        movement={64: 96, 256: 96, 1024: 48, 4096: 12, 10_000: 10},
        smooth_movement={64: 96, 256: 96, 1024: 48, 4096: 12},
        gaussian_inputs={500: 10, 10_000: 10},
        movement_rows=32,
        movement_steps=200,
        trained={50: 500, 200: 500, 1000: 500},
        trained_steps=1000,
        pictured=10,
        shown=(32, 64, 256, 1024),
        spectrum_rows=512,
        spectrum_batches=100,
        scale_batches=30,
        spectrum_networks={1000: 30, 10_000: 10},
        trace={100: 2, 1000: 2, 10_000: 2},
        trace_batches=1,
        trace_rows=512,
        trace_rate=1.0,
        trace_steps=4000,
        trace_every=50,
        stopping_rows=2000,
        stopping_repeats=12,
        stopping_tests=10_000,
        features=(100, 400, 1600, 6400),
        features_draws=20,
        coupling={64: 200, 256: 200, 1024: 200, 10_000: 20},
        deep={20: 20_000, 40: 10_000, 80: 5000, 160: 2000},
    ),
}
