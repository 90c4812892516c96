"""Halo attention: a program for each block of queries of a head, or for a part of it.

A program reads its window of keys and values once, in tiles of whole rows; windows overlap by 2 halo pixels,
which neighbouring programs read again from the caches. The terms of the tables depend on a query and on one
coordinate of the key: a product of the queries with a table gives them for all offsets, from which each
query picks those of the tile's rows and columns, so a logit costs one addition for both tables.

Work of a head per pixel, with w = block + 2 halo and stride 1: 4 w^2 D operations and w^2 exponentials, against
the 4 D elements that must be moved. On an H200 in bfloat16 with D = 64, block 8 and halo 3 that is 0.11 ns of
memory and 0.05 ns of matrix products.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import INTERPRETED, WIDE, on_device_of
from .problem import Window

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)

LONGEST_TABLE = 256
"""Rows of a table whose products with a tile of queries fit the registers."""


class Plan(NamedTuple):
    """Queries (M) and keys (Y, X) of a tile, the parts of a block, and widths rounded up to powers of two.

    float32, whose products are multiply-adds of operands in registers, reads those that stay in a loop AGAIN.
    """

    M: int
    parts: int
    Y: int
    X: int
    table: int
    D: int
    Dv: int
    warps: int
    AGAIN: bool


def plan_of(q: torch.Tensor, v: torch.Tensor, tables: tuple[torch.Tensor | None, ...], window: Window) -> Plan:
    """A tile of keys has whole rows of the window, unless those have more than 64 pixels."""
    rows = 2 * (window.block + window.halo) - 1
    if rows > LONGEST_TABLE and any(table is not None for table in tables):
        raise NotImplementedError(
            f"the gpu backend has tables of at most {LONGEST_TABLE} rows, 2 * (block + halo) - 1 is {rows}"
        )
    if q.dtype == torch.float64:
        raise NotImplementedError("the gpu backend has no float64 in halo_attention; backend='cpu' has")
    D, Dv = (max(16, triton.next_power_of_2(x.shape[-1])) for x in (q, v))
    table = max(16, triton.next_power_of_2(rows)) if any(table is not None for table in tables) else 16
    queries, single, width = triton.cdiv(window.block, window.stride) ** 2, q.element_size() == 4, max(D, Dv)
    small = single and not INTERPRETED
    keys = 64 if width <= 128 and not small else 32
    largest = 16 if small else min(keys, 8192 // table)
    M = max(16, min(largest, triton.next_power_of_2(queries)))
    X = min(triton.next_power_of_2(window.block + 2 * window.halo), keys // 2)
    warps = 4 if width <= 64 and not single else 8
    return Plan(M, triton.cdiv(queries, M), keys // X, X, table, D, Dv, warps, single)


@triton.jit
def dot(a, b, acc=None):
    """``a @ b``, onto `acc`; the interpreter's matrix product does not know bfloat16, and takes float32 for it."""
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def load_rows(ptr, offset, present, D: tl.constexpr, BLOCK_D: tl.constexpr, AGAIN: tl.constexpr = False):
    """Vectors of D elements at `offset`, zeros where not `present` and beyond D; `AGAIN` in every step of a loop."""
    d = tl.arange(0, BLOCK_D)
    inside = present[:, None] & (d < D)[None, :]
    return tl.load(ptr + offset[:, None] + d[None, :], mask=inside, other=0.0, volatile=AGAIN)


