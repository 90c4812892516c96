"""The kernel of `attention` and `decode`: a program per block of rows, head of keys, sequence and part of the keys.

Row r of a block is head ``r % G`` of the group and query ``r // G``, so that keys and values are read once for a
group. A program goes over the tiles of keys that all of its rows may see, and then, with masks, over those that only
some may. Of the latter, a value that is NaN or infinite must not reach a row through a weight of 0: it counts as 0,
and the elements of the output that it does reach are written afterwards. Looking for one costs a subtraction, a
comparison and a selection per value, of such tiles only.

Prefill does 2 (D + Dv) operations and one exponential per logit: for D = 128 on an H200, of 989 TFLOP/s and 16
exponentials per cycle and multiprocessor, 0.52 and 0.27 ns per 1000 logits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_core import (
    FAR,
    LN2,
    LOG2E,
    Pages,
    Rows,
    load_rows,
    operand,
    plain,
    rows_of,
    rules_of,
    tile_of,
)
from .gpu_tile import not_finite, visit
from .gpu_tile import rows_at as rows_at
from .problem import Lengths, Scoring

FEW = tl.constexpr(16)
"""Columns of values that are looked through at a time for what is not finite."""
MOST_PROGRAMS = 1 << 14
"""Programs beyond which those of a sequence take several chunks each; of a long capacity, most chunks are empty."""


@triton.jit
def sequence_of(starts_ptr, N, block, G, BLOCK_M: tl.constexpr):
    """The sequence of a block of rows: that of n begin at block ``starts[n] * G // BLOCK_M + n``, which is enough."""
    low, high = block * 0, block * 0 + N
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(starts_ptr + middle) * G // BLOCK_M + middle <= block
        low, high = tl.where(before, middle, low), tl.where(before, high, middle)
    return low


@triton.jit
def tiles_of(first, last, Sk, rules, BLOCK_N: tl.constexpr):
    """Tiles of keys: the first and the end of those that queries at positions `first` to `last` see, and of those
    that all of them see whole."""
    begin = tl.minimum(tl.maximum(first - rules.left, 0), Sk) // BLOCK_N
    end = tl.cdiv(tl.minimum(tl.maximum(last + rules.right + 1, 0), Sk), BLOCK_N)
    all_begin = tl.cdiv(tl.minimum(tl.maximum(last - rules.left, 0), Sk), BLOCK_N)
    all_end = tl.minimum(tl.maximum(first + rules.right + 1, 0), Sk) // BLOCK_N
    if rules.mask is not None:
        all_end = all_begin
    return begin, end, all_begin, all_end


