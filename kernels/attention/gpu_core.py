"""What the Triton kernels of attention share: how they take their arguments, tiles, logits, and the running softmax.

Exponentials are powers of two: logits are multiplied by log2(e) where their maximum is subtracted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import WIDE, e4m3fn_to_float16, limits
from .problem import Scoring

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
FAR = 1 << 30
"""Keys of a window without limit; sequences are shorter."""


class Rows(NamedTuple):
    """Rows of memory, and the strides of batch (or page), head and row."""

    ptr: Any
    batch: Any
    head: Any
    row: Any


class Scores(NamedTuple):
    """Rows of which every element has a stride."""

    ptr: Any
    batch: Any
    head: Any
    row: Any
    column: Any


class Rules(NamedTuple):
    """A `Scoring` as kernels take it: None for what is absent, `FAR` for a window without limit."""

    scale: Any
    softcap: Any
    left: Any
    right: Any
    upper_left: Any
    slopes: Any
    bias: Any
    mask: Any
    sinks: Any


class Pages(NamedTuple):
    """Where the pages of a sequence are in the pools, and the scales of the pools or None."""

    table: Any
    stride: Any
    size: Any
    k_scale: Any
    v_scale: Any


def rows_of(x: torch.Tensor | None) -> Rows | None:
    return None if x is None else Rows(x, *x.stride()[:3])


def rules_of(scoring: Scoring) -> Rules:
    mask = None if scoring.mask is None else scoring.mask.view(torch.uint8)
    return Rules(
        float(scoring.scale),
        float(scoring.softcap) or None,
        scoring.left if 0 <= scoring.left < FAR else FAR,
        scoring.right if 0 <= scoring.right < FAR else FAR,
        int(scoring.upper_left),
        scoring.slopes,
        None if scoring.bias is None else Scores(scoring.bias, *scoring.bias.stride()),
        None if mask is None else Scores(mask, *mask.stride()),
        scoring.sinks,
    )


def plain(scoring: Scoring) -> bool:
    """Whether logits are products times a positive number, which is then part of the exponential's multiply-add."""
    return scoring.scale > 1e-30 and not scoring.softcap and scoring.slopes is None and scoring.bias is None


class Tile(NamedTuple):
    """Rows of queries (M) and keys (N) of a program's products; head sizes in two parts of powers of two."""

    M: int
    N: int
    D: int
    tail: int
    V: int
    warps: int
    stages: int


