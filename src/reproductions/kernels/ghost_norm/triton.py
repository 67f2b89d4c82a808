"""Ghost batch normalization on a GPU: two launches forward and two backward.

In ``channels_last`` x is a matrix of pixels by channels, and a group is a block of its rows. What
costs is memory traffic, so every pass does all it can. Forward: read x for the statistics; read x
(and the residual), write y. Backward: read dy and x (and y, if a residual stands between x and the
rectifier) for two sums per channel, and write dy behind the rectifier if the residual needs it;
read that and x, write dx. Without a residual the rectifier's mask is computed again from x.

Programs of the first pass leave partial results, and each program of the second combines those of
its group itself, in a fixed order: no atomics, no third launch, the same bits every time.

With ``TRITON_INTERPRET=1`` in the environment before the first import the kernels run on the CPU,
slowly, for tests.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

__all__ = ["normalize"]

# Elements of a block and warps that share it: 16 a thread, so that two or three programs fit in a
# processor's registers (ptxas for sm_90: 66 to 110 a thread).
_BLOCK = 4096
_WARPS = 8
# Programs of the passes that sum and of those that write, two and four for each of 132 processors:
# the former's partial results are read by each of the latter.
_SUMMING = 264
_WRITING = 528
# Partial results that a program combines at a time, times channels.
_COMBINED = 4096


@triton.jit
def _line(x, mean, slope, shift):
    """Slope (x - mean) + shift: one formula for both directions, so that their masks agree."""
    return tl.fma(x - mean[None, :], slope[None, :], shift[None, :] + tl.zeros_like(x))


@triton.jit
def _inside(rows, count, columns, C: tl.constexpr):
    return (rows < count)[:, None] & (columns < C)[None, :]


@triton.jit
def _statistics_kernel(
    x_ptr,
    partial_ptr,
    group_rows,
    span,
    parts,
    C: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Mean and centered sum of squares of ``span`` rows of a group: partial (groups, parts, 2, C).

    Squares are taken around the mean of the first block, so that a mean far from 0 costs no digits.
    """
    program = tl.program_id(0)
    group = program // parts
    part = program % parts
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    rows = tl.arange(0, ROWS)
    count = tl.minimum(group_rows - part * span, span)
    first = group.to(tl.int64) * group_rows + part * span
    here = x_ptr + first * C + (rows[:, None] * C + columns[None, :])
    inside = _inside(rows, count, columns, C)
    x = tl.load(here, mask=inside, other=0.0)
    center = tl.sum(x.to(tl.float32), 0) / tl.minimum(count, ROWS)
    total = tl.zeros([ROWS, TILE], tl.float32)
    square = tl.zeros([ROWS, TILE], tl.float32)
    for done in range(0, count, ROWS):
        # the next block is on its way while this one is summed
        here += ROWS * C
        next_inside = _inside(rows, count - done - ROWS, columns, C)
        following = tl.load(here, mask=next_inside, other=0.0)
        difference = tl.where(inside, x.to(tl.float32) - center[None, :], 0.0)
        total += difference
        square += difference * difference
        x = following
        inside = next_inside
    offset = tl.sum(total, 0) / count
    spread = tl.sum(square, 0) - count * offset * offset
    at = partial_ptr + program.to(tl.int64) * 2 * C + columns
    tl.store(at, center + offset, mask=columns < C)
    tl.store(at + C, spread, mask=columns < C)


