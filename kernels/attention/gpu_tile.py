"""What a program of attention does with one tile of keys and values.

`sequence` is (number, batch, head of keys, first key, count of keys), `rows` are (query head, query, whether there is
one, its position) of each row, and `state` is (maximum, sum, sums of values, whether values were finite) so far.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gpu_core import LOG2E, is_allowed, load_rows, logits, operand, soften


@triton.jit
def rows_at(x, batch, h, row):
    return x.ptr + batch * x.batch + h * x.head + row.to(tl.int64) * x.row


@triton.jit
def tile_rows(pages, sequence, t, j, inside, BLOCK_N: tl.constexpr, GATHER: tl.constexpr):
    """Batch, or page, and row of the keys `j` of tile `t`."""
    n, batch, _, k_first, _ = sequence
    if pages is None:
        page, row = batch, k_first + j
    elif GATHER:
        page = tl.load(pages.table + n * pages.stride + j // pages.size, mask=inside, other=0)
        row = j % pages.size
    else:
        number = t * BLOCK_N // pages.size
        page = tl.load(pages.table + n * pages.stride + number)
        row = j - number * pages.size
    return page, row


@triton.jit
def scales_of(x, page, h, row, inside):
    """Scales of rows of the pools `x`, or None."""
    scale = None
    if x is not None:
        scale = tl.load(rows_at(x, page, h, row), mask=inside, other=0)
    return scale


@triton.jit
def is_finite(values, scale):
    finite = values - values == 0
    if scale is not None:
        finite &= (scale - scale == 0)[:, None]
    return finite


@triton.jit
def add_values(
    acc, finite, p, places, scale, inside, dtype: tl.constexpr, Dv: tl.constexpr, BLOCK_V: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """``acc + p @ values``, values times their scales, which the product takes as shares of the largest.

    Where `MASKED`, values that are not finite count as 0, and make `finite` 0.
    """
    values = operand(load_rows(places, inside, 0, BLOCK_V, Dv, MASKED), dtype)
    if MASKED:
        good = is_finite(values, scale)
        finite = tl.minimum(finite, tl.min(good.to(tl.int32)))
        values = tl.where(good, values, 0.0).to(values.dtype)
    if scale is None:
        acc = tl.dot(operand(p.to(dtype), dtype), values, acc, input_precision="ieee")
    else:
        usable = tl.abs(scale) < float("inf")
        largest = tl.max(tl.where(usable, scale, 0.0))
        largest = tl.where(largest > 0, largest, 1.0)
        if MASKED:
            scale = tl.where(usable, scale, 0.0)
        p *= (scale / largest)[None, :]
        acc += largest * tl.dot(operand(p.to(dtype), dtype), values, input_precision="ieee")
    return acc, finite


@triton.jit
def visit(
    t, state, q, q_tail, sequence, rows, k, v, rules, pages,
    dtype: tl.constexpr, D: tl.constexpr, Dv: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    TAIL_D: tl.constexpr, BLOCK_V: tl.constexpr, PLAIN: tl.constexpr, GATHER: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The state after tile `t`."""
    n, _, h, _, Sk = sequence
    head, i, present, position = rows
    m, total, acc, finite = state
    j = t * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = j < Sk
    page, row = tile_rows(pages, sequence, t, j, inside, BLOCK_N, GATHER)
    places = rows_at(k, page, h, row)
    s = tl.dot(q, tl.trans(operand(load_rows(places, inside, 0, BLOCK_D, D, MASKED), dtype)), input_precision="ieee")
    if TAIL_D:
        keys = operand(load_rows(places, inside, BLOCK_D, TAIL_D, D, MASKED), dtype)
        s = tl.dot(q_tail, tl.trans(keys), s, input_precision="ieee")
    scale = scales_of(pages.k_scale, page, h, row, inside) if pages is not None else None
    if scale is not None:
        s *= scale[None, :]
    ahead = j[None, :] - position[:, None]
    factor = LOG2E
    if PLAIN:
        factor = rules.scale * LOG2E
    else:
        s = logits(s, rules, n, head, i, present, j, ahead, inside)
    if MASKED:
        s = tl.where(is_allowed(rules, n, head, i, present, j, ahead, inside), s, float("-inf"))
    p, decay, m, total = soften(s, factor, m, total)
    scale = scales_of(pages.v_scale, page, h, row, inside) if pages is not None else None
    places = rows_at(v, page, h, row)
    acc, finite = add_values(acc * decay[:, None], finite, p, places, scale, inside, dtype, Dv, BLOCK_V, MASKED)
    return m, total, acc, finite


@triton.jit
def not_finite(
    t, column, sequence, rows, v, rules, pages, dtype: tl.constexpr, Dv: tl.constexpr, BLOCK_N: tl.constexpr,
    GATHER: tl.constexpr,
):  # fmt: skip
    """Bits of whether a row may see a value in tile `t` that is Inf (1), -Inf (2) or NaN (4), for each of `column`.

    The three are the digits of one product, which count to at most 64 keys.
    """
    n, _, h, _, Sk = sequence
    head, i, present, position = rows
    j = t * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = j < Sk
    page, row = tile_rows(pages, sequence, t, j, inside, BLOCK_N, GATHER)
    allowed = is_allowed(rules, n, head, i, present, j, j[None, :] - position[:, None], inside)
    places = rows_at(v, page, h, row)[:, None] + column[None, :]
    values = operand(tl.load(places, mask=inside[:, None] & (column < Dv)[None, :], other=0), dtype).to(tl.float32)
    scale = scales_of(pages.v_scale, page, h, row, inside) if pages is not None else None
    if scale is not None:
        values *= scale[:, None]
    digits = tl.where(values == float("inf"), 1.0, tl.where(values == float("-inf"), 128.0, 0.0))
    digits = tl.where(values != values, 16384.0, digits)
    counted = tl.dot(operand(allowed.to(dtype), dtype), operand(digits.to(dtype), dtype), input_precision="ieee")
    counted = counted.to(tl.int32)
    bits = (counted % 128 > 0).to(tl.int32) + 2 * (counted // 128 % 128 > 0).to(tl.int32)
    return bits + 4 * (counted // 16384 > 0).to(tl.int32)
