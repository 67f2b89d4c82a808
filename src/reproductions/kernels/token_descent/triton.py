"""Normalized exact descent on W, one persistent Triton program a problem.

The formulas are those of ``batched.py`` and ``gradient.py``, in float64 throughout. A program holds
the Gram matrix of its problem in registers and takes all steps between two records in one launch:
per step nothing is read from memory but the learning rate. With ``TRITON_INTERPRET=1`` in the
environment before the first import the kernel runs on the CPU, slowly, for tests.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .batched import KernelForm
from .gradient import linear_scores
from .products import padded

__all__ = ["TritonForm"]


@triton.jit
def _kernel(
    a_ptr,
    coefficient_ptr,
    gram_ptr,
    gamma_ptr,
    rate_ptr,
    steps,
    n,
    T,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    SIZE: tl.constexpr = ROWS * TOKENS
    problem = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, ROWS)[:, None]
    t = tl.arange(0, TOKENS)[None, :]
    inside = (i < n) & (t < T)
    at = problem * n * T + i * T + t
    # Padding: tokens are masked, and rows have equal scores, so that no gradient comes from them.
    a = tl.load(a_ptr + at, mask=inside, other=0.0)
    a = tl.where((i < n) & (t >= T), -float("inf"), a)
    gamma = tl.load(gamma_ptr + at, mask=inside, other=0.0)
    coefficients = tl.load(coefficient_ptr + at, mask=inside, other=0.0)
    flat = tl.arange(0, SIZE)
    real = (flat // TOKENS) * T + flat % TOKENS
    valid = ((flat // TOKENS) < n) & ((flat % TOKENS) < T)
    gram = tl.load(
        gram_ptr + problem * n * T * n * T + real[:, None] * (n * T) + real[None, :],
        mask=valid[:, None] & valid[None, :],
        other=0.0,
    )
    for step in range(steps):
        rate = tl.load(rate_ptr + step)
        top, index = tl.max(a, 1, return_indices=True)
        below = a - top[:, None]
        s = tl.exp(below)
        total = tl.sum(s, 1)
        s = s / total[:, None]
        f = tl.sum(s * gamma, 1)
        g = gamma - tl.sum(tl.where(t == index[:, None], gamma, 0.0), 1)[:, None]
        # log sigmoid(-f) - log sum exp
        level = -tl.maximum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f))) - tl.log(total)
        weight = tl.where(g == 0.0, -float("inf"), below + level[:, None])
        shift = tl.maximum(tl.max(tl.max(weight, 1), 0), -1.0e300)
        q = tl.exp(weight - shift) * g
        r = s * tl.sum(q, 1)[:, None] - q
        # over axis 0: axis 1, which stays, is the one spread over the lanes
        change = tl.sum(gram * tl.reshape(r, [SIZE, 1]), 0)
        change = tl.reshape(change, [ROWS, TOKENS])
        square = tl.sum(tl.sum(r * change, 1), 0)
        # no direction without a gradient
        scale = tl.where(square > 0.0, rate / tl.sqrt(tl.where(square > 0.0, square, 1.0)), 0.0)
        a -= scale * change
        coefficients -= scale * r
    tl.store(a_ptr + at, a, mask=inside)
    tl.store(coefficient_ptr + at, coefficients, mask=inside)


class TritonForm(KernelForm):
    """Exact normalized descent on W, all steps between two records in one launch."""

    def advance(self, rates: list[float]) -> None:
        """One step for each learning rate."""
        batch, n, T = self.a.shape
        if not rates or not batch:
            return
        rows, tokens = padded(n, T)
        _kernel[(batch,)](
            self.a,
            self.coefficients,
            self.gram,
            linear_scores(self.problems),
            # numbers would arrive in single precision
            self.a.new_tensor(rates),
            len(rates),
            n,
            T,
            ROWS=rows,
            TOKENS=tokens,
            num_warps=8 if rows * tokens > 64 else 4,
        )
