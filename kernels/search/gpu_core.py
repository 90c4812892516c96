"""Device functions and tile shapes of the search kernels.

A tile of scores is one matrix product per block of D: float32 accumulators, int32 of int8. Codes of
e4m3fn become float16, which holds them exactly and which every device multiplies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import WIDE, e4m3fn_to_float16


class Tile(NamedTuple):
    """Vectors of queries (M) and of the database (N) in a program, and their elements at a time (D)."""

    M: int
    N: int
    D: int
    warps: int
    stages: int


def tile_of(x: torch.Tensor, M: int) -> Tile:
    """The tile for `x` (rows, D) and at most `M` queries. float32, which no tensor core multiplies, has small ones."""
    D, size = x.shape[1], x.element_size()
    M = max(16, triton.next_power_of_2(M))
    if size == 4:
        return Tile(min(M, 64), 64, 16, 4, 2)
    M = min(M, 64 if D % 32 else 128)
    block = next((block for block in (128, 64, 32) if D % block == 0), 32)
    return Tile(M, 128, block, 8 if M >= 64 or D % 32 or x.dtype == torch.uint8 else 4, 2 if M >= 64 else 3)


@triton.jit
def factor(x):
    """What the matrix product takes for `x`."""
    if x.dtype == tl.uint8:
        x = e4m3fn_to_float16(x)
    elif x.dtype == tl.bfloat16 and WIDE:
        x = x.to(tl.float32)
    return x


@triton.jit
def wide(x):
    """The float32 values of `x`."""
    if x.dtype == tl.uint8:
        x = e4m3fn_to_float16(x)
    return x.to(tl.float32)


@triton.jit
def load_vectors(ptr, numbers, start, D, EXACT: tl.constexpr, BLOCK_D: tl.constexpr):
    """Elements start : start + BLOCK_D of the vectors `numbers`, zeros beyond D unless it is a multiple (`EXACT`)."""
    d = start + tl.arange(0, BLOCK_D)
    places = ptr + numbers[:, None] * D + d[None, :]
    if EXACT:
        x = tl.load(places)
    else:
        x = tl.load(places, mask=d[None, :] < D, other=0)
    return x


@triton.jit
def multiply(q, x, acc):
    """``acc + q @ x.T``"""
    return tl.dot(factor(q), tl.trans(factor(x)), acc, input_precision="ieee", out_dtype=acc.dtype)


@triton.jit
def products(
    q, q_ptr, query, x_ptr, numbers, D, INTEGER: tl.constexpr, EXACT: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Inner products (BLOCK_M, BLOCK_N) of queries and vectors, float32; `q` holds the queries if they are `WHOLE`."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGER else tl.float32)
    if WHOLE:
        acc = multiply(q, load_vectors(x_ptr, numbers, 0, D, EXACT, BLOCK_D), acc)
    else:
        for start in range(0, D, BLOCK_D):
            left = load_vectors(q_ptr, query, start, D, EXACT, BLOCK_D)
            acc = multiply(left, load_vectors(x_ptr, numbers, start, D, EXACT, BLOCK_D), acc)
    return acc.to(tl.float32)
