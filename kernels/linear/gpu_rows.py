"""The kernel of few rows of x in float32 multiply-adds, with scales of blocks of any shape.

A program reads rows of w in order, 16 bytes a thread, several tiles ahead. As many neighbours as have one scale, up to
16, which are those of a thread, are summed before they are multiplied with it, and columns of sums in the end.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of, rounded
from .gpu_core import factors_of, finish, float32_values, is_whole, multiplies_fp8
from .gpu_tile import FEW_PROGRAMS, MOST_SPLITS, merge
from .problem import Problem

BLOCK_N, TILE_BYTES, STAGES = 16, 8192, 4


@triton.jit
def row_of(x_ptr, m, start, K, stride, FORMAT: tl.constexpr, HARDWARE: tl.constexpr, BLOCK_K: tl.constexpr):
    k = start + tl.arange(0, BLOCK_K)
    return float32_values(tl.load(x_ptr + m * stride + k, mask=k < K, other=0), FORMAT, HARDWARE)


@triton.jit
def sums_of(w, x, s, RUN: tl.constexpr):
    """``s * (w * x)`` of each RUN columns."""
    product = w * x[None, :]
    if RUN > 1:
        product = tl.sum(tl.reshape(product, (w.shape[0], w.shape[1] // RUN, RUN)), axis=2)
    return product if s is None else product * s


@triton.jit
def _rows_kernel(
    x_ptr, codes_ptr, out_ptr, factors, M, N, K, C, stride_x, stride_codes, stride_out, stride_split, blocks_m,
    blocks_n, each, FORMAT: tl.constexpr, X_FORMAT: tl.constexpr, HARDWARE: tl.constexpr, ACTIVATION: tl.constexpr,
    WHOLE: tl.constexpr, EXACT: tl.constexpr, PARTIAL: tl.constexpr, TWO: tl.constexpr, RUN: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Outputs of one row of x, or `TWO`, and a block of w; or sums over the `each` tiles of a split if `PARTIAL`."""
    program = tl.program_id(0)
    m0 = (program % blocks_m * (2 if TWO else 1)).to(tl.int64)
    m1 = tl.minimum(m0 + 1, M - 1)
    program //= blocks_m
    n = program % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    split = program // blocks_n
    row = tl.minimum(n, N - 1)
    places = codes_ptr + row.to(tl.int64)[:, None] * stride_codes
    acc = tl.zeros((BLOCK_N, BLOCK_K // RUN), tl.float32)
    other = tl.zeros((BLOCK_N, BLOCK_K // RUN), tl.float32)
    for t in tl.range(split * each, tl.minimum(split * each + each, tl.cdiv(K, BLOCK_K)), num_stages=STAGES):
        start = t * BLOCK_K
        k = start + tl.arange(0, BLOCK_K)
        if EXACT:
            w = tl.load(places + k[None, :])
        else:
            w = tl.load(places + k[None, :], mask=k[None, :] < K, other=0)
        w = float32_values(w, FORMAT, HARDWARE)
        s = None
        if not WHOLE:
            group = tl.minimum(start + tl.arange(0, BLOCK_K // RUN) * RUN, K - 1) // C
            s = tl.load(factors.scale + (row // factors.R * factors.row)[:, None] + group[None, :])
        acc += sums_of(w, row_of(x_ptr, m0, start, K, stride_x, X_FORMAT, HARDWARE, BLOCK_K), s, RUN)
        if TWO:
            other += sums_of(w, row_of(x_ptr, m1, start, K, stride_x, X_FORMAT, HARDWARE, BLOCK_K), s, RUN)
    into = out_ptr + split.to(tl.int64) * stride_split + n
    for second in tl.static_range(2 if TWO else 1):
        m = m1 if second else m0
        y = tl.sum(other if second else acc, axis=1)
        if not PARTIAL:
            y = rounded(finish(y, m, row, factors, WHOLE, ACTIVATION), out_ptr.dtype.element_ty)
        tl.store(into + m * stride_out, y, mask=n < N)


def rows(
    x: torch.Tensor, x_scale: torch.Tensor | None, codes: torch.Tensor, scale: torch.Tensor | None,
    bias: torch.Tensor | None, out: torch.Tensor, problem: Problem,
) -> None:  # fmt: skip
    """The product, as often as there are two rows of x."""
    (M, K), N, C = x.shape, len(codes), problem.block[1]
    whole, two = is_whole(x, scale, problem), M > 1
    BLOCK_K = min(512, TILE_BYTES // BLOCK_N // codes.element_size())
    run = 16 if whole else min(16, C & -C)
    steps, blocks_m, blocks_n = triton.cdiv(K, BLOCK_K), triton.cdiv(M, 1 + two), triton.cdiv(N, BLOCK_N)
    splits = max(1, min(triton.cdiv(FEW_PROGRAMS, blocks_m * blocks_n), steps // 2, MOST_SPLITS))
    each = triton.cdiv(steps, splits)
    splits = triton.cdiv(steps, each) if each else 1
    factors, into, strides = factors_of(x_scale, scale, bias, problem), out, (out.stride(0), 0)
    if splits > 1:
        into = torch.empty(splits, M, N, dtype=torch.float32, device=x.device)
        strides = N, M * N
    with on_device_of(x):
        _rows_kernel[(blocks_m * blocks_n * splits,)](
            x, codes, into, factors, M, N, K, C, x.stride(0), codes.stride(0), *strides, blocks_m, blocks_n, each,
            FORMAT=problem.format, X_FORMAT=problem.x_format, HARDWARE=multiplies_fp8(),
            ACTIVATION=problem.activation, WHOLE=whole, EXACT=K % BLOCK_K == 0, PARTIAL=splits > 1, TWO=two, RUN=run,
            BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K, STAGES=STAGES if run == 16 else 1, num_warps=4,
        )  # fmt: skip
        if splits > 1:
            merge(into, out, factors, whole, problem.activation)
