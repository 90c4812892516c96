"""The kernel of the gradient of a bias: a program for each tile of its own elements, over all uses of them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .gpu_core import Rows, Scores, load_rows, operand, rows_of, rules_of
from .gpu_forward import rows_at
from .gpu_gradients import Tile, gradients_of_logits, load_lse
from .problem import Lengths, Scoring


@triton.jit
def _bias_kernel(
    grad, q, k, v, lse, delta, dbias, rules, starts_q, starts_k, counts, Sq, Sk, G, own_heads, own_rows, own_columns,
    sequences, heads, row_tiles, column_tiles, D: tl.constexpr, Dv: tl.constexpr, ONE_ROW: tl.constexpr,
    ONE_COLUMN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Sums over `sequences`, `heads`, `row_tiles` and `column_tiles`: 1 where the bias has an element for each."""
    program = tl.program_id(0)
    own_j, program = program % own_columns, program // own_columns
    own_i, program = program % own_rows, program // own_rows
    own_head, own_n = (program % own_heads).to(tl.int64), (program // own_heads).to(tl.int64)
    dtype: tl.constexpr = q.ptr.dtype.element_ty
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(sequences * heads * row_tiles * column_tiles):
        j = (own_j + step % column_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
        other = step // column_tiles
        i = (own_i + other % row_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
        other = other // row_tiles
        head, n = own_head + other % heads, own_n + other // heads
        batch, q_first, k_first, queries, keys = n, n * 0, n * 0, Sq, Sk
        if starts_q is not None:
            batch, q_first, k_first = n * 0, tl.load(starts_q + n), tl.load(starts_k + n)
            queries = (tl.load(starts_q + n + 1) - q_first).to(tl.int32)
            keys = (tl.load(starts_k + n + 1) - k_first).to(tl.int32)
        if counts is not None:
            keys = tl.load(counts + n).to(tl.int32)
        present, inside, h = i < queries, j < keys, head // G
        ahead = tl.where(rules.upper_left != 0, 0, keys - queries)
        row = q_first + i
        x = operand(load_rows(rows_at(q, batch, head, row), present, 0, BLOCK_D, D, True), dtype)
        given = operand(load_rows(rows_at(grad, batch, head, row), present, 0, BLOCK_V, Dv, True), dtype)
        y = operand(load_rows(rows_at(k, batch, h, k_first + j), inside, 0, BLOCK_D, D, True), dtype)
        values = operand(load_rows(rows_at(v, batch, h, k_first + j), inside, 0, BLOCK_V, Dv, True), dtype)
        weight = load_lse(rows_at(lse, batch, head, row), present)
        shift = tl.load(rows_at(delta, batch, head, row), mask=present, other=0)
        ds = gradients_of_logits(
            x, y, given, values, weight, shift, rules, n, i * 0 + head, i, present, i + ahead, j, inside
        )[1]  # fmt: skip
        acc += ds
    row, column = own_i * BLOCK_M + tl.arange(0, BLOCK_M), own_j * BLOCK_N + tl.arange(0, BLOCK_N)
    stored = (row < Sq)[:, None] & (column < Sk)[None, :]
    if ONE_ROW:
        acc = tl.broadcast_to(tl.sum(acc, axis=0, keep_dims=True), (BLOCK_M, BLOCK_N))
        stored &= (row == 0)[:, None]
    if ONE_COLUMN:
        acc = tl.broadcast_to(tl.sum(acc, axis=1, keep_dims=True), (BLOCK_M, BLOCK_N))
        stored &= (column == 0)[None, :]
    places = dbias.ptr + own_n * dbias.batch + own_head * dbias.head + row.to(tl.int64) * dbias.row
    tl.store(places[:, None] + column.to(tl.int64)[None, :] * dbias.column, acc, mask=stored)


def bias_gradient(
    grad_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor,
    scoring: Scoring, lengths: Lengths, tile: Tile, dbias: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `dbias`, each size of which is that of the bias or, where that was broadcast, 1."""
    N = q.shape[0] if lengths.cu_q is None else len(lengths.cu_q) - 1
    H, Sq, Sk = q.shape[1], q.shape[2], k.shape[2]
    every = N, H, triton.cdiv(Sq, tile.M), triton.cdiv(Sk, tile.N)
    own = tuple(1 if size == 1 else count for size, count in zip(dbias.shape, every, strict=True))
    shared = tuple(count if size == 1 else 1 for size, count in zip(dbias.shape, every, strict=True))
    _bias_kernel[(own[0] * own[1] * own[2] * own[3],)](
        *map(rows_of, (grad_out, q, k, v)), *(Rows(x, *x.stride()) for x in (lse, delta)),
        Scores(dbias, *dbias.stride()), rules_of(scoring), *lengths, Sq, Sk, H // k.shape[1], *own[1:], *shared,
        D=q.shape[3], Dv=v.shape[3], ONE_ROW=dbias.shape[2] == 1, ONE_COLUMN=dbias.shape[3] == 1,
        BLOCK_M=tile.M, BLOCK_N=tile.N, BLOCK_D=tile.D, BLOCK_V=tile.V, num_warps=tile.warps,
    )  # fmt: skip