@triton.jit
def _moments(
    partial_ptr,
    group,
    group_rows,
    span,
    parts,
    columns,
    C: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Mean and variance of a group from its parts', (Chan, Golub and LeVeque 1983)."""
    at = partial_ptr + group.to(tl.int64) * parts * 2 * C + columns
    reference = tl.load(at, mask=columns < C, other=0.0)
    total = tl.zeros([TILE], tl.float32)
    square = tl.zeros([TILE], tl.float32)
    for done in range(0, parts, CHUNK):
        part = done + tl.arange(0, CHUNK)
        inside = _inside(part, parts, columns, C)
        entry = at[None, :] + part[:, None] * (2 * C)
        mean = tl.load(entry, mask=inside, other=0.0)
        spread = tl.load(entry + C, mask=inside, other=0.0)
        count = tl.minimum(group_rows - part * span, span).to(tl.float32)[:, None]
        difference = tl.where(inside, mean - reference[None, :], 0.0)
        total += tl.sum(count * difference, 0)
        square += tl.sum(spread + count * difference * difference, 0)
    offset = total / group_rows
    variance = tl.maximum(square / group_rows - offset * offset, 0.0, tl.PropagateNan.ALL)
    return reference + offset, variance


@triton.jit
def _apply_kernel(
    x_ptr,
    residual_ptr,
    scale_ptr,
    shift_ptr,
    partial_ptr,
    y_ptr,
    mean_ptr,
    variance_ptr,
    epsilon,
    group_rows,
    partial_span,
    partials,
    span,
    parts,
    C: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
):
    """Y for ``span`` rows of a group; its first program keeps the statistics."""
    program = tl.program_id(0)
    group = program // parts
    part = program % parts
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    rows = tl.arange(0, ROWS)
    count = tl.minimum(group_rows - part * span, span)
    first = group.to(tl.int64) * group_rows + part * span
    at = first * C + (rows[:, None] * C + columns[None, :])
    inside = _inside(rows, count, columns, C)
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    visible = columns < C
    scale = tl.load(scale_ptr + columns, mask=visible, other=0.0)
    shift = tl.load(shift_ptr + columns, mask=visible, other=0.0)
    mean, variance = _moments(
        partial_ptr, group, group_rows, partial_span, partials, columns, C, TILE, CHUNK
    )
    if part == 0:
        tl.store(mean_ptr + group * C + columns, mean, mask=visible)
        tl.store(variance_ptr + group * C + columns, variance, mask=visible)
    slope = scale / tl.sqrt_rn(variance + epsilon)
    for done in range(0, count, ROWS):
        if RESIDUAL:
            residual = tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
        next_inside = _inside(rows, count - done - ROWS, columns, C)
        following = tl.load(x_ptr + at + ROWS * C, mask=next_inside, other=0.0)
        y = _line(x.to(tl.float32), mean, slope, shift)
        if RESIDUAL:
            y += residual
        if RELU:
            # not maximum, which would hide NaN
            y = tl.where(y < 0.0, 0.0, y)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)
        at += ROWS * C
        x = following
        inside = next_inside


@triton.jit
def _sums_kernel(
    dy_ptr,
    x_ptr,
    y_ptr,
    scale_ptr,
    shift_ptr,
    mean_ptr,
    variance_ptr,
    masked_ptr,
    partial_ptr,
    epsilon,
    group_rows,
    span,
    parts,
    C: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
):
    """Sums of g and g x^ over ``span`` rows: partial (groups, parts, 2, C).

    g is dy behind the rectifier, x^ the normalized x. With a residual g is stored: it is also the
    residual's gradient.
    """
    program = tl.program_id(0)
    group = program // parts
    part = program % parts
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    rows = tl.arange(0, ROWS)
    count = tl.minimum(group_rows - part * span, span)
    first = group.to(tl.int64) * group_rows + part * span
    at = first * C + (rows[:, None] * C + columns[None, :])
    visible = columns < C
    mean = tl.load(mean_ptr + group * C + columns, mask=visible, other=0.0)
    variance = tl.load(variance_ptr + group * C + columns, mask=visible, other=0.0)
    scale = tl.load(scale_ptr + columns, mask=visible, other=0.0)
    shift = tl.load(shift_ptr + columns, mask=visible, other=0.0)
    deviation = tl.sqrt_rn(variance + epsilon)
    slope = scale / deviation
    rate = 1.0 / deviation
    total = tl.zeros([ROWS, TILE], tl.float32)
    product = tl.zeros([ROWS, TILE], tl.float32)
    for done in range(0, count, ROWS):
        inside = _inside(rows, count - done, columns, C)
        g = tl.load(dy_ptr + at, mask=inside, other=0.0)
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if RELU:
            if RESIDUAL:
                y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
            else:
                y = _line(x, mean, slope, shift)
            g = tl.where(y <= 0.0, 0.0, g.to(tl.float32))
            if RESIDUAL:
                tl.store(masked_ptr + at, g.to(masked_ptr.dtype.element_ty), mask=inside)
        g = g.to(tl.float32)
        total += g
        product += g * ((x - mean[None, :]) * rate[None, :])
        at += ROWS * C
    entry = partial_ptr + program.to(tl.int64) * 2 * C + columns
    tl.store(entry, tl.sum(total, 0), mask=visible)
    tl.store(entry + C, tl.sum(product, 0), mask=visible)


