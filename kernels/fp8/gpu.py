"""Triton launchers, with the names and signatures of `reference`, for contiguous torch tensors.

Codes are uint8; a scale is float32, or uint8 for E8M0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import FLAT, on_device_of, random_words, warps
from .formats import Format, decoding, encoding
from .gpu_blocks import amax
from .gpu_core import convert, decode_bits, encode_bits, float32_bits
from .gpu_quantize import dequantize, quantize, quantize_dequantize

__all__ = ["amax", "decode", "dequantize", "encode", "quantize", "quantize_dequantize"]


@triton.jit
def _encode_block(
    x_ptr, out_ptr, start, mask, seed, e: tl.constexpr, ROUNDING: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    i = start + tl.arange(0, BLOCK)
    bits = float32_bits(tl.load(x_ptr + i, mask=mask), ROUNDING == "nearest")
    if ROUNDING == "stochastic":
        word = random_words(seed, start // 4 + tl.arange(0, BLOCK // 4))
    else:
        word = 0
    tl.store(out_ptr + i, encode_bits(bits, word, e, ROUNDING), mask=mask)


@triton.jit(do_not_specialize=["n", "seed"])
def _encode_kernel(
    x_ptr, out_ptr, n, seed: tl.uint64, e: tl.constexpr, ROUNDING: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if start + BLOCK <= n:
        _encode_block(x_ptr, out_ptr, start, None, seed, e, ROUNDING, BLOCK)
    else:
        _encode_block(x_ptr, out_ptr, start, tl.arange(0, BLOCK) < n - start, seed, e, ROUNDING, BLOCK)


@triton.jit
def _decode_block(code_ptr, out_ptr, i, mask, d: tl.constexpr):
    value = decode_bits(tl.load(code_ptr + i, mask=mask), d)
    tl.store(out_ptr + i, convert(value, out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["n"])
def _decode_kernel(code_ptr, out_ptr, n, d: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = start + tl.arange(0, BLOCK)
    if start + BLOCK <= n:
        _decode_block(code_ptr, out_ptr, i, None, d)
    else:
        _decode_block(code_ptr, out_ptr, i, i < n, d)


def encode(x: torch.Tensor, out: torch.Tensor, fmt: Format, overflow: str, rounding: str, seed: int | None) -> None:
    """Codes of `x` into the uint8 tensor `out` of the same shape."""
    n = x.numel()
    if n == 0:
        return
    with on_device_of(x):
        _encode_kernel[(triton.cdiv(n, FLAT),)](
            x, out, n, seed or 0, e=encoding(fmt, overflow, rounding), ROUNDING=rounding,
            BLOCK=FLAT, num_warps=warps(FLAT, x.element_size()),
        )  # fmt: skip


def decode(codes: torch.Tensor, out: torch.Tensor, fmt: Format) -> None:
    """Values of the uint8 `codes` into the floating-point tensor `out` of the same shape."""
    n = codes.numel()
    if n == 0:
        return
    with on_device_of(codes):
        _decode_kernel[(triton.cdiv(n, FLAT),)](
            codes, out, n, d=decoding(fmt), BLOCK=FLAT, num_warps=warps(FLAT, out.element_size())
        )  # fmt: skip
