"""How large the experiments of the chapter run: seconds, minutes, or the paper's own scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SIZES", "Sizes"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of every experiment; "problems" are seeds of ``draw``.

    Attributes:
        plane_steps: steps of the long runs in the plane.
        plane_starts: random starts of (K, Q) there.
        feasibility: problems for each shape and d.
        risk: problems whose loss is followed along the SVM solution.
        runs: problems of the runs on W and (K, Q) with n = 6, T = 8, d = 10.
        runs_steps: steps of all of them.
        long_steps: steps of the runs on W in exact arithmetic.
        path: problems whose regularization path is followed.
        radii: norms at which it is looked at.
        factor_path: problems for the path of (K, Q).
        bars: problems for each shape and d of the bar chart.
        dimensions: values of d there.
        bars_steps: steps there.
        first_step: problems for the theorem on the first step, for each d.
        cones: problems started near a selection of our choice.
        cone_radii: norms at which they start.
        cone_steps: steps.
        ranks: problems for each n and d.
        rank_shapes: pairs (n, d), with T = 5.
        relu: d -> seeds of the experiment with a ReLU head.
        kept: problems for each d and penalty of the lambda-heads.
        kept_dimensions: values of d there.
        kept_steps: steps there.
        positions: problems with one loss for every position.
        positions_shape: n, T and d of them.
        trained: problems whose head is trained too.
    """

    plane_steps: int
    plane_starts: int
    feasibility: int
    risk: int
    runs: int
    runs_steps: int
    long_steps: int
    path: int
    radii: tuple[float, ...]
    factor_path: int
    bars: int
    dimensions: tuple[int, ...]
    bars_steps: int
    first_step: int
    cones: int
    cone_radii: tuple[float, ...]
    cone_steps: int
    ranks: int
    rank_shapes: tuple[tuple[int, int], ...]
    relu: Mapping[int, int]
    kept: int
    kept_dimensions: tuple[int, ...]
    kept_steps: int
    positions: int
    positions_shape: tuple[int, int, int]
    trained: int


SIZES = {
    "smoke": Sizes(
        plane_steps=2000,
        plane_starts=3,
        feasibility=20,
        risk=20,
        runs=12,
        runs_steps=500,
        long_steps=1000,
        path=6,
        radii=(5, 30, 100),
        factor_path=6,
        bars=12,
        dimensions=(4, 20, 50, 100),
        bars_steps=500,
        first_step=12,
        cones=30,
        cone_radii=(30, 300),
        cone_steps=300,
        ranks=3,
        rank_shapes=((5, 5), (5, 10)),
        relu={4: 150, 6: 300},
        kept=6,
        kept_dimensions=(4,),
        kept_steps=1000,
        positions=4,
        positions_shape=(2, 4, 16),
        trained=6,
    ),
    "cpu": Sizes(
        plane_steps=20_000,
        plane_starts=10,
        feasibility=200,
        risk=400,
        runs=100,
        runs_steps=2000,
        long_steps=10_000,
        path=60,
        radii=(5, 10, 30, 100, 300),
        factor_path=50,
        bars=200,
        dimensions=(4, 8, 10, 20, 50, 100, 200),
        bars_steps=4000,
        first_step=200,
        cones=400,
        cone_radii=(30, 300, 3000),
        cone_steps=3000,
        ranks=20,
        rank_shapes=((5, 5), (5, 10), (5, 20), (10, 5), (10, 10), (10, 20)),
        relu={4: 600, 6: 600, 8: 1200, 10: 2400},
        kept=50,
        kept_dimensions=(4, 8),
        kept_steps=6000,
        positions=50,
        positions_shape=(2, 4, 16),
        trained=50,
    ),
    "paper": Sizes(
        plane_steps=200_000,
        plane_starts=10,
        feasibility=2000,
        risk=4000,
        runs=1000,
        runs_steps=2000,
        long_steps=10_000,
        path=1000,
        radii=(5, 10, 30, 100, 300, 1000, 10_000),
        factor_path=500,
        bars=1000,
        dimensions=(2, 4, 6, 8, 10, 20, 50, 100, 200, 400),
        bars_steps=4000,
        first_step=5000,
        cones=4000,
        cone_radii=(30, 100, 300, 1000, 3000),
        cone_steps=3000,
        ranks=100,
        rank_shapes=tuple((n, d) for n in (5, 10, 15) for d in (5, 10, 15, 20)),
        relu={4: 3000, 6: 4000, 8: 14_000, 10: 30_000},
        kept=1000,
        kept_dimensions=(4, 8),
        kept_steps=6000,
        positions=200,
        positions_shape=(8, 8, 64),
        trained=500,
    ),
}
