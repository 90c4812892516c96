"""Gradients of halo attention: of queries and tables by blocks of queries, of keys and values by tiles of keys.

No kernel adds to what another program writes. A tile of keys goes through the blocks of queries whose windows
reach it and computes their probabilities again. Tiles are shifted against the blocks by half a block, so that with
a halo of at most that a tile meets four blocks, and not nine. Programs that go through blocks of queries keep the
gradients of the tables, and their sums are added in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import PROGRAMS, on_device_of
from .gpu_halo import (
    LOG2E,
    dot,
    head_of,
    keys_of,
    load_rows,
    load_table,
    logits,
    pixels,
    plan_of,
    products,
    queries_of,
    row_stride,
    spread,
    store_rows,
)  # fmt: skip
from .problem import Window


@triton.jit
def _halo_backward_queries_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, rel_height_ptr, rel_width_ptr, out_ptr, lse_ptr, delta_ptr, dq_ptr,
    sums_height_ptr, sums_width_ptr, grad_strides, q_strides, k_strides, v_strides, out_strides, lse_strides,
    delta_strides, dq_strides, rel_height_stride, rel_width_stride, heads, height, width, blocks_y, blocks_x, scale,
    units, each, BLOCK: tl.constexpr, HALO: tl.constexpr, STRIDE: tl.constexpr, MASKED: tl.constexpr,
    PARTS: tl.constexpr, BLOCK_M: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr, TABLE: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """`each` parts of blocks one after the other, which share their sums of the tables' gradients.

    The sums leave registers for half a tile of keys, and none for the tables, which each block reads again.
    """
    SPAN: tl.constexpr = BLOCK + 2 * HALO
    ROWS: tl.constexpr = SPAN + BLOCK - 1
    TILES_X: tl.constexpr = (SPAN + TILE_X - 1) // TILE_X
    TILES: tl.constexpr = (SPAN + TILE_Y - 1) // TILE_Y * TILES_X
    zero: tl.constexpr = BLOCK - 1 + HALO
    program = tl.program_id(0)
    sum_height = tl.zeros((TABLE, BLOCK_D), tl.float32)
    sum_width = tl.zeros((TABLE, BLOCK_D), tl.float32)
    for unit in range(program * each, tl.minimum(program * each + each, units)):
        part, place = unit % PARTS, unit // PARTS
        bx, by, head = place % blocks_x, place // blocks_x % blocks_y, place // blocks_x // blocks_y
        y, x, present = queries_of(part, by, bx, height, width, BLOCK, STRIDE, BLOCK_M)
        qy, qx = y // STRIDE, x // STRIDE
        keys, values = head_of(k_ptr, head, heads, k_strides), head_of(v_ptr, head, heads, v_strides)
        queries, given = head_of(q_ptr, head, heads, q_strides), head_of(grad_ptr, head, heads, grad_strides)
        q = load_rows(queries, pixels(qy, qx, q_strides), present, D, BLOCK_D)
        grad = load_rows(given, pixels(qy, qx, grad_strides), present, DV, BLOCK_DV)
        places = head_of(out_ptr, head, heads, out_strides)
        out = load_rows(places, pixels(qy, qx, out_strides), present, DV, BLOCK_DV)
        delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), axis=1)
        tl.store(
            head_of(delta_ptr, head, heads, delta_strides) + pixels(qy, qx, delta_strides), delta, mask=present
        )  # fmt: skip
        lse = load_lse(head_of(lse_ptr, head, heads, lse_strides), pixels(qy, qx, lse_strides), present)
        by_row, by_column = None, None
        if rel_height_ptr is not None:
            by_row = products(q, load_table(rel_height_ptr, rel_height_stride, ROWS, TABLE, D, BLOCK_D, True))
        if rel_width_ptr is not None:
            by_column = products(q, load_table(rel_width_ptr, rel_width_stride, ROWS, TABLE, D, BLOCK_D, True))
        dq = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        d_row = tl.zeros((BLOCK_M, TABLE), tl.float32)
        d_column = tl.zeros((BLOCK_M, TABLE), tl.float32)
        for t in range(TILES):
            first_y, first_x = by * BLOCK - HALO + t // TILES_X * TILE_Y, bx * BLOCK - HALO + t % TILES_X * TILE_X
            ky, kx = keys_of(first_y, first_x, TILE_Y, TILE_X)
            inside = (ky >= 0) & (ky < height) & (kx >= 0) & (kx < width)
            taking = (ky < by * BLOCK + BLOCK + HALO) & (kx < bx * BLOCK + BLOCK + HALO)
            inside &= taking
            if MASKED:
                taking = inside
            k = load_rows(keys, pixels(ky, kx, k_strides), inside, D, BLOCK_D)
            v = load_rows(values, pixels(ky, kx, v_strides), inside, DV, BLOCK_DV)
            if AGAIN:
                q = load_rows(queries, pixels(qy, qx, q_strides), present, D, BLOCK_D, True)
                grad = load_rows(given, pixels(qy, qx, grad_strides), present, DV, BLOCK_DV, True)
            row, column = first_y - y + zero, first_x - x + zero
            s = logits(q, k, scale, by_row, by_column, row, column, TILE_Y, TILE_X)
            p = tl.where(taking[None, :], tl.exp2(s - lse[:, None]), 0.0)
            ds = p * (dot(grad, tl.trans(v)) - delta[:, None])
            dq = dot(ds.to(k.dtype), k, dq)
            window = tl.reshape(ds, (BLOCK_M, TILE_Y, TILE_X))
            if rel_height_ptr is not None:
                d_row += spread(tl.sum(window, axis=2), row, TABLE)
            if rel_width_ptr is not None:
                d_column += spread(tl.sum(window, axis=1), column, TABLE)
        dq *= scale
        if rel_height_ptr is not None:
            d_row = d_row.to(q.dtype)
            dq = dot(d_row, load_table(rel_height_ptr, rel_height_stride, ROWS, TABLE, D, BLOCK_D, True), dq)
            sum_height = dot(tl.trans(d_row), q, sum_height)
        if rel_width_ptr is not None:
            d_column = d_column.to(q.dtype)
            dq = dot(d_column, load_table(rel_width_ptr, rel_width_stride, ROWS, TABLE, D, BLOCK_D, True), dq)
            sum_width = dot(tl.trans(d_column), q, sum_width)
        places = head_of(dq_ptr, head, heads, dq_strides)
        store_rows(places, pixels(qy, qx, dq_strides), present, dq, D, BLOCK_D)
    r = tl.arange(0, TABLE)
    places = (program.to(tl.int64) * ROWS + r) * D
    if sums_height_ptr is not None:
        store_rows(sums_height_ptr, places, r < ROWS, sum_height, D, BLOCK_D)
    if sums_width_ptr is not None:
        store_rows(sums_width_ptr, places, r < ROWS, sum_width, D, BLOCK_D)


@triton.jit
def _halo_backward_keys_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, rel_height_ptr, rel_width_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr,
    grad_strides, q_strides, k_strides, v_strides, lse_strides, delta_strides, dk_strides, dv_strides,
    rel_height_stride, rel_width_stride, heads, height, width, blocks_y, blocks_x, tiles_y, tiles_x, scale,
    BLOCK: tl.constexpr, HALO: tl.constexpr, STRIDE: tl.constexpr, SHIFT: tl.constexpr, PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr, TILE: tl.constexpr, TABLE: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """A tile of TILE x TILE keys, and all parts of the blocks whose windows reach it."""
    ROWS: tl.constexpr = 2 * BLOCK + 2 * HALO - 1
    zero: tl.constexpr = BLOCK - 1 + HALO
    place = tl.program_id(0)
    first_x, first_y = place % tiles_x * TILE - SHIFT, place // tiles_x % tiles_y * TILE - SHIFT
    head = place // tiles_x // tiles_y
    ky, kx = keys_of(first_y, first_x, TILE, TILE)
    inside = (ky >= 0) & (ky < height) & (kx >= 0) & (kx < width)
    k_ptr, v_ptr = head_of(k_ptr, head, heads, k_strides), head_of(v_ptr, head, heads, v_strides)
    k = load_rows(k_ptr, pixels(ky, kx, k_strides), inside, D, BLOCK_D)
    v = load_rows(v_ptr, pixels(ky, kx, v_strides), inside, DV, BLOCK_DV)
    q_ptr, grad_ptr = head_of(q_ptr, head, heads, q_strides), head_of(grad_ptr, head, heads, grad_strides)
    lse_ptr, delta_ptr = head_of(lse_ptr, head, heads, lse_strides), head_of(delta_ptr, head, heads, delta_strides)
    rel_height, rel_width = None, None
    if rel_height_ptr is not None:
        rel_height = load_table(rel_height_ptr, rel_height_stride, ROWS, TABLE, D, BLOCK_D)
    if rel_width_ptr is not None:
        rel_width = load_table(rel_width_ptr, rel_width_stride, ROWS, TABLE, D, BLOCK_D)
    low_y, low_x = tl.maximum(first_y - HALO, 0) // BLOCK, tl.maximum(first_x - HALO, 0) // BLOCK
    high_y = tl.minimum((first_y + TILE - 1 + HALO) // BLOCK, blocks_y - 1)
    high_x = tl.minimum((first_x + TILE - 1 + HALO) // BLOCK, blocks_x - 1)
    across = high_x - low_x + 1
    dk = tl.zeros((TILE * TILE, BLOCK_D), tl.float32)
    dv = tl.zeros((TILE * TILE, BLOCK_DV), tl.float32)
    for unit in range((high_y - low_y + 1) * across * PARTS):
        by, bx = low_y + unit // PARTS // across, low_x + unit // PARTS % across
        y, x, present = queries_of(unit % PARTS, by, bx, height, width, BLOCK, STRIDE, BLOCK_M)
        qy, qx = y // STRIDE, x // STRIDE
        q = load_rows(q_ptr, pixels(qy, qx, q_strides), present, D, BLOCK_D)
        grad = load_rows(grad_ptr, pixels(qy, qx, grad_strides), present, DV, BLOCK_DV)
        lse = load_lse(lse_ptr, pixels(qy, qx, lse_strides), present)
        delta = tl.load(delta_ptr + pixels(qy, qx, delta_strides), mask=present, other=0.0)
        if AGAIN:
            k = load_rows(k_ptr, pixels(ky, kx, k_strides), inside, D, BLOCK_D, True)
            v = load_rows(v_ptr, pixels(ky, kx, v_strides), inside, DV, BLOCK_DV, True)
            if rel_height_ptr is not None:
                rel_height = load_table(rel_height_ptr, rel_height_stride, ROWS, TABLE, D, BLOCK_D, True)
            if rel_width_ptr is not None:
                rel_width = load_table(rel_width_ptr, rel_width_stride, ROWS, TABLE, D, BLOCK_D, True)
        by_row, by_column = products(q, rel_height), products(q, rel_width)
        s = logits(q, k, scale, by_row, by_column, first_y - y + zero, first_x - x + zero, TILE, TILE)
        seen = (ky >= by * BLOCK - HALO) & (ky < by * BLOCK + BLOCK + HALO)
        seen &= (kx >= bx * BLOCK - HALO) & (kx < bx * BLOCK + BLOCK + HALO)
        p = tl.where(seen[None, :], tl.exp2(s - lse[:, None]), 0.0)
        ds = p * (dot(grad, tl.trans(v)) - delta[:, None])
        dv = dot(tl.trans(p.to(grad.dtype)), grad, dv)
        dk = dot(tl.trans(ds.to(q.dtype)), q, dk)
    places = head_of(dk_ptr, head, heads, dk_strides)
    store_rows(places, pixels(ky, kx, dk_strides), inside, dk * scale, D, BLOCK_D)
    places = head_of(dv_ptr, head, heads, dv_strides)
    store_rows(places, pixels(ky, kx, dv_strides), inside, dv, DV, BLOCK_DV)


@triton.jit
def load_lse(ptr, offset, present):
    """In powers of two; +Inf, which makes probabilities zero, for queries that are absent or have no weight."""
    lse = tl.load(ptr + offset, mask=present, other=float("-inf")) * LOG2E
    return tl.where(lse == float("-inf"), float("inf"), lse)


def halo_backward(
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rel_height: torch.Tensor | None,
    rel_width: torch.Tensor | None,
    window: Window,
    scale: float,
    out: torch.Tensor,
    lse: torch.Tensor,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    drel_height: torch.Tensor | None,
    drel_width: torch.Tensor | None,
) -> None:
    """Gradients of ``sum(grad_out * out)``; `out` and `lse` are what `halo` gave."""
    plan = plan_of(q, v, (rel_height, rel_width), window)
    B, H, height, width, D = k.shape
    blocks = triton.cdiv(height, window.block), triton.cdiv(width, window.block)
    units = B * H * blocks[0] * blocks[1] * plan.parts
    grads = drel_height, drel_width
    if units == 0:
        for grad in grads:
            if grad is not None:
                grad.zero_()
        return
    each = 1 if drel_height is None and drel_width is None else triton.cdiv(units, 2 * PROGRAMS)
    programs = triton.cdiv(units, each)
    delta = torch.empty(lse.shape, dtype=lse.dtype, device=lse.device)
    sums = [None if g is None else torch.empty(programs, *g.shape, dtype=lse.dtype, device=g.device) for g in grads]
    tables, rows = (rel_height, rel_width), tuple(map(row_stride, (rel_height, rel_width)))
    shared = {
        "BLOCK": window.block, "HALO": window.halo, "STRIDE": window.stride, "PARTS": plan.parts, "BLOCK_M": plan.M,
        "TABLE": plan.table, "D": D, "DV": v.shape[-1], "BLOCK_D": plan.D, "BLOCK_DV": plan.Dv,
        "AGAIN": plan.AGAIN,
    }  # fmt: skip
    tile = 8 if window.block > 4 and plan.X * plan.Y == 64 else 4
    shift = window.block // 2 % tile
    tiles = triton.cdiv(height + shift, tile), triton.cdiv(width + shift, tile)
    with on_device_of(q):
        _halo_backward_queries_kernel[(programs,)](
            grad_out, q, k, v, *tables, out, lse, delta, dq, *sums,
            *(x.stride()[:4] for x in (grad_out, q, k, v, out, lse, delta, dq)), *rows,
            H, height, width, *blocks, scale, units, each,
            **shared, MASKED=window.masked, TILE_Y=plan.Y if plan.AGAIN else plan.Y // 2,
            TILE_X=plan.X, num_warps=8,
        )  # fmt: skip
        _halo_backward_keys_kernel[(B * H * tiles[0] * tiles[1],)](
            grad_out, q, k, v, *tables, lse, delta, dk, dv,
            *(x.stride()[:4] for x in (grad_out, q, k, v, lse, delta, dk, dv)), *rows,
            H, height, width, *blocks, *tiles, scale, **shared, SHIFT=shift, TILE=tile, num_warps=plan.warps,
        )  # fmt: skip
        for grad, parts in zip(grads, sums, strict=True):
            if grad is not None and parts is not None:
                grad.copy_(parts.sum(0))
