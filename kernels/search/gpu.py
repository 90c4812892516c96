"""Triton launchers, with the names and signatures of `reference`, for contiguous torch tensors.

Work of `search`: 2 Q N D operations of the matrix product, on an H200 2.6 ms for 10 k queries of 1 M
bfloat16 vectors of 128 at its 989 TFLOP/s; the chunk maxima that follow each score (about 1.5
operations, 1.5 ms) run beside those of other programs. One query reads the database once, N D bytes
per byte of an element.
"""

from __future__ import annotations

import torch
import triton

from .._triton import on_device_of
from .._triton_order import order_of, put_in_order, raw
from .._triton_select import best
from .gpu_maxsim import maxsim
from .gpu_pairs import distances, sums_of_squares
from .gpu_scores import chunk_scores, row_scores
from .problem import Problem

__all__ = ["distances", "maxsim", "search", "sums_of_squares"]

CHUNKS = (64, 32, 16, 8)
"""Rows per chunk; every tile has whole chunks."""

BATCH = 128
"""Queries that a tile of the matrix product takes; less waste its rate."""


def search(
    q: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    rows: torch.Tensor | None,
    mask: torch.Tensor | None,
    workspace: int,
    scores: torch.Tensor,
    ids: torch.Tensor,
) -> None:
    """The best rows of `x` (N, D) for each of `q` (Q, D), in order: float32 `scores` and int64 `ids`, both (Q, k).

    `scale` and `bias` (None: ones, zeros) are float32 (N,), `rows` int64 (M,) and `mask` bool (Q, N).
    At most about `workspace` bytes of memory are used beside the arguments.
    """
    problem = Problem(q, x, scale, bias, rows, mask)
    M = problem.searched
    Q, k = scores.shape
    found = min(k, M)
    if found < k:
        scores.fill_(float("-inf"))
        ids.fill_(-1)
    if Q == 0 or found == 0:
        return
    C, batch = plan(Q, M, found, x.shape[1] * x.element_size(), workspace)
    with on_device_of(x):
        for first in range(0, Q, batch):
            some = slice(first, first + batch)
            best_scores, places = _search(problem.part(some), C, found)
            numbers = places if rows is None else rows[places]
            numbers.masked_fill_(best_scores == float("-inf"), -1)
            scores[some, :found] = best_scores
            ids[some, :found] = numbers


def plan(Q: int, M: int, k: int, vector_bytes: int, workspace: int) -> tuple[int, int]:
    """Rows per chunk (1: every score is kept) and queries per batch.

    Chunks cost 8 bytes each, written and read; k of them are read again as vectors. They grow where
    the workspace would hold fewer queries than a tile takes.
    """
    balanced = (8 * M / (k * vector_bytes)) ** 0.5
    sizes = [C for C in CHUNKS if 4 * k * C <= M]
    C = next((C for C in sizes if balanced >= 0.7 * C), 1)
    for larger in reversed(sizes):
        if workspace < min(Q, BATCH) * _bytes_per_query(M, k, C):
            C = max(C, larger)
    return C, int(max(1, min(Q, workspace // _bytes_per_query(M, k, C))))


def _bytes_per_query(M: int, k: int, C: int) -> int:
    return 5 * triton.cdiv(M, C) + (4 * k * C if C > 1 else 0) + 64 * k


def _search(problem: Problem, C: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best scores of each query, in order, and which of the rows searched have them."""
    q, M = problem.q, problem.searched
    Q = len(q)
    o = order_of(torch.float32, True)
    chosen, ordered = (torch.empty(Q, k, dtype=torch.float32, device=q.device) for _ in range(2))
    places, numbers = (torch.empty(Q, k, dtype=torch.int64, device=q.device) for _ in range(2))
    maxima = torch.empty(Q, triton.cdiv(M, C), dtype=torch.float32, device=q.device)
    chunk_scores(problem, C, maxima)
    if C == 1:
        best(maxima, k, o, raw(chosen), places)
    else:
        runs = torch.empty(Q, k, dtype=torch.int64, device=q.device)
        best(maxima, k, o, None, runs)
        candidates = torch.empty(Q, k * C, dtype=torch.float32, device=q.device)
        row_scores(problem, runs, C, candidates)
        best(candidates, k, o, raw(chosen), places)
        places = runs.gather(1, places // C) * C + places % C
    put_in_order(raw(chosen), places, o, raw(ordered), numbers)
    return ordered, numbers
