"""The kernel of matrix products: a program for a block of w, one of x and a part of K.

Few rows of x are bound by reading w. Its tensor cores could multiply many more, so that all is in what a program keeps
in flight and in how many there are: a second kernel, of which a program's sums would be the input, costs a
microsecond, of the four in which 16 MB are read. Hence S slices of K in one program, each with warps of its own, which
make programs of few rows of w; only if these are too few as well, K is split over programs whose sums a second kernel
adds in order. The product is w x^T: narrow w is made wide in the registers, from which tensor cores read the left one.

For a block of 32 rows of w, 16 rows of x are as many bytes from the cache as w is from memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import limits, on_device_of, rounded
from .gpu_core import FP8, Factors, factors_of, finish, is_whole, multiplies_fp8, operand
from .problem import Problem

FEW_ROWS = 32
"""Rows of x up to which programs work in slices, and up to half of which a row's sums do not depend on the others."""
FEW_PROGRAMS, MANY_PROGRAMS = 128, 256
"""Programs that keep a large device busy: for few rows, each of which has 32 KiB of w in flight, and for many."""
MOST_SPLITS = 16
INTEGER_SUM = 1 << 17
"""Products of int8 whose sum an int32 is certain to hold."""


class Tile(NamedTuple):
    """Rows of x (M) and w (N) of a program, their elements in a slice (K), and slices (S)."""

    M: int
    N: int
    K: int
    S: int
    warps: int
    stages: int


def piece_of(scale: torch.Tensor | None, whole: bool, problem: Problem) -> int:
    """The largest power of two of columns, within reason, that have one scale wherever they begin at a multiple."""
    C = problem.block[1]
    return 256 if scale is None or whole else min(256, C & -C)