def tile_of(q: torch.Tensor, k: torch.Tensor, Dv: int, rows: int, tables: bool) -> Tile:
    """The tile for `rows` rows of queries, with `tables` of a bias or mask, of which each element takes an address.

    16 bits: tensor cores run at their rate from 64 rows and 4 warps, or 128 and 8; the sums of 128 x 128 or
    64 x 256 then leave a thread three quarters of its registers. Few rows are bound by reading keys, 64 of which are
    32 KiB of K and V at D = 128: two tiles in flight in each of two programs hide the memory's latency. float32,
    which no tensor core multiplies exactly, unrolls its products into multiply-adds: small tiles. On Blackwell, whose
    sums are in memory of their own and come to registers whole, tiles of as many keys spill.
    """
    D, tail = _parts(q.shape[-1])
    V, size = max(16, triton.next_power_of_2(Dv)), q.element_size()
    width = max(D + tail, V)
    if size == 4:
        M, N = (32, 16) if width <= 128 else (16, 16)
    else:
        M, N = (64 if tables else 128, 64) if width <= 128 else (64, 32) if width <= 256 else (32, 32)
    M = min(M, max(16, triton.next_power_of_2(rows)))
    warps = 4 if M == 16 and width <= 256 and size < 4 else 8
    available, blackwell, hip = limits()
    stages = 2 if hip else 3
    N = max(16, N // 2) if blackwell else N

    def shared(stages: int) -> int:
        """Bytes of queries and weights, and of keys and values in flight: AMD's are in registers at first."""
        stored = k.element_size()
        each = max(1, stages - hip) * stored + (size if stored != size else 0)
        return M * (D + tail + N) * size + N * (D + tail + V) * each

    while stages > 2 and shared(stages) > available:
        stages -= 1
    while N > 16 and shared(stages) > available:
        N //= 2
    while M > 16 and shared(stages) > available:
        M //= 2
    return Tile(M, N, D, tail, V, warps, stages)


def _parts(D: int) -> tuple[int, int]:
    """D as one power of two, or as the sum of two where that wastes less; at least 16 each."""
    whole = max(16, triton.next_power_of_2(D))
    tail = max(16, triton.next_power_of_2(D - whole // 2))
    return (whole, 0) if whole // 2 < 16 or whole // 2 + tail >= whole else (whole // 2, tail)


@triton.jit
def operand(x, dtype: tl.constexpr):
    """What the matrix product takes for `x`: values of `dtype`, of codes those that they stand for without a scale."""
    if x.dtype == tl.uint8:
        x = e4m3fn_to_float16(x)
    if x.dtype != dtype:
        x = x.to(tl.float32).to(dtype)
    if dtype == tl.bfloat16 and WIDE:
        x = x.to(tl.float32)
    return x


@triton.jit
def load_rows(places, inside, START: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr):
    """Elements START : START + BLOCK of rows of D; zeros beyond, and, where `MASKED`, of rows that are not `inside`."""
    d = START + tl.arange(0, BLOCK)
    if START + BLOCK <= D:
        if MASKED:
            x = tl.load(places[:, None] + d[None, :], mask=inside[:, None], other=0)
        else:
            x = tl.load(places[:, None] + d[None, :])
    elif MASKED:
        x = tl.load(places[:, None] + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0)
    else:
        x = tl.load(places[:, None] + d[None, :], mask=(d < D)[None, :], other=0)
    return x


@triton.jit
def tanh(x):
    """Off by a few roundings of itself: a series near 0, where the exponentials cancel."""
    y = x * x
    series = x * (1 - y * (1 / 3 - y * (2 / 15 - y * (17 / 315 - y * (62 / 2835)))))
    return tl.where(tl.abs(x) < 0.25, series, 1 - 2 / (tl.exp2(x * (2 * LOG2E)) + 1))


@triton.jit
def logits(products, rules, n, head, i, present, j, ahead, inside):
    """Logits of rows (`head`, query `i` of sequence `n`) and keys `j`, `ahead` of the query's position."""
    s = products * rules.scale
    if rules.softcap is not None:
        s = rules.softcap * tanh(s / rules.softcap)
    if rules.slopes is not None:
        s -= tl.load(rules.slopes + head)[:, None] * tl.abs(ahead).to(tl.float32)
    if rules.bias is not None:
        there = present[:, None] & inside[None, :]
        s += tl.load(element(rules.bias, n, head, i, j), mask=there, other=0)
    return s


@triton.jit
def element(x, n, head, i, j):
    row = x.ptr + n.to(tl.int64) * x.batch + head.to(tl.int64) * x.head + i.to(tl.int64) * x.row
    return row[:, None] + j.to(tl.int64)[None, :] * x.column


@triton.jit
def is_allowed(rules, n, head, i, present, j, ahead, inside):
    allowed = inside[None, :] & (ahead >= -rules.left) & (ahead <= rules.right)
    if rules.mask is not None:
        there = present[:, None] & inside[None, :]
        allowed &= tl.load(element(rules.mask, n, head, i, j), mask=there, other=0) != 0
    return allowed


@triton.jit
def soften(s, factor, m, total):
    """One step of the softmax of logits ``s * factor`` in powers of two, of running maximum `m` and sum `total`.

    Weights, what to multiply earlier sums by, and the new maximum and sum. NaN is not a maximum, but reaches the sum;
    so does the weight of +Inf, which is NaN.
    """
    highest = tl.maximum(m, tl.max(s, axis=1) * factor)
    base = tl.where(highest == float("-inf"), 0.0, highest)
    p = tl.exp2(s * factor - base[:, None])
    decay = tl.exp2(m - base)
    return p, decay, highest, total * decay + tl.sum(p, axis=1)
