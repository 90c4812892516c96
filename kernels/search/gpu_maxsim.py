"""MaxSim: a program per document and group of queries, the maxima in registers.

Work: 2 L D operations per token of D elements; at L = 32 float16, 32 operations per byte, so reading
the tokens is the limit. Queries of few tokens share a program, and the programs of a document are
neighbours: its tokens come from memory once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_core import Tile, load_vectors, products, tile_of


@triton.jit
def _maxsim_kernel(
    q_ptr, lengths_ptr, x_ptr, rows_ptr, offsets_ptr, scores_ptr, argmax_ptr, B, L, documents, D, groups,
    INTEGER: tl.constexpr, EXACT: tl.constexpr, WHOLE: tl.constexpr, TOKENS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Scores of a document for BLOCK_M / TOKENS queries, TOKENS query tokens of each at a time."""
    QUERIES: tl.constexpr = BLOCK_M // TOKENS
    program = tl.program_id(0).to(tl.int64)
    document = program // groups
    lane = tl.arange(0, BLOCK_M)
    b = (program % groups) * QUERIES + lane // TOKENS
    length = tl.load(lengths_ptr + b, mask=b < B, other=0)
    first = tl.load(offsets_ptr + document)
    last = tl.load(offsets_ptr + document + 1)
    total = tl.zeros((QUERIES,), tl.float32)
    for start in range(0, L, TOKENS):
        token = start + lane % TOKENS
        vector = tl.minimum(b, B - 1) * L + tl.minimum(token, L - 1)
        q = load_vectors(q_ptr, vector, 0, D, EXACT, BLOCK_D) if WHOLE else None
        best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        where = tl.zeros((BLOCK_M,), tl.int64) + first
        for n in range(first, last, BLOCK_N):
            j = n + tl.arange(0, BLOCK_N)
            number = tl.minimum(j, last - 1)
            if rows_ptr is not None:
                number = tl.load(rows_ptr + number)
            s = products(
                q, q_ptr, vector, x_ptr, number, D, INTEGER, EXACT, WHOLE, BLOCK_M, BLOCK_N, BLOCK_D
            )  # fmt: skip
            s = tl.where((j < last)[None, :] & (s == s), s, float("-inf"))
            largest = tl.max(s, axis=1)
            if argmax_ptr is not None:
                place = tl.where(s == largest[:, None], tl.arange(0, BLOCK_N)[None, :], BLOCK_N)
                where = tl.where(largest > best, n + tl.min(place, axis=1), where)
            best = tl.maximum(best, largest)
        counted = token < length
        total += tl.sum(tl.reshape(tl.where(counted, best, 0.0), (QUERIES, TOKENS)), axis=1)
        if argmax_ptr is not None:
            attained = counted & (where < last)
            if rows_ptr is not None:
                where = tl.load(rows_ptr + where, mask=attained, other=0)
            slot = (b * documents + document) * L + token
            tl.store(argmax_ptr + slot, tl.where(attained, where, -1), mask=(b < B) & (token < L))
    query = (program % groups) * QUERIES + tl.arange(0, QUERIES)
    tl.store(scores_ptr + query * documents + document, total, mask=query < B)


def maxsim(
    q: torch.Tensor,
    lengths: torch.Tensor,
    x: torch.Tensor,
    rows: torch.Tensor | None,
    offsets: torch.Tensor,
    scores: torch.Tensor,
    argmax: torch.Tensor | None,
) -> None:
    """Scores (B, documents) of the queries `q` (B, L, D), of which the first `lengths[b]` tokens count.

    `offsets` (documents + 1,) cuts the tokens `x` (T, D), or `rows` of them, into documents;
    `argmax`, if not None, is int64 (B, documents, L); tokens beyond a length have -1 there.
    """
    (B, L, D), documents = q.shape, len(offsets) - 1
    if L == 0:
        scores.zero_()
    if scores.numel() == 0 or L == 0:
        return
    tokens = min(triton.next_power_of_2(L), 64)
    t: Tile = tile_of(x, tokens * B)
    groups = triton.cdiv(B, t.M // min(tokens, t.M))
    with on_device_of(x):
        _maxsim_kernel[(documents * groups,)](
            q, lengths, x, rows, offsets, scores, argmax, B, L, documents, D, groups,
            INTEGER=x.dtype == torch.int8, EXACT=D % t.D == 0, WHOLE=D <= t.D,
            TOKENS=tokens, BLOCK_M=t.M, BLOCK_N=min(t.N, 64), BLOCK_D=t.D, num_warps=4, num_stages=t.stages,
        )  # fmt: skip
