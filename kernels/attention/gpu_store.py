"""The kernel of `store`: a program for a token and some heads writes keys and values, or their codes and scales."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import bits_from_float32, float32_from_bits, on_device_of
from .gpu_core import Rows, rows_of
from .gpu_tile import rows_at
from .problem import Pages

MAGNITUDE, INFINITY = tl.constexpr(0x7FFFFFFF), tl.constexpr(0x7F800000)
SMALLEST_SCALE = tl.constexpr(2.0**-126)
INTEGERS, SUBNORMALS = tl.constexpr(float(3 << 22)), tl.constexpr(float(1 << 14))
"""Added to a float32, they leave it rounded to an integer, or to the unit of subnormal e4m3fn, 2^-9."""
SUBNORMALS_BITS = tl.constexpr(0x46800000)
FIRST_NORMAL, REBIAS = tl.constexpr((127 - 6) << 23), tl.constexpr((127 - 7) << 3)


@triton.jit
def e4m3fn_of(x):
    """Codes of numbers that are at most 448 when rounded, to nearest, ties to even."""
    bits = bits_from_float32(x)
    size = bits & MAGNITUDE
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - REBIAS
    subnormal = bits_from_float32(float32_from_bits(size) + SUBNORMALS) - SUBNORMALS_BITS
    return (((bits >> 24) & 0x80) | tl.where(size < FIRST_NORMAL, subnormal, normal)).to(tl.uint8)


@triton.jit
def _write(
    x, pages, scale, n, t, h, heads, page, row, D: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Numbers of a token, or codes and scales."""
    d = tl.arange(0, BLOCK_D)[None, :]
    inside = (h < heads)[:, None] & (d < D)
    numbers = tl.load(rows_at(x, n, h, t)[:, None] + d, mask=inside, other=0)
    if scale is not None:
        numbers = numbers.to(tl.float32)
        sizes = (bits_from_float32(numbers) & MAGNITUDE).to(tl.int32)
        largest = tl.max(sizes, axis=1)
        finite = largest < INFINITY
        most: tl.constexpr = 127.0 if pages.ptr.dtype.element_ty == tl.int8 else 448.0
        peak = float32_from_bits(tl.where(finite, largest, 0).to(tl.uint32))
        factor = tl.maximum(tl.div_rn(peak, tl.full(peak.shape, most, tl.float32)), SMALLEST_SCALE)
        divisor = tl.broadcast_to(factor[:, None], numbers.shape)
        ratio = tl.where(finite[:, None], tl.div_rn(numbers, divisor), 0.0)
        numbers = (ratio + INTEGERS) - INTEGERS if most == 127.0 else e4m3fn_of(ratio)
        tl.store(rows_at(scale, page, h, row), tl.where(finite, factor, float("nan")), mask=h < heads)
    tl.store(rows_at(pages, page, h, row)[:, None] + d, numbers.to(pages.ptr.dtype.element_ty), mask=inside)


@triton.jit
def _store_kernel(
    k, v, k_pages, v_pages, k_scale, v_scale, where_ptr, tokens, T, heads, groups, D: tl.constexpr, Dv: tl.constexpr,
    HEADS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    token = (program // groups).to(tl.int64)
    h = (program % groups * HEADS + tl.arange(0, HEADS)).to(tl.int64)
    n, t = token // T, token % T
    page, row = tl.load(where_ptr + token), tl.load(where_ptr + tokens + token)
    _write(k, k_pages, k_scale, n, t, h, heads, page, row, D, BLOCK_D)
    _write(v, v_pages, v_scale, n, t, h, heads, page, row, Dv, BLOCK_V)


def store(k: torch.Tensor, v: torch.Tensor, pages: Pages, where: torch.Tensor) -> None:
    """See `Pages`."""
    n, heads, T, D = k.shape
    Dv = v.shape[3]
    if n * T * heads * (D + Dv) == 0:
        return
    blocks = tuple(triton.next_power_of_2(max(1, size)) for size in (D, Dv))
    HEADS = max(1, min(triton.next_power_of_2(heads), 2048 // max(blocks)))
    groups = triton.cdiv(heads, HEADS)
    arrays: list[Rows | None] = [rows_of(x) for x in (k, v, *pages)]
    with on_device_of(k):
        _store_kernel[(n * T * groups,)](
            *arrays, where, n * T, T, heads, groups, D=D, Dv=Dv, HEADS=HEADS, BLOCK_D=blocks[0], BLOCK_V=blocks[1],
            num_warps=max(1, min(8, HEADS * max(blocks) // 256)),
        )  # fmt: skip
