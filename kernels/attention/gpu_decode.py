"""Attention of few rows: keys in chunks, each a program of its own, whose results a second kernel merges in order.

A chunk is a constant number of keys, so that the result of a sequence does not depend on the batch that it is in. At
D = 128 and 16 bits it is 256 KiB of keys and values per head, and its result, written and read again, 1 KiB for each
query row: 2 % for a group of 4, 6 % for one of 16, which stay in a cache of tens of MB.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_core import LN2, LOG2E, Pages, Rows, rows_of
from .gpu_forward import launch
from .problem import Cache, Lengths, Scoring

CHUNK = 512
"""Keys of a chunk, a multiple of those of a tile."""
AT_ONCE = 16
"""Chunks that the merging kernel holds."""


@triton.jit
def _merge_kernel(
    parts_ptr, part_lse_ptr, out, lse, counts, N, heads, T, keys, Dv,
    CHUNK: tl.constexpr, AT_ONCE: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Merge the chunks of one row."""
    row = tl.program_id(0).to(tl.int64)
    rows = (N * heads * T).to(tl.int64)
    n, head, i = row // (heads * T), row // T % heads, row % T
    if counts is not None:
        keys = tl.load(counts + n).to(tl.int32)
    chunks = tl.maximum(tl.cdiv(keys, CHUNK), 1)
    d = tl.arange(0, BLOCK_V)
    m = float("-inf") + tl.zeros((1,), tl.float32)
    total = tl.zeros((1,), tl.float32)
    acc = tl.zeros((BLOCK_V,), tl.float32)
    for first in range(0, chunks, AT_ONCE):
        c = first + tl.arange(0, AT_ONCE)
        places = c.to(tl.int64) * rows + row
        s = tl.load(part_lse_ptr + places, mask=c < chunks, other=float("-inf")) * LOG2E
        highest = tl.maximum(m, tl.max(s, axis=0))
        base = tl.where(highest == float("-inf"), 0.0, highest)
        w, decay = tl.exp2(s - base), tl.exp2(m - base)
        there = (c < chunks)[:, None] & (d < Dv)[None, :]
        part = tl.load(parts_ptr + places[:, None] * Dv + d[None, :], mask=there, other=0)
        acc = acc * decay + tl.sum(w[:, None] * part, axis=0)
        total = total * decay + tl.sum(w, axis=0)
        m = highest
    divisor = tl.where(total == 0, 1.0, total)
    places = out.ptr + n * out.batch + head * out.head + i * out.row + d
    tl.store(places, (acc / divisor).to(out.ptr.dtype.element_ty), mask=d < Dv)
    places = lse.ptr + n * lse.batch + head * lse.head + i * lse.row + tl.arange(0, 1)
    tl.store(places, tl.where(total == 0, float("-inf"), (m + tl.log2(divisor)) * LN2))


def in_chunks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring, counts: torch.Tensor | None,
    pages: Pages | None, keys: int, out: torch.Tensor, lse: torch.Tensor,
) -> None:  # fmt: skip
    """Attention of a plain batch to at most `keys` keys (`counts` of each sequence, if given), chunk by chunk."""
    lengths = Lengths(kv=counts)
    if out.numel() == 0 or keys <= CHUNK:
        launch(q, k, v, scoring, lengths, pages, keys, out, lse)
        return
    N, heads, T, Dv = out.shape
    parts = torch.empty(triton.cdiv(keys, CHUNK), N, heads, T, Dv, dtype=torch.float32, device=q.device)
    part_lse = torch.empty(parts.shape[:4], dtype=torch.float32, device=q.device)
    launch(q, k, v, scoring, lengths, pages, keys, parts, part_lse, CHUNK)
    with on_device_of(q):
        _merge_kernel[(N * heads * T,)](
            parts, part_lse, rows_of(out), Rows(lse, *lse.stride()), counts, N, heads, T, keys, Dv,
            CHUNK=CHUNK, AT_ONCE=AT_ONCE, BLOCK_V=triton.next_power_of_2(Dv), num_warps=4,
        )  # fmt: skip


def decode(q: torch.Tensor, cache: Cache, scoring: Scoring, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Attention of `q` (N, Hq, T, D), the last tokens of N sequences, to all keys of each."""
    k, v = cache.k, cache.v
    scales = rows_of(cache.k_scale), rows_of(cache.v_scale)
    pages = Pages(cache.table, cache.table.stride(0), k.shape[2], *scales)
    keys = cache.table.shape[1] * k.shape[2]
    in_chunks(q, k, v, scoring._replace(bias=None, mask=None), cache.lengths, pages, keys, out, lse)