def tile_of(x: torch.Tensor, codes: torch.Tensor, dot: tl.dtype, piece: int, grouped: bool) -> Tile:
    M, sizes = len(x), (codes.element_size(), x.element_size())
    available, _, hip = limits()
    K = min(piece, 128 // sizes[0])
    if M <= FEW_ROWS and not (grouped and dot == tl.int8):  # whose sums over a group are to be exact
        narrow = M <= 4 and len(codes) <= 16 * MANY_PROGRAMS
        tile = Tile(16 if M <= 16 else 32, 16 if narrow else 32, K, 4, 4, 3)
    elif M <= 64:
        tile = Tile(max(16, triton.next_power_of_2(M)), 64, K, 1, 4, 4)
    else:
        tile = Tile(128, 128, min(K, 64) if max(sizes) > 1 else K, 1, 8, 4)

    def shared(tile: Tile) -> int:
        """Bytes in flight, of which AMD's are in registers at first, and codes as the product takes them."""
        each = sizes[0] * tile.N + sizes[1] * tile.M
        wide = 2 * (tile.N + tile.M) if min(sizes) == 1 and dot != tl.int8 else 0
        return tile.S * tile.K * (max(1, tile.stages - hip) * each + wide)

    while tile.stages > 2 and shared(tile) > available:
        tile = tile._replace(stages=tile.stages - 1)
    while tile.K > 32 and shared(tile) > available:
        tile = tile._replace(K=tile.K // 2)
    return tile


@triton.jit
def columns(S: tl.constexpr, BLOCK_K: tl.constexpr):
    """Columns of a tile: (1, BLOCK_K), or (S, 1, BLOCK_K) of slices."""
    k = tl.arange(0, BLOCK_K)
    if S == 1:
        k = k[None, :]
    else:
        k = tl.arange(0, S)[:, None, None] * BLOCK_K + k[None, None, :]
    return k


@triton.jit
def down(rows, S: tl.constexpr):
    """`rows` beside `columns`."""
    if S == 1:
        rows = rows[:, None]
    else:
        rows = rows[None, :, None]
    return rows


@triton.jit
def multiply(w, x, acc, DOT: tl.constexpr, S: tl.constexpr, BLOCK_K: tl.constexpr):
    """``acc + w x^T``. Sums of fp8 on Hopper have 14 bits: after BLOCK_K products they go on in float32."""
    right = tl.trans(x) if S == 1 else tl.trans(x, 0, 2, 1)
    if DOT == FP8:
        acc = tl.dot(w, right, acc, max_num_imprecise_acc=BLOCK_K)
    else:
        acc = tl.dot(w, right, acc, out_dtype=acc.dtype)
    return acc


@triton.jit
def _tile_kernel(
    x_ptr, codes_ptr, out_ptr, factors, M, N, K, C, stride_x, stride_codes, stride_out, stride_split, blocks_m,
    blocks_n, each, FORMAT: tl.constexpr, X_FORMAT: tl.constexpr, DOT: tl.constexpr, HARDWARE: tl.constexpr,
    ACTIVATION: tl.constexpr, PER: tl.constexpr, EXACT: tl.constexpr, PARTIAL: tl.constexpr, S: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Outputs of a block, or sums over the `each` steps of a split if `PARTIAL`; groups of PER steps, if not 0, have
    scales of their own."""
    program = tl.program_id(0)
    m = program % blocks_m * BLOCK_M + tl.arange(0, BLOCK_M)
    program //= blocks_m
    n = program % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    split = program // blocks_n
    row, k = tl.minimum(n, N - 1), columns(S, BLOCK_K)
    w_places = codes_ptr + down(row, S).to(tl.int64) * stride_codes + k
    x_places, present = x_ptr + down(m, S).to(tl.int64) * stride_x + k, down(m, S) < M
    kind: tl.constexpr = tl.int32 if tl.int8 == DOT else tl.float32
    acc = tl.zeros((BLOCK_N, BLOCK_M) if S == 1 else (S, BLOCK_N, BLOCK_M), kind)
    total = acc.to(tl.float32) if PER else None
    steps = tl.cdiv(K, S * BLOCK_K)
    first, last = split * each, tl.minimum(split * each + each, steps)
    for t in range(first, last):
        start = t * (S * BLOCK_K)
        if EXACT:
            w, x = tl.load(w_places + start), tl.load(x_places + start, mask=present, other=0)
        else:
            w = tl.load(w_places + start, mask=k < K - start, other=0)
            x = tl.load(x_places + start, mask=present & (k < K - start), other=0)
        w, x = operand(w, FORMAT, DOT, HARDWARE), operand(x, X_FORMAT, DOT, HARDWARE)
        if PER:
            acc = multiply(w, x, acc, DOT, S, BLOCK_K)
            if (t + 1) % PER == 0 or t == last - 1:
                s = factors.scale + row // factors.R * factors.row
                if S == 1:
                    s = tl.load(s + start // C)[:, None]
                else:
                    group = tl.minimum(start + tl.arange(0, S) * BLOCK_K, K - 1) // C
                    s = tl.load(s[None, :] + group[:, None])[:, :, None]
                total += s * acc.to(tl.float32)
                acc = tl.zeros_like(acc)
        else:
            acc = multiply(w, x, acc, DOT, S, BLOCK_K)
    if PER:
        acc = total
    if S > 1:
        acc = tl.sum(acc, axis=0)
    places = out_ptr + m.to(tl.int64)[None, :] * stride_out + n[:, None]
    there = (m < M)[None, :] & (n < N)[:, None]
    if PARTIAL:
        tl.store(places + split.to(tl.int64) * stride_split, acc, mask=there)
    else:
        y = finish(acc, tl.minimum(m, M - 1)[None, :], row[:, None], factors, PER == 0, ACTIVATION)
        tl.store(places, rounded(y, out_ptr.dtype.element_ty), mask=there)


@triton.jit
def _merge_kernel(
    parts_ptr, out_ptr, factors, N, splits, stride_split, stride_part, stride_out, blocks, WHOLE: tl.constexpr,
    ACTIVATION: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Outputs of a part of a row, from sums over parts of K."""
    program = tl.program_id(0)
    m, n = (program // blocks).to(tl.int64), program % blocks * BLOCK + tl.arange(0, BLOCK)
    split = tl.arange(0, SPLITS)[:, None]
    places = parts_ptr + split.to(tl.int64) * stride_split + m * stride_part + n[None, :]
    part = tl.load(places, mask=(split < splits) & (n < N)[None, :], other=0)
    sums = tl.sum(part.to(tl.int64 if part.dtype == tl.int32 else tl.float32), axis=0)
    y = finish(sums, m, tl.minimum(n, N - 1), factors, WHOLE, ACTIVATION)
    tl.store(out_ptr + m * stride_out + n, rounded(y, out_ptr.dtype.element_ty), mask=n < N)


def merge(parts: torch.Tensor, out: torch.Tensor, factors: Factors, whole: bool, activation: str | None) -> None:
    """`out` (M, N) from sums (splits, M, N), of which the first may be `out`; scales apply where they are `whole`."""
    M, N = out.shape
    SPLITS = triton.next_power_of_2(len(parts))
    BLOCK = max(128, 2048 // SPLITS)
    blocks = triton.cdiv(N, BLOCK)
    _merge_kernel[(M * blocks,)](
        parts, out, factors, N, len(parts), parts.stride(0), parts.stride(1), out.stride(0), blocks, WHOLE=whole,
        ACTIVATION=activation, SPLITS=SPLITS, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip


def tiles(
    x: torch.Tensor, x_scale: torch.Tensor | None, codes: torch.Tensor, scale: torch.Tensor | None,
    bias: torch.Tensor | None, out: torch.Tensor, problem: Problem, dot: tl.dtype,
) -> None:  # fmt: skip
    """The product of type `dot`, where `piece_of` is at least 32 or whole rows have one scale."""
    (M, K), N, C = x.shape, len(codes), problem.block[1]
    whole = is_whole(x, scale, problem)
    hardware = multiplies_fp8()
    tile = tile_of(x, codes, dot, piece_of(scale, whole, problem), not whole)
    step, formats = tile.S * tile.K, {problem.format, problem.x_format}
    native = hardware and tile.S == 1 and dot == tl.float16 and formats <= {"e4m3fn", "e5m2"}
    per = 0 if whole else C // step if C % step == 0 else 1
    steps, blocks_m, blocks_n = triton.cdiv(K, step), triton.cdiv(M, tile.M), triton.cdiv(N, tile.N)
    if tile.S > 1:
        splits = min(triton.cdiv(FEW_PROGRAMS, triton.cdiv(N, 32)), max(1, steps // 2))
    else:
        splits = min(triton.cdiv(MANY_PROGRAMS, blocks_m * blocks_n), max(1, steps // 4))
    if dot == tl.int8 and whole:
        splits = max(splits, triton.cdiv(K, INTEGER_SUM))
    each = triton.cdiv(triton.cdiv(steps, min(splits, MOST_SPLITS)), max(1, per)) * max(1, per)
    splits = max(1, triton.cdiv(steps, each)) if each else 1
    factors, into, strides = factors_of(x_scale, scale, bias, problem), out, (out.stride(0), 0)
    if splits > 1:
        kind = torch.int32 if dot == tl.int8 and whole else torch.float32
        into = torch.empty(splits, M, N, dtype=kind, device=x.device)
        strides = N, M * N
    with on_device_of(x):
        _tile_kernel[(blocks_m * blocks_n * splits,)](
            x, codes, into, factors, M, N, K, C, x.stride(0), codes.stride(0), *strides, blocks_m, blocks_n, each,
            FORMAT=problem.format, X_FORMAT=problem.x_format, DOT=FP8.value if native else dot, HARDWARE=hardware,
            ACTIVATION=problem.activation, PER=per, EXACT=K % step == 0, PARTIAL=splits > 1, S=tile.S,
            BLOCK_M=tile.M, BLOCK_N=tile.N, BLOCK_K=tile.K, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        if splits > 1:
            merge(into, out, factors, whole, problem.activation)
