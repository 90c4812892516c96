"""Device functions and launch configurations that the Triton kernels share."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED: bool = triton.knobs.runtime.interpret

WIDE = tl.constexpr(INTERPRETED)
"""The interpreter's matrix product does not know bfloat16, and takes float32 for it."""

TILE = 1 << 13
"""Elements that a program moves at a time when it is not bound to a block of the caller's."""

FLAT = 1 << 16 if INTERPRETED else TILE
"""The same where the interpreter, whose cost is per operation and not per element, may take more."""

LINE = 64
"""Adjacent elements that make a coalesced access of every dtype."""

RESIDENT_BYTES = 1 << 16
"""Largest tile that a program keeps in registers between its reduction and its use."""

PROGRAMS = 4 if INTERPRETED else 512
"""Programs that keep the largest device busy; work in fewer, larger pieces is split up to here."""


def warps(elements: int, itemsize: int) -> int:
    """Warps of a program over a tile of `elements` (a power of two): 32 registers of it per NVIDIA thread."""
    return max(1, min(16, elements * max(4, itemsize) >> 12))


def on_device_of(x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the GPU of `x` current; a no-op for CPU tensors, which the interpreter takes."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def limits() -> tuple[int, bool, bool]:
    """Bytes that a program may share, the least of NVIDIA's where not known; whether it is Blackwell; whether AMD."""
    if INTERPRETED:
        return 1 << 18, False, False
    target = triton.runtime.driver.active.get_current_target()
    if target.backend != "cuda":
        return 65536, False, True
    known = {80: 166912, 87: 166912, 90: 232448, 100: 232448, 103: 232448}
    return known.get(target.arch, 101376), target.arch >= 100, False


@triton.jit
def float32_from_bits(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def bits_from_float32(x):
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float32_constant(BITS: tl.constexpr):
    return tl.full((), BITS, tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def rounded(x, DTYPE: tl.constexpr):
    """float32 `x` in `DTYPE`, rounded to nearest even: the interpreter's own conversion to bfloat16 cuts off."""
    if tl.bfloat16 == DTYPE and WIDE:
        bits = bits_from_float32(x)
        bits = tl.where(x == x, tl.add(bits, 0x7FFF + ((bits >> 16) & 1), sanitize_overflow=False), 0x7FC00000)
        x = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        x = x.to(DTYPE)
    return x


@triton.jit
def e4m3fn_to_float16(code):
    """Values of e4m3fn codes: the fields of the code as those of a float16, times the ratio of their biases."""
    c = code.to(tl.uint16)
    value = (((c & 0x80) << 8) | ((c & 0x7F) << 7)).to(tl.float16, bitcast=True) * 256.0
    return tl.where((c & 0x7F) == 0x7F, float("nan"), value)


@triton.jit
def random_word(seed, index):
    """Word ``index % 4`` of the Philox4x32-10 block with counter ``index // 4`` (int64 tensor)."""
    w0, w1, w2, w3 = _philox(seed, index >> 2)
    word = (index & 3).to(tl.int32)
    return tl.where(word < 2, tl.where(word == 0, w0, w1), tl.where(word == 2, w2, w3))


@triton.jit
def random_words(seed, block):
    """The words of the Philox4x32-10 blocks `block` (int64), in order: the last axis grows fourfold."""
    w0, w1, w2, w3 = _philox(seed, block)
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))


@triton.jit
def _philox(seed, block):
    low = block.to(tl.uint32)
    high = (block >> 32).to(tl.uint32)
    return tl.philox(seed, low, high, low * 0, low * 0)
