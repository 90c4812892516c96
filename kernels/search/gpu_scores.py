"""Scores of a database tile by tile: the best of every chunk, and those of the rows of chosen chunks.

One maximum and one multiply-add follow each score, against 2 D operations of the matrix product; only
1 / C of the scores reach memory. Every program of a split reads the same rows at the same time, so
the database comes from memory about once for all queries together.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import PROGRAMS
from .gpu_core import Tile, load_vectors, products, tile_of, wide
from .problem import Problem

FEWEST_TILES, WAVES = 8, 8
"""Programs take tiles enough to pay for their queries, and are enough for the last ones not to matter."""


@triton.jit
def _chunk_scores_kernel(
    q_ptr, x_ptr, scale_ptr, bias_ptr, rows_ptr, mask_ptr, out_ptr, Q, N, M, D, blocks, tiles,
    INTEGER: tl.constexpr, EXACT: tl.constexpr, WHOLE: tl.constexpr, C: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Largest score of each C of the M rows searched, -Inf where all are masked; BLOCK_M queries and `tiles` tiles."""
    program = tl.program_id(0).to(tl.int64)
    query = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    present = query < Q
    vector = tl.minimum(query, Q - 1)
    chunks = tl.cdiv(M, C)
    q = load_vectors(q_ptr, vector, 0, D, EXACT, BLOCK_D) if WHOLE else None
    first = (program // blocks) * tiles
    last = tl.minimum(first + tiles, tl.cdiv(M, BLOCK_N))
    for t in range(first, last):
        n = t * BLOCK_N + tl.arange(0, BLOCK_N)
        number = tl.minimum(n, M - 1)
        if rows_ptr is not None:
            number = tl.load(rows_ptr + number)
        s = products(
            q, q_ptr, vector, x_ptr, number, D, INTEGER, EXACT, WHOLE, BLOCK_M, BLOCK_N, BLOCK_D
        )  # fmt: skip
        bias = tl.where(n < M, 0.0, float("-inf"))
        if bias_ptr is not None:
            bias += tl.load(bias_ptr + number)
        if scale_ptr is not None:
            s = s * tl.load(scale_ptr + number)[None, :] + bias[None, :]
        else:
            s += bias[None, :]
        if mask_ptr is not None:
            s = tl.where(tl.load(mask_ptr + vector[:, None] * N + number[None, :]) != 0, s, float("-inf"))
        if C == 1:
            best = s
        else:
            best = tl.max(tl.reshape(s, (BLOCK_M, BLOCK_N // C, C)), axis=2)
        best = tl.where(best == best, best, float("-inf"))
        chunk = t * (BLOCK_N // C) + tl.arange(0, BLOCK_N // C)
        places = out_ptr + query[:, None] * chunks + chunk[None, :]
        tl.store(places, best, mask=present[:, None] & (chunk < chunks)[None, :])


@triton.jit
def _row_scores_kernel(
    q_ptr, x_ptr, scale_ptr, bias_ptr, rows_ptr, mask_ptr, runs_ptr, out_ptr, N, M, D, k,
    INTEGER: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Scores of the rows of the k chunks `runs` of a query, as many as BLOCK_N at a time."""
    candidates = k * C
    programs = tl.cdiv(candidates, BLOCK_N)
    query = tl.program_id(0).to(tl.int64) // programs
    i = (tl.program_id(0) % programs) * BLOCK_N + tl.arange(0, BLOCK_N)
    n = tl.load(runs_ptr + query * k + i // C, mask=i < candidates, other=0) * C + i % C
    found = n < M
    number = tl.minimum(n, M - 1)
    if rows_ptr is not None:
        number = tl.load(rows_ptr + number)
    acc = tl.zeros((BLOCK_N,), tl.int32 if INTEGER else tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        q = tl.load(q_ptr + query * D + d, mask=d < D, other=0)
        x = load_vectors(x_ptr, number, start, D, False, BLOCK_D)
        if INTEGER:
            acc += tl.sum(q.to(tl.int32)[None, :] * x.to(tl.int32), axis=1)
        else:
            acc += tl.sum(wide(q)[None, :] * wide(x), axis=1)
    s = acc.to(tl.float32)
    if scale_ptr is not None:
        s *= tl.load(scale_ptr + number)
    if bias_ptr is not None:
        s += tl.load(bias_ptr + number)
    if mask_ptr is not None:
        found &= tl.load(mask_ptr + query * N + number) != 0
    s = tl.where(found & (s == s), s, float("-inf"))
    tl.store(out_ptr + query * candidates + i, s, mask=i < candidates)


def _pointers(problem: Problem) -> Problem:
    """The problem with its mask as bytes, which kernels read."""
    return problem._replace(mask=None if problem.mask is None else problem.mask.view(torch.uint8))


def chunk_scores(problem: Problem, C: int, out: torch.Tensor) -> None:
    """The best score of each `C` rows searched, float32 (Q, ceil(M / C))."""
    q, x, _, _, _, mask = problem
    (Q, D), N, M = q.shape, len(x), problem.searched
    b: Tile = tile_of(x, Q if mask is None else min(Q, 64))  # a mask takes registers for each score
    blocks, tiles = triton.cdiv(Q, b.M), triton.cdiv(M, b.N)
    each = max(min(FEWEST_TILES, tiles), triton.cdiv(tiles, max(1, WAVES * PROGRAMS // blocks)))
    _chunk_scores_kernel[(blocks * triton.cdiv(tiles, each),)](
        *_pointers(problem), out, Q, N, M, D, blocks, each,
        INTEGER=x.dtype == torch.int8, EXACT=D % b.D == 0, WHOLE=D <= b.D, C=C,
        BLOCK_M=b.M, BLOCK_N=b.N, BLOCK_D=b.D, num_warps=b.warps, num_stages=b.stages,
    )  # fmt: skip


def row_scores(problem: Problem, runs: torch.Tensor, C: int, out: torch.Tensor) -> None:
    """The scores of the rows in the chunks `runs` (Q, k) of each query, float32 (Q, k * C), in order."""
    q, x = problem.q, problem.x
    (Q, D), N, M, k = q.shape, len(x), problem.searched, runs.shape[1]
    BLOCK_D = min(triton.next_power_of_2(D), 128)
    BLOCK_N = 4096 // BLOCK_D
    _row_scores_kernel[(Q * triton.cdiv(k * C, BLOCK_N),)](
        *_pointers(problem), runs, out, N, M, D, k,
        INTEGER=x.dtype == torch.int8, C=C, BLOCK_N=BLOCK_N, BLOCK_D=BLOCK_D, num_warps=4,
    )  # fmt: skip