@triton.jit
def _attention_kernel(
    q, k, v, out, lse, rules, starts_q, starts_k, counts, pages, N, Sq, Sk, G, heads, blocks, splits, out_chunk,
    lse_chunk, D: tl.constexpr, Dv: tl.constexpr, CHUNK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, TAIL_D: tl.constexpr, BLOCK_V: tl.constexpr, PLAIN: tl.constexpr, GATHER: tl.constexpr,
):  # fmt: skip
    """Output and lse of a block of rows, for each of the chunks split, split + splits, ... of CHUNK keys by itself."""
    program = tl.program_id(0)
    split, program = program % splits, program // splits
    block, program = blocks - 1 - program % blocks, program // blocks  # the last, which may see most keys, first
    h, n = (program % heads).to(tl.int64), (program // heads).to(tl.int64)
    batch, q_first, k_first = n, n * 0, n * 0
    if starts_q is not None:
        n = sequence_of(starts_q, N, block.to(tl.int64), G, BLOCK_M)
        batch, q_first, k_first = n * 0, tl.load(starts_q + n), tl.load(starts_k + n)
        block -= (q_first * G // BLOCK_M + n).to(tl.int32)
        Sq = (tl.load(starts_q + n + 1) - q_first).to(tl.int32)
        Sk = (tl.load(starts_k + n + 1) - k_first).to(tl.int32)
    if counts is not None:
        Sk = tl.load(counts + n).to(tl.int32)
    if block * BLOCK_M >= Sq * G:
        return
    ahead = tl.where(rules.upper_left != 0, 0, Sk - Sq)
    r = block * BLOCK_M + tl.arange(0, BLOCK_M)
    i, head, present = r // G, h * G + r % G, r < Sq * G
    last = tl.minimum((block * BLOCK_M + BLOCK_M - 1) // G, Sq - 1)
    begin, end, all_begin, all_end = tiles_of(block * BLOCK_M // G + ahead, last + ahead, Sk, rules, BLOCK_N)
    sequence, rows = (n, batch, h, k_first, Sk), (head, i, present, i + ahead)
    dtype: tl.constexpr = q.ptr.dtype.element_ty
    places = rows_at(q, batch, head, q_first + i)
    query = operand(load_rows(places, present, 0, BLOCK_D, D, True), dtype)
    query_tail = operand(load_rows(places, present, BLOCK_D, TAIL_D, D, True), dtype) if TAIL_D else None
    for c in range(split, tl.maximum(tl.cdiv(Sk, CHUNK), 1), splits):
        t0, t3 = tl.maximum(begin, c * (CHUNK // BLOCK_N)), tl.minimum(end, (c + 1) * (CHUNK // BLOCK_N))
        t1 = tl.minimum(tl.maximum(all_begin, t0), t3)
        t2 = tl.maximum(tl.minimum(all_end, t3), t1)
        m = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        if rules.sinks is not None:
            m = tl.where(c == 0, tl.load(rules.sinks + head) * LOG2E, m)
        state = (m, tl.where(m == float("-inf"), 0.0, 1.0), tl.zeros((BLOCK_M, BLOCK_V), tl.float32), 1)
        for t in range(t1, t2):
            state = visit(
                t, state, query, query_tail, sequence, rows, k, v, rules, pages, dtype, D, Dv, BLOCK_N, BLOCK_D,
                TAIL_D, BLOCK_V, PLAIN, GATHER, False,
            )  # fmt: skip
        for u in range(t0, t3 - (t2 - t1)):
            t = tl.where(u < t1, u, u + (t2 - t1))
            state = visit(
                t, state, query, query_tail, sequence, rows, k, v, rules, pages, dtype, D, Dv, BLOCK_N, BLOCK_D,
                TAIL_D, BLOCK_V, PLAIN, GATHER, True,
            )  # fmt: skip
        m, total, acc, finite = state
        divisor, d = tl.where(total == 0, 1.0, total), tl.arange(0, BLOCK_V)
        into = rows_at(out, batch, head, q_first + i) + (n * 0 + c) * out_chunk
        value = (acc / divisor[:, None]).to(out.ptr.dtype.element_ty)
        tl.store(into[:, None] + d[None, :], value, mask=present[:, None] & (d < Dv)[None, :])
        logarithm = tl.where(total == 0, float("-inf"), (m + tl.log2(divisor)) * LN2)
        tl.store(rows_at(lse, batch, head, q_first + i) + (n * 0 + c) * lse_chunk, logarithm, mask=present)
        if finite == 0:
            tl.debug_barrier()
            for start in range(0, Dv, FEW):
                column = start + tl.arange(0, FEW)
                found = tl.zeros((BLOCK_M, FEW), tl.int32)
                for t in range(t0, t3):
                    found |= not_finite(t, column, sequence, rows, v, rules, pages, dtype, Dv, BLOCK_N, GATHER)
                special = tl.where(found == 1, float("inf"), tl.where(found == 2, float("-inf"), float("nan")))
                there = (present & (total == total))[:, None] & (column < Dv)[None, :] & (found != 0)
                tl.store(into[:, None] + column[None, :], special.to(out.ptr.dtype.element_ty), mask=there)


def launch(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring, lengths: Lengths, pages: Pages | None,
    keys: int, out: torch.Tensor, lse: torch.Tensor, chunk: int = FAR,
) -> None:  # fmt: skip
    """Attention to at most `keys` keys of a sequence.

    With a `chunk`, that of each `chunk` keys by itself, into `out` and `lse` with a first axis of chunks; what they
    hold of chunks beyond the keys of a sequence stays.
    """
    if q.dtype == torch.float64:
        raise NotImplementedError("attention of float64 is not available on the GPU: use float32, or backend='cpu'")
    varlen, heads, G = lengths.cu_q is not None, k.shape[1], q.shape[1] // k.shape[1]
    N, Sq = (len(lengths.cu_q) - 1, q.shape[2]) if varlen else (q.shape[0], q.shape[2])
    if N == 0 or Sq == 0 or heads == 0:
        return
    tables = scoring.bias is not None or scoring.mask is not None
    tile = tile_of(q, k, v.shape[3], triton.cdiv(Sq, N) * G if varlen else Sq * G, tables)
    blocks = Sq * G // tile.M + N if varlen else triton.cdiv(Sq * G, tile.M)
    programs = blocks * heads * (1 if varlen else N)
    splits = max(1, min(triton.cdiv(keys, chunk), triton.cdiv(MOST_PROGRAMS, programs)))
    strides = (0, 0) if chunk == FAR else (out.stride(0), lse.stride(0))
    into = (out, lse) if chunk == FAR else (out[0], lse[0])
    with on_device_of(q):
        _attention_kernel[(programs * splits,)](
            *map(rows_of, (q, k, v, into[0])), Rows(into[1], *into[1].stride()), rules_of(scoring), *lengths, pages,
            N, Sq, keys, G, heads, blocks, splits, *strides, D=q.shape[3], Dv=v.shape[3], CHUNK=chunk,
            BLOCK_M=tile.M, BLOCK_N=tile.N, BLOCK_D=tile.D, TAIL_D=tile.tail, BLOCK_V=tile.V, PLAIN=plain(scoring),
            GATHER=pages is not None and keys > pages.size and pages.size % tile.N != 0,
            num_warps=tile.warps, num_stages=tile.stages + (tile.stages - 1 if pages else 0),  # to read the table ahead
        )  # fmt: skip
