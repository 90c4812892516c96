"""How the programs of a launch share a matrix of blocks, and the largest magnitude of each block."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import FLAT, LINE, PROGRAMS, RESIDENT_BYTES, TILE, on_device_of, warps
from .gpu_core import counted_magnitude, from_magnitude

UNSPECIALIZED = ["M", "bm", "blocks_down", "blocks_across", "tiles", "splits"]
"""Sizes that need no kernel of their own when they are 1 or multiples of 16."""


class Blocks(NamedTuple):
    """x (batch, M, N) in blocks of (bm, bn), tile by tile.

    A tile is (BM, G, BN): BM rows of G neighbouring blocks, BN columns of each. A block that needs
    several `tiles` has `splits` programs, which take every `splits`-th one.
    """

    M: int
    N: int
    bm: int
    bn: int
    blocks_down: int
    blocks_across: int
    groups: int
    tiles: int
    splits: int
    BM: int
    G: int
    BN: int

    @property
    def programs(self) -> int:
        return self.groups * self.splits

    @property
    def elements(self) -> int:
        return self.BM * self.G * self.BN

    @property
    def quads(self) -> bool:
        """Whether every four neighbours in a tile share a Philox block."""
        if self.bn == 1:
            return self.N % 4 == 0 and self.G % 4 == 0
        aligned = self.N % 4 == 0 and self.bn % 4 == 0
        return self.BN % 4 == 0 and (aligned or self.groups == self.G == 1)

    def split(self, splits: int) -> Blocks:
        return self._replace(splits=splits)


def divide(shape: tuple[int, ...], block: tuple[int, int], resident: int = 0) -> Blocks:
    """Tiles for the blocks of a non-empty (B, M, N) array, in one piece up to `resident` elements."""
    B, M, N = shape
    bm, bn = min(block[0], M), block[1]
    if bn >= N:
        M, N, bm, bn = 1, M * N, 1, bm * N
    if M % bm == 0:
        B, M = 1, B * M
    if bm == 1 and N % bn == 0:
        M, N = 1, M * N
    blocks_down, blocks_across = triton.cdiv(M, bm), triton.cdiv(N, bn)

    tall, wide, many = (triton.next_power_of_2(n) for n in (bm, bn, blocks_across))
    BN = min(wide, TILE)
    G = min(many, max(1, LINE // BN))
    BM = min(tall, max(1, TILE // (BN * G)))
    if tall * G * wide <= resident:
        BM, BN = tall, wide
    G = max(G, min(many, FLAT // (BM * BN)))

    tiles = triton.cdiv(bm, BM) * triton.cdiv(bn, BN)
    groups = B * blocks_down * triton.cdiv(blocks_across, G)
    splits = max(1, min(tiles, PROGRAMS // groups))
    return Blocks(M, N, bm, bn, blocks_down, blocks_across, groups, tiles, splits, BM, G, BN)


@triton.jit
def locate(M, N, bm, bn, blocks_down, blocks_across, splits, G: tl.constexpr):
    """A program's first row, its number of rows, its first block in that row of blocks, its split,
    and the places (G,) of its scales with their mask."""
    program = tl.program_id(0).to(tl.int64)
    split = program % splits
    group = program // splits
    groups_across = tl.cdiv(blocks_across, G)
    block = (group % groups_across) * G
    down = group // groups_across
    row = (down // blocks_down) * M + (down % blocks_down) * bm
    rows = tl.minimum(M - (down % blocks_down) * bm, bm)
    lane = block + tl.arange(0, G)
    return row, rows, block, split, down * blocks_across + lane, lane < blocks_across


@triton.jit
def tile(t, row, rows, block, N, bm, bn, BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr):
    """Tile `t` of a program: the index of its first element, and the mask of its elements."""
    tiles_across = tl.cdiv(bn, BN)
    top = (t // tiles_across) * BM
    left = (t % tiles_across) * BN
    r = tl.arange(0, BM)[:, None, None]
    g = tl.arange(0, G)[None, :, None]
    c = tl.arange(0, BN)[None, None, :]
    height = tl.minimum(rows - top, BM).to(tl.int32)
    width = tl.minimum(bn - left, BN).to(tl.int32)
    edge = tl.minimum(N - block * bn - left, 1 << 30).to(tl.int32)
    return (row + top) * N + block * bn + left, (r < height) & (c < width) & (g * bn + c < edge)


@triton.jit
def offsets(N, bn, BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr, STEP: tl.constexpr):
    """Indices of every `STEP`-th element of a tile, relative to its first."""
    r = tl.arange(0, BM)[:, None, None].to(tl.int64)
    g = tl.arange(0, G)[None, :, None]
    c = tl.arange(0, BN // STEP)[None, None, :]
    return r * N + (g * bn + c * STEP)


@triton.jit
def block_reduce(m):
    """(BM, G, BN) -> (G,) maxima."""
    return tl.max(tl.max(m, axis=2), axis=0)


@triton.jit
def block_magnitude(
    x_ptr, split, splits, tiles, row, rows, block, N, bm, bn,
    IGNORED: tl.constexpr, BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Largest magnitudes (G,) over every `splits`-th tile."""
    inner = offsets(N, bn, BM, G, BN, 1)
    if x_ptr.dtype.element_ty == tl.float64:
        largest = tl.zeros((BM, G, BN), tl.uint64)
    else:
        largest = tl.zeros((BM, G, BN), tl.uint32)
    for t in range(split, tiles, splits):
        start, mask = tile(t, row, rows, block, N, bm, bn, BM, G, BN)
        x = tl.load(x_ptr + start + inner, mask=mask, other=0.0)
        largest = tl.maximum(largest, counted_magnitude(x, IGNORED))
    return block_reduce(largest)


