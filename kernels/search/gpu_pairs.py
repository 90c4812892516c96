"""Distances of given pairs and sums of squares: bound by reading the vectors once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_core import load_vectors, wide

ELEMENTS = 1 << 11
"""Elements of vectors that a program takes at a time."""


@triton.jit
def _sums_of_squares_kernel(x_ptr, out_ptr, N, D, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    number = tl.minimum(n, N - 1)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, D, BLOCK_D):
        x = wide(load_vectors(x_ptr, number, start, D, False, BLOCK_D))
        total += tl.sum(x * x, axis=1)
    tl.store(out_ptr + n, total, mask=n < N)


@triton.jit
def _distances_kernel(
    q_ptr, x_ptr, scale_ptr, ids_ptr, out_ptr, pairs, k, D, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    number = tl.load(ids_ptr + pair, mask=pair < pairs, other=-1)
    found = number >= 0
    number = tl.maximum(number, 0)
    query = tl.minimum(pair, pairs - 1) // k
    total = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, D, BLOCK_D):
        x = wide(load_vectors(x_ptr, number, start, D, False, BLOCK_D))
        if scale_ptr is not None:
            x *= tl.load(scale_ptr + number)[:, None]
        difference = wide(load_vectors(q_ptr, query, start, D, False, BLOCK_D)) - x
        total += tl.sum(difference * difference, axis=1)
    tl.store(out_ptr + pair, tl.where(found, total, float("inf")), mask=pair < pairs)


def _blocks(D: int) -> dict[str, int]:
    BLOCK_D = min(triton.next_power_of_2(D), 128)
    return {"BLOCK_D": BLOCK_D, "BLOCK_N": ELEMENTS // BLOCK_D}


def sums_of_squares(x: torch.Tensor, out: torch.Tensor) -> None:
    """``sum(x[n] ** 2)`` of each row into the float32 `out`."""
    N, D = x.shape
    if N == 0:
        return
    blocks = _blocks(D)
    with on_device_of(x):
        _sums_of_squares_kernel[(triton.cdiv(N, blocks["BLOCK_N"]),)](x, out, N, D, **blocks, num_warps=4)


def distances(
    q: torch.Tensor, x: torch.Tensor, scale: torch.Tensor | None, ids: torch.Tensor, out: torch.Tensor
) -> None:
    """``sum((q[i] - scale[n] * x[n]) ** 2)`` for n = ids[i, j] into float32 `out` (Q, k); Inf where n is -1."""
    if ids.numel() == 0:
        return
    if len(x) == 0:
        out.fill_(float("inf"))
        return
    D = x.shape[1]
    blocks = _blocks(D)
    with on_device_of(x):
        _distances_kernel[(triton.cdiv(ids.numel(), blocks["BLOCK_N"]),)](
            q, x, scale, ids, out, ids.numel(), ids.shape[1], D, **blocks, num_warps=4
        )