@triton.jit
def _totals(
    partial_ptr,
    first,
    number,
    columns,
    C: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Both sums over ``number`` partial results from ``first`` on."""
    at = partial_ptr + first.to(tl.int64) * 2 * C + columns
    total = tl.zeros([TILE], tl.float32)
    product = tl.zeros([TILE], tl.float32)
    for done in range(0, number, CHUNK):
        part = done + tl.arange(0, CHUNK)
        inside = _inside(part, number, columns, C)
        entry = at[None, :] + part[:, None] * (2 * C)
        total += tl.sum(tl.load(entry, mask=inside, other=0.0), 0)
        product += tl.sum(tl.load(entry + C, mask=inside, other=0.0), 0)
    return total, product


@triton.jit
def _gradient_kernel(
    g_ptr,
    x_ptr,
    scale_ptr,
    shift_ptr,
    mean_ptr,
    variance_ptr,
    partial_ptr,
    dx_ptr,
    dscale_ptr,
    dshift_ptr,
    epsilon,
    group_rows,
    groups,
    partials,
    span,
    parts,
    C: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    RELU: tl.constexpr,
):
    """Dx for ``span`` rows of a group; program 0 sums the gradients of scale and shift instead.

    dx = scale/sd (g - mean(g) - x^ mean(g x^)), the means over the group.
    """
    program = tl.program_id(0)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    visible = columns < C
    if program == 0:
        total, product = _totals(partial_ptr, program, groups * partials, columns, C, TILE, WIDE)
        tl.store(dshift_ptr + columns, total, mask=visible)
        tl.store(dscale_ptr + columns, product, mask=visible)
    else:
        group = (program - 1) // parts
        part = (program - 1) % parts
        rows = tl.arange(0, ROWS)
        count = tl.minimum(group_rows - part * span, span)
        first = group.to(tl.int64) * group_rows + part * span
        at = first * C + (rows[:, None] * C + columns[None, :])
        inside = _inside(rows, count, columns, C)
        g = tl.load(g_ptr + at, mask=inside, other=0.0)
        x = tl.load(x_ptr + at, mask=inside, other=0.0)
        mean = tl.load(mean_ptr + group * C + columns, mask=visible, other=0.0)
        variance = tl.load(variance_ptr + group * C + columns, mask=visible, other=0.0)
        scale = tl.load(scale_ptr + columns, mask=visible, other=0.0)
        shift = tl.load(shift_ptr + columns, mask=visible, other=0.0)
        total, product = _totals(partial_ptr, group * partials, partials, columns, C, TILE, CHUNK)
        deviation = tl.sqrt_rn(variance + epsilon)
        slope = scale / deviation
        constant = slope * (total / group_rows)
        tilt = slope * (product / group_rows) / deviation
        for done in range(0, count, ROWS):
            next_inside = _inside(rows, count - done - ROWS, columns, C)
            following_g = tl.load(g_ptr + at + ROWS * C, mask=next_inside, other=0.0)
            following_x = tl.load(x_ptr + at + ROWS * C, mask=next_inside, other=0.0)
            x = x.to(tl.float32)
            g = g.to(tl.float32)
            if RELU:
                g = tl.where(_line(x, mean, slope, shift) <= 0.0, 0.0, g)
            dx = slope[None, :] * g - constant[None, :] - tilt[None, :] * (x - mean[None, :])
            tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
            at += ROWS * C
            g = following_g
            x = following_x
            inside = next_inside


class _Plan(NamedTuple):
    """How one pass is divided: programs (groups * parts, tiles), a part of ``span`` rows."""

    tile: int
    rows: int
    span: int
    parts: int
    tiles: int


def _plan(group_rows: int, channels: int, groups: int, programs: int) -> _Plan:
    """About ``programs`` programs, none of them without rows."""
    tile = next((t for t in (128, 64, 32) if channels % t == 0), None)
    tile = tile or min(128, triton.next_power_of_2(channels))
    tiles = triton.cdiv(channels, tile)
    rows = min(_BLOCK // tile, triton.next_power_of_2(group_rows))
    blocks = triton.cdiv(group_rows, rows)
    steps = triton.cdiv(blocks, max(1, programs // (groups * tiles)))
    return _Plan(tile, rows, steps * rows, triton.cdiv(blocks, steps), tiles)


def _chunk(number: int, tile: int) -> int:
    return min(triton.next_power_of_2(number), _COMBINED // tile)


class _GhostNorm(torch.autograd.Function):
    """``normalize`` for tensors in ``channels_last``."""

    @staticmethod
    def forward(ctx, x, scale, shift, residual, group_size, relu, epsilon):
        batch, channels, height, width = x.shape
        groups, group_rows = batch // group_size, group_size * height * width
        summing = _plan(group_rows, channels, groups, _SUMMING)
        writing = _plan(group_rows, channels, groups, _WRITING)
        partial = scale.new_empty(groups, summing.parts, 2, channels)
        mean, variance = scale.new_empty(2, groups, channels).unbind()
        y = torch.empty_like(x)
        _statistics_kernel[(groups * summing.parts, summing.tiles)](
            x,
            partial,
            group_rows,
            summing.span,
            summing.parts,
            C=channels,
            TILE=summing.tile,
            ROWS=summing.rows,
            num_warps=_WARPS,
        )
        _apply_kernel[(groups * writing.parts, writing.tiles)](
            x,
            x if residual is None else residual,
            scale,
            shift,
            partial,
            y,
            mean,
            variance,
            epsilon,
            group_rows,
            summing.span,
            summing.parts,
            writing.span,
            writing.parts,
            C=channels,
            TILE=writing.tile,
            ROWS=writing.rows,
            CHUNK=_chunk(summing.parts, summing.tile),
            RESIDUAL=residual is not None,
            RELU=relu,
            num_warps=_WARPS,
        )
        ctx.residual, ctx.relu, ctx.epsilon = residual is not None, relu, epsilon
        kept = y if residual is not None and relu else None
        ctx.save_for_backward(x, kept, scale, shift, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        # or every step would fill zeros for the gradients of the statistics
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, *_):
        if dy is None:
            return (None,) * 7
        x, y, scale, shift, mean, variance = ctx.saved_tensors
        groups, channels = mean.shape
        group_rows = x.numel() // (groups * channels)
        summing = _plan(group_rows, channels, groups, _SUMMING)
        writing = _plan(group_rows, channels, groups, _WRITING)
        dy = dy.contiguous(memory_format=torch.channels_last)
        partial = scale.new_empty(groups, summing.parts, 2, channels)
        masked = dy if y is None else torch.empty_like(dy)
        dx = torch.empty_like(x)
        dscale, dshift = scale.new_empty(2, channels).unbind()
        _sums_kernel[(groups * summing.parts, summing.tiles)](
            dy,
            x,
            x if y is None else y,
            scale,
            shift,
            mean,
            variance,
            masked,
            partial,
            ctx.epsilon,
            group_rows,
            summing.span,
            summing.parts,
            C=channels,
            TILE=summing.tile,
            ROWS=summing.rows,
            RESIDUAL=ctx.residual,
            RELU=ctx.relu,
            num_warps=_WARPS,
        )
        _gradient_kernel[(groups * writing.parts + 1, writing.tiles)](
            masked,
            x,
            scale,
            shift,
            mean,
            variance,
            partial,
            dx,
            dscale,
            dshift,
            ctx.epsilon,
            group_rows,
            groups,
            summing.parts,
            writing.span,
            writing.parts,
            C=channels,
            TILE=writing.tile,
            ROWS=writing.rows,
            CHUNK=_chunk(summing.parts, summing.tile),
            WIDE=_chunk(groups * summing.parts, summing.tile),
            RELU=ctx.relu and not ctx.residual,
            num_warps=_WARPS,
        )
        return dx, dscale, dshift, masked if ctx.residual else None, None, None, None


def normalize(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    group_size: int,
    residual: torch.Tensor | None,
    relu: bool,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return y (``channels_last``), mean and variance for checked arguments; see ``naive``.

    Nothing waits for the GPU, so that it can be captured in a CUDA graph.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    return _GhostNorm.apply(
        x, scale.contiguous(), shift.contiguous(), residual, group_size, relu, epsilon
    )