@triton.jit(do_not_specialize=["total", *UNSPECIALIZED])
def _amax_kernel(
    x_ptr, out_ptr, M, N, bm, bn, blocks_down, blocks_across, tiles, splits, total,
    IGNORED: tl.constexpr, BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    row, rows, block, split, place, valid = locate(M, N, bm, bn, blocks_down, blocks_across, splits, G)
    largest = block_magnitude(x_ptr, split, splits, tiles, row, rows, block, N, bm, bn, IGNORED, BM, G, BN)
    tl.store(out_ptr + split * total + place, from_magnitude(largest, out_ptr.dtype.element_ty), mask=valid)


def block_amax(x: torch.Tensor, out: torch.Tensor, b: Blocks, ignored: str) -> None:
    """Largest magnitude of each block into `out` (b.splits, blocks) of x's dtype."""
    _amax_kernel[(b.programs,)](
        x, out, b.M, b.N, b.bm, b.bn, b.blocks_down, b.blocks_across, b.tiles, b.splits, out.numel() // b.splits,
        IGNORED=ignored, BM=b.BM, G=b.G, BN=b.BN, num_warps=warps(b.elements, x.element_size()),
    )  # fmt: skip


def amax(x: torch.Tensor, out: torch.Tensor) -> None:
    """Largest magnitude over the middle axis of `x` (outer, n, inner) into `out` (outer, inner)."""
    outer, n, inner = x.shape
    if x.numel() == 0:
        out.zero_()
        return
    b = divide((1, outer, n), (1, n)) if inner == 1 else divide((outer, n, inner), (n, 1))
    with on_device_of(x):
        if b.splits == 1:
            block_amax(x, out, b, ignored="none")
            return
        partial = x.new_empty(b.splits, out.numel())
        block_amax(x, partial, b, ignored="none")
        b = divide((1, *partial.shape), (b.splits, 1)).split(1)
        block_amax(partial, out, b, ignored="none")


def resident_elements(x: torch.Tensor) -> int:
    return RESIDENT_BYTES // max(4, x.element_size())
