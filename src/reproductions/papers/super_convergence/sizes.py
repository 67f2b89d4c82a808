"""How large the experiments of the chapter run: seconds, minutes, or hours on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SIZES", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of every experiment with the reduced network.

    Attributes:
        n_train: training images.
        n_test: test images.
        n_few: training images where they are to be few.
        batch: images of a step.
        n_steps: length of the cycle, N.
        longer: the long baseline takes so many times N.
        longer_few: the same with few images.
        lengths: shorter cycles, as divisors of N.
        n_seeds: seeds of every recipe.
        looks: looks at the test set on the way.
        n_looked: test images of such a look.
        estimate_steps: steps of the learning-rate estimates.
        pool: pixels are averaged over squares of this side.
        stacked: networks in one batched program.
    """

    n_train: int
    n_test: int
    n_few: int
    batch: int
    n_steps: int
    longer: int
    longer_few: int
    lengths: tuple[int, ...]
    n_seeds: int
    looks: int
    n_looked: int
    estimate_steps: int
    pool: int
    stacked: int


SIZES = {
    "smoke": Sizes(
        n_train=500,
        n_test=500,
        n_few=200,
        batch=50,
        n_steps=40,
        longer=2,
        longer_few=2,
        lengths=(4, 2),
        n_seeds=2,
        looks=4,
        n_looked=200,
        estimate_steps=60,
        pool=2,
        stacked=3,
    ),
    "cpu": Sizes(
        n_train=4000,
        n_test=3000,
        n_few=1000,
        batch=100,
        n_steps=300,
        longer=8,
        longer_few=2,
        lengths=(4, 2),
        n_seeds=3,
        looks=8,
        n_looked=500,
        estimate_steps=150,
        pool=2,
        stacked=3,
    ),
    "paper": Sizes(
        n_train=50_000,
        n_test=10_000,
        n_few=4000,
        batch=100,
        n_steps=5000,
        longer=8,
        longer_few=8,
        lengths=(25, 10, 4, 2),
        n_seeds=10,
        looks=40,
        n_looked=10_000,
        estimate_steps=1000,
        pool=2,
        stacked=60,
    ),
}
