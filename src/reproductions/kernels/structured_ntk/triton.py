"""The kernel from finished sweeps in one Triton launch: two products and their Hadamard sum.

Each program owns one tile of Theta. Layer by layer it forms the tiles of A^T A / n + beta^2 and of
G^T G in registers and adds their entrywise product: the layers' kernels never reach memory. Of a
symmetric kernel only tiles on and above the diagonal are formed. float32 products are exact to
float32 (no TF32), float64 ones to float64. With ``TRITON_INTERPRET=1`` in the environment before
the first import the kernel runs on the CPU, slowly, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import batched
from .batched import Sweep

__all__ = ["gram", "kernel"]

# Units per step of a product, and rows of the largest tile: chosen so that a program's three tiles
# stay in registers (ptxas for sm_90 reports no spills to speak of).
_DEPTH = 16
_TILE = 64
_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _inner(
    first_ptr,
    second_ptr,
    units,
    rows,
    columns,
    n_rows,
    n_columns,
    DTYPE: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A tile of F^T S for F (units, n_rows) and S (units, n_columns), both row-major."""
    total = tl.zeros([TILE, TILE], DTYPE)
    for start in range(0, units, DEPTH):
        k = (start + tl.arange(0, DEPTH)).to(tl.int64)
        first = tl.load(
            first_ptr + k[None, :] * n_rows + rows[:, None],
            mask=(k[None, :] < units) & (rows[:, None] < n_rows),
            other=0.0,
        )
        second = tl.load(
            second_ptr + k[:, None] * n_columns + columns[None, :],
            mask=(k[:, None] < units) & (columns[None, :] < n_columns),
            other=0.0,
        )
        total = tl.dot(first, second, total, input_precision="ieee", out_dtype=DTYPE)
    return total


@triton.jit
def _gram_kernel(
    theta_ptr,
    inputs,
    signals,
    other_inputs,
    other_signals,
    units,
    square_ptr,
    n,
    m,
    SYMMETRIC: tl.constexpr,
    SINGLE: tl.constexpr,
    DTYPE: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Programs (replica, row tile, column tile); ``units`` are n_0 to n_L, the tuples of length L.

    A_0 and the last signals are one for all replicas; SINGLE: the latter are 1.
    """
    replica = tl.program_id(0).to(tl.int64)
    row_tile = tl.program_id(1)
    column_tile = tl.program_id(2)
    if SYMMETRIC and row_tile > column_tile:
        return
    rows = row_tile * TILE + tl.arange(0, TILE)
    columns = column_tile * TILE + tl.arange(0, TILE)
    theta = tl.zeros([TILE, TILE], DTYPE)
    square = tl.load(square_ptr)
    layers: tl.constexpr = len(inputs)
    for layer in tl.static_range(layers):
        first = inputs[layer]
        second = other_inputs[layer]
        if layer > 0:
            first += replica * units[layer] * n
            second += replica * units[layer] * m
        term = _inner(first, second, units[layer], rows, columns, n, m, DTYPE, TILE, DEPTH)
        term = term / units[layer] + square
        if not (SINGLE and layer == layers - 1):
            first = signals[layer]
            second = other_signals[layer]
            if layer < layers - 1:
                first += replica * units[layer + 1] * n
                second += replica * units[layer + 1] * m
            width = units[layer + 1]
            term *= _inner(first, second, width, rows, columns, n, m, DTYPE, TILE, DEPTH)
        theta += term
    here = theta_ptr + replica * n * m
    inside = (rows[:, None] < n) & (columns[None, :] < m)
    tl.store(here + rows.to(tl.int64)[:, None] * m + columns[None, :], theta, mask=inside)
    if SYMMETRIC:
        mirrored = columns.to(tl.int64)[None, :] * m + rows[:, None]
        tl.store(here + mirrored, theta, mask=inside)


def gram(sweep: Sweep, other: Sweep | None = None, *, bias_scale: float) -> torch.Tensor:
    """Return Theta (..., N, M) from finished sweeps; see ``batched.gram``."""
    symmetric = other is None
    other = sweep if symmetric else other
    f = sweep.outputs
    stacked = f.dim() == 2
    n, m = f.shape[-1], other.outputs.shape[-1]
    replicas = len(f) if stacked else 1
    theta = f.new_empty(replicas, n, m)
    units = tuple(a.shape[-2] for a in (sweep.inputs[0], *sweep.signals))
    if theta.numel():
        tile = min(_TILE, max(16, triton.next_power_of_2(max(n, m))))
        _gram_kernel[(replicas, triton.cdiv(n, tile), triton.cdiv(m, tile))](
            theta,
            *(_rows(stacked, part) for part in (*sweep[1:], *other[1:])),
            units,
            f.new_full((1,), bias_scale**2),
            n,
            m,
            SYMMETRIC=symmetric,
            SINGLE=units[-1] == 1,
            DTYPE=_TYPES[f.dtype],
            TILE=tile,
            DEPTH=_DEPTH,
            num_warps=8 if tile == _TILE else 4,
        )
    return theta if stacked else theta[0]


def _rows(stacked, tensors):
    """The tensors with a row of inputs after the other; what all replicas share stays one."""
    shared = [t[0] if stacked and not t.stride(0) else t for t in tensors]
    return tuple(t.contiguous() for t in shared)


def kernel(weights, biases, x, z, bias_scale, activation, outputs) -> torch.Tensor:
    """Return Theta (..., N, M) for checked arguments; see ``batched.kernel``."""
    return batched.kernel(weights, biases, x, z, bias_scale, activation, outputs, contract=gram)