@triton.jit
def store_rows(ptr, offset, present, x, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    tl.store(ptr + offset[:, None] + d[None, :], x.to(ptr.dtype.element_ty), mask=present[:, None] & (d < D)[None, :])


@triton.jit
def load_table(
    ptr, stride, ROWS: tl.constexpr, TABLE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    AGAIN: tl.constexpr = False,
):  # fmt: skip
    row = tl.arange(0, TABLE)
    return load_rows(ptr, row.to(tl.int64) * stride, row < ROWS, D, BLOCK_D, AGAIN)


@triton.jit
def pixels(y, x, strides):
    """Where pixels of the head begin."""
    return y.to(tl.int64) * strides[2] + x.to(tl.int64) * strides[3]


@triton.jit
def head_of(ptr, head, heads, strides):
    """`ptr` at a head, counted over the batch."""
    head = head.to(tl.int64)
    return ptr + head // heads * strides[0] + head % heads * strides[1]


@triton.jit
def queries_of(part, by, bx, height, width, BLOCK: tl.constexpr, STRIDE: tl.constexpr, BLOCK_M: tl.constexpr):
    """Pixels of a part of a block's queries, and which of them there are."""
    SIDE: tl.constexpr = (BLOCK + STRIDE - 1) // STRIDE
    m = part * BLOCK_M + tl.arange(0, BLOCK_M)
    y, x = by * BLOCK + m // SIDE * STRIDE, bx * BLOCK + m % SIDE * STRIDE
    return y, x, (m < SIDE * SIDE) & (y < height) & (x < width)


@triton.jit
def keys_of(y, x, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """Pixels of a tile of keys whose first is (y, x)."""
    n = tl.arange(0, TILE_Y * TILE_X)
    return y + n // TILE_X, x + n % TILE_X


@triton.jit
def products(q, table):
    """Of queries with all rows of a table, in powers of two; None without a table."""
    return None if table is None else dot(q, tl.trans(table)) * LOG2E


@triton.jit
def picked(product, first, COUNT: tl.constexpr):
    """(M, COUNT) of `product` (M, TABLE): for each query the columns from its `first` on."""
    column = first[:, None] + tl.arange(0, COUNT)[None, :]
    return tl.gather(product, tl.minimum(tl.maximum(column, 0), product.shape[1] - 1), 1)


@triton.jit
def spread(total, first, TABLE: tl.constexpr):
    """(M, TABLE) with the columns of `total` (M, COUNT) from `first` on, zeros elsewhere: `picked` transposed."""
    column = tl.arange(0, TABLE)[None, :] - first[:, None]
    count = total.shape[1]
    inside = (column >= 0) & (column < count)
    return tl.where(inside, tl.gather(total, tl.minimum(tl.maximum(column, 0), count - 1), 1), 0.0)


@triton.jit
def logits(q, k, scale, by_row, by_column, first_y, first_x, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """Logits of a tile in powers of two; `first_y` and `first_x` are the tables' rows of its first key."""
    s = dot(q, tl.trans(k)) * (scale * LOG2E)
    if by_row is not None:
        terms = tl.expand_dims(picked(by_row, first_y, TILE_Y), 2)
        if by_column is not None:
            terms = terms + tl.expand_dims(picked(by_column, first_x, TILE_X), 1)
        else:
            terms = tl.broadcast_to(terms, (q.shape[0], TILE_Y, TILE_X))
        s += tl.reshape(terms, (q.shape[0], TILE_Y * TILE_X))
    elif by_column is not None:
        terms = tl.broadcast_to(tl.expand_dims(picked(by_column, first_x, TILE_X), 1), (q.shape[0], TILE_Y, TILE_X))
        s += tl.reshape(terms, (q.shape[0], TILE_Y * TILE_X))
    return s


@triton.jit
def _halo_kernel(
    q_ptr, k_ptr, v_ptr, rel_height_ptr, rel_width_ptr, out_ptr, lse_ptr,
    q_strides, k_strides, v_strides, out_strides, lse_strides, rel_height_stride, rel_width_stride,
    heads, height, width, blocks_y, blocks_x, scale, BLOCK: tl.constexpr, HALO: tl.constexpr, STRIDE: tl.constexpr,
    MASKED: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
    TABLE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    AGAIN: tl.constexpr,
):  # fmt: skip
    SPAN: tl.constexpr = BLOCK + 2 * HALO
    ROWS: tl.constexpr = SPAN + BLOCK - 1
    TILES_X: tl.constexpr = (SPAN + TILE_X - 1) // TILE_X
    TILES: tl.constexpr = (SPAN + TILE_Y - 1) // TILE_Y * TILES_X
    part, place = tl.program_id(0) % PARTS, tl.program_id(0) // PARTS
    bx, by, head = place % blocks_x, place // blocks_x % blocks_y, place // blocks_x // blocks_y
    y, x, present = queries_of(part, by, bx, height, width, BLOCK, STRIDE, BLOCK_M)
    q_ptr, k_ptr = head_of(q_ptr, head, heads, q_strides), head_of(k_ptr, head, heads, k_strides)
    v_ptr = head_of(v_ptr, head, heads, v_strides)
    queries = pixels(y // STRIDE, x // STRIDE, q_strides)
    q = load_rows(q_ptr, queries, present, D, BLOCK_D)
    by_row, by_column = None, None
    if rel_height_ptr is not None:
        by_row = products(q, load_table(rel_height_ptr, rel_height_stride, ROWS, TABLE, D, BLOCK_D))
    if rel_width_ptr is not None:
        by_column = products(q, load_table(rel_width_ptr, rel_width_stride, ROWS, TABLE, D, BLOCK_D))
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
    for t in range(TILES):
        first_y, first_x = by * BLOCK - HALO + t // TILES_X * TILE_Y, bx * BLOCK - HALO + t % TILES_X * TILE_X
        ky, kx = keys_of(first_y, first_x, TILE_Y, TILE_X)
        inside = (ky >= 0) & (ky < height) & (kx >= 0) & (kx < width)
        taking = (ky < by * BLOCK + BLOCK + HALO) & (kx < bx * BLOCK + BLOCK + HALO)
        inside &= taking
        if MASKED:
            taking = inside
        k = load_rows(k_ptr, pixels(ky, kx, k_strides), inside, D, BLOCK_D)
        if AGAIN:
            q = load_rows(q_ptr, queries, present, D, BLOCK_D, True)
        zero: tl.constexpr = BLOCK - 1 + HALO
        s = logits(q, k, scale, by_row, by_column, first_y - y + zero, first_x - x + zero, TILE_Y, TILE_X)
        s = tl.where(taking[None, :], s, float("-inf"))
        higher = tl.maximum(highest, tl.max(s, axis=1))
        origin = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp2(s - origin[:, None])
        shrink = tl.exp2(highest - origin)
        total = total * shrink + tl.sum(p, axis=1)
        v = load_rows(v_ptr, pixels(ky, kx, v_strides), inside, DV, BLOCK_DV)
        acc = dot(p.to(v.dtype), v, acc * shrink[:, None])
        highest = higher
    origin = tl.where(highest == float("-inf"), 0.0, highest)
    acc = acc / tl.where(total == 0, 1.0, total)[:, None]
    places = pixels(y // STRIDE, x // STRIDE, out_strides)
    store_rows(head_of(out_ptr, head, heads, out_strides), places, present, acc, DV, BLOCK_DV)
    lse_ptr = head_of(lse_ptr, head, heads, lse_strides)
    tl.store(lse_ptr + pixels(y // STRIDE, x // STRIDE, lse_strides), (origin + tl.log2(total)) * LN2, mask=present)


def halo(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rel_height: torch.Tensor | None,
    rel_width: torch.Tensor | None,
    window: Window,
    scale: float,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """`q` (B, H, queries_y, queries_x, D) of every `stride`-th pixel of the image k and v (B, H, height, width, .)."""
    plan = plan_of(q, v, (rel_height, rel_width), window)
    B, H, height, width, D = k.shape
    blocks = triton.cdiv(height, window.block), triton.cdiv(width, window.block)
    programs = B * H * blocks[0] * blocks[1] * plan.parts
    if programs == 0:
        return
    with on_device_of(q):
        _halo_kernel[(programs,)](
            q, k, v, rel_height, rel_width, out, lse,
            *(x.stride()[:4] for x in (q, k, v, out, lse)), *map(row_stride, (rel_height, rel_width)),
            H, height, width, *blocks, scale, BLOCK=window.block, HALO=window.halo, STRIDE=window.stride,
            MASKED=window.masked, PARTS=plan.parts, BLOCK_M=plan.M, TILE_Y=plan.Y, TILE_X=plan.X,
            TABLE=plan.table, D=D, DV=v.shape[-1], BLOCK_D=plan.D, BLOCK_DV=plan.Dv, AGAIN=plan.AGAIN,
            num_warps=plan.warps,
        )  # fmt: skip


def row_stride(table: torch.Tensor | None) -> int:
    return 0 if table is None else table.stride(0)
