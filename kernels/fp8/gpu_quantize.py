"""Scaled conversion: quantize, dequantize and both at once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import bits_from_float32, on_device_of, random_word, random_words, warps
from .formats import Recipe, decoding, encoding
from .gpu_blocks import (
    UNSPECIALIZED,
    block_amax,
    block_magnitude,
    block_reduce,
    divide,
    locate,
    offsets,
    resident_elements,
    tile,
)
from .gpu_core import (
    block_scale,
    convert,
    counted_magnitude,
    decode_bits,
    encode_bits,
    float32_bits,
    scale_rule,
    scale_value,
)


@triton.jit
def _scaled_bits(x, scale, reciprocal, STICKY: tl.constexpr):
    """float32 bits of ``x / scale``; a `reciprocal` is exact."""
    if x.dtype == tl.float64:
        y = x / scale.to(tl.float64) if reciprocal is None else x * reciprocal.to(tl.float64)
        bits = float32_bits(y, STICKY)
    else:
        wide = float32_bits(x, False).to(tl.float32, bitcast=True)
        y = tl.div_rn(wide, scale) if reciprocal is None else wide * reciprocal
        bits = bits_from_float32(y)
    return bits


@triton.jit
def _scaled_value(code, scale, DTYPE: tl.constexpr, d: tl.constexpr):
    """``decode(code) * scale`` as `DTYPE`."""
    value = decode_bits(code, d)
    if tl.float64 == DTYPE:
        product = value.to(tl.float64) * scale.to(tl.float64)
    else:
        product = value * scale
    return convert(product, DTYPE)


@triton.jit
def _write_tile(
    x, start, mask, out_ptr, scale, reciprocal, seed, N, bn,
    e: tl.constexpr, d: tl.constexpr, ROUNDING: tl.constexpr, QUADS: tl.constexpr,
    BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Encode ``x / scale`` into `out_ptr`: codes, or (not uint8) their values times `scale`."""
    inner = offsets(N, bn, BM, G, BN, 1)
    if ROUNDING != "stochastic":
        word = 0
    elif QUADS:
        quads = offsets(N, 4, BM, G // 4, 1, 1) if BN == 1 else offsets(N, bn, BM, G, BN, 4)
        word = tl.reshape(random_words(seed, (start + quads) >> 2), (BM, G, BN))
    else:
        word = random_word(seed, start + inner)
    result = encode_bits(_scaled_bits(x, scale, reciprocal, ROUNDING == "nearest"), word, e, ROUNDING)
    if out_ptr.dtype.element_ty != tl.uint8:
        result = _scaled_value(result, scale, out_ptr.dtype.element_ty, d)
    tl.store(out_ptr + start + inner, result, mask=mask)


@triton.jit(do_not_specialize=["partials", "total", "seed", *UNSPECIALIZED])
def _quantize_kernel(
    x_ptr, out_ptr, scale_ptr, partial_ptr, partials, total, seed: tl.uint64,
    M, N, bm, bn, blocks_down, blocks_across, tiles, splits,
    SOURCE: tl.constexpr, IGNORED: tl.constexpr, PARTIALS: tl.constexpr, POWER_OF_TWO: tl.constexpr, rule: tl.constexpr,
    e: tl.constexpr, d: tl.constexpr, ROUNDING: tl.constexpr, QUADS: tl.constexpr,
    BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """`SOURCE` is where a scale comes from: `given`, the program's only `tile`, its `block` read once
    more, or the `partial` maxima (partials, total) of an earlier launch."""
    row, rows, block, split, place, valid = locate(M, N, bm, bn, blocks_down, blocks_across, splits, G)
    if SOURCE == "given":
        stored = tl.load(scale_ptr + place, mask=valid, other=1)
    else:
        if SOURCE == "tile":
            start, mask = tile(0, row, rows, block, N, bm, bn, BM, G, BN)
            x = tl.load(x_ptr + start + offsets(N, bn, BM, G, BN, 1), mask=mask, other=0.0)
            largest = block_reduce(counted_magnitude(x, IGNORED))
        elif SOURCE == "block":
            largest = block_magnitude(x_ptr, 0, 1, tiles, row, rows, block, N, bm, bn, IGNORED, BM, G, BN)
        else:
            p = tl.arange(0, PARTIALS)[:, None]
            found = (p < partials) & valid[None, :]
            partial = tl.load(partial_ptr + p * total + place[None, :], mask=found, other=0.0)
            largest = tl.max(counted_magnitude(partial, IGNORED), axis=0)
        stored = block_scale(largest, rule, scale_ptr.dtype.element_ty)
        if split == 0:
            tl.store(scale_ptr + place, stored, mask=valid)

    scale = scale_value(stored)[None, :, None]
    reciprocal = tl.div_rn(tl.full((1, G, 1), 1.0, tl.float32), scale) if POWER_OF_TWO else None
    if SOURCE == "tile":
        _write_tile(x, start, mask, out_ptr, scale, reciprocal, seed, N, bn, e, d, ROUNDING, QUADS, BM, G, BN)
    else:
        for t in range(split, tiles, splits):
            start, mask = tile(t, row, rows, block, N, bm, bn, BM, G, BN)
            x = tl.load(x_ptr + start + offsets(N, bn, BM, G, BN, 1), mask=mask, other=0.0)
            _write_tile(x, start, mask, out_ptr, scale, reciprocal, seed, N, bn, e, d, ROUNDING, QUADS, BM, G, BN)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _dequantize_kernel(
    code_ptr, scale_ptr, out_ptr, M, N, bm, bn, blocks_down, blocks_across, tiles, splits,
    d: tl.constexpr, BM: tl.constexpr, G: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    row, rows, block, split, place, valid = locate(M, N, bm, bn, blocks_down, blocks_across, splits, G)
    scale = scale_value(tl.load(scale_ptr + place, mask=valid, other=1))[None, :, None]
    inner = offsets(N, bn, BM, G, BN, 1)
    for t in range(split, tiles, splits):
        start, mask = tile(t, row, rows, block, N, bm, bn, BM, G, BN)
        code = tl.load(code_ptr + start + inner, mask=mask, other=0)
        tl.store(out_ptr + start + inner, _scaled_value(code, scale, out_ptr.dtype.element_ty, d), mask=mask)


def quantize(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, recipe: Recipe, dynamic: bool) -> None:
    """Codes of `x` (B, M, N), a block of `recipe.block` elements of (M, N) per entry of `scale`.

    `scale` (B, ceil(M / bm), ceil(N / bn)), float32 or uint8 (E8M0), is computed if `dynamic`.
    """
    _quantize(x, codes.view(torch.uint8), scale, recipe, dynamic)


def quantize_dequantize(x: torch.Tensor, out: torch.Tensor, scale: torch.Tensor, recipe: Recipe, dynamic: bool) -> None:
    """`dequantize` of `quantize`, in one kernel."""
    _quantize(x, out, scale, recipe, dynamic)


def _quantize(x: torch.Tensor, out: torch.Tensor, scale: torch.Tensor, recipe: Recipe, dynamic: bool) -> None:
    """Codes, or (not uint8) their values times the scales, into `out`."""
    if x.numel() == 0:
        if dynamic:
            scale.fill_(127 if scale.dtype == torch.uint8 else 1)
        return
    b = divide(x.shape, recipe.block, resident_elements(x) if dynamic else 0)
    ignored = "inf" if recipe.fmt.integer else "inf and nan"
    partial, partials = x, 0
    with on_device_of(x):
        if not dynamic:
            source, b = "given", b.split(b.tiles)
        elif b.tiles == 1:
            source = "tile"
        elif b.splits == 1:
            source = "block"
        else:
            source, partials = "partial", b.splits
            partial = x.new_empty(partials, scale.numel())
            block_amax(x, partial, b, ignored)
            b = b.split(b.tiles)
        _quantize_kernel[(b.programs,)](
            x, out, scale, partial, partials, scale.numel(), recipe.seed or 0,
            b.M, b.N, b.bm, b.bn, b.blocks_down, b.blocks_across, b.tiles, b.splits,
            SOURCE=source,
            IGNORED=ignored,
            PARTIALS=triton.next_power_of_2(max(1, partials)),
            POWER_OF_TWO=scale.dtype == torch.uint8 or (dynamic and recipe.scale_format != "fp32"),
            rule=scale_rule(recipe) if dynamic else None,
            e=encoding(recipe.fmt, recipe.overflow, recipe.rounding), d=decoding(recipe.fmt),
            ROUNDING=recipe.rounding, QUADS=b.quads,
            BM=b.BM, G=b.G, BN=b.BN, num_warps=warps(b.elements, x.element_size()),
        )  # fmt: skip


def dequantize(codes: torch.Tensor, scale: torch.Tensor, out: torch.Tensor, recipe: Recipe) -> None:
    """``decode(codes) * scale`` into `out` (B, M, N)."""
    if codes.numel() == 0:
        return
    codes, b = codes.view(torch.uint8), divide(codes.shape, recipe.block)
    b = b.split(b.tiles)
    with on_device_of(codes):
        _dequantize_kernel[(b.programs,)](
            codes, scale, out, b.M, b.N, b.bm, b.bn, b.blocks_down, b.blocks_across, b.tiles, b.splits,
            d=decoding(recipe.fmt), BM=b.BM, G=b.G, BN=b.BN, num_warps=warps(b.elements, out.element_size()),
        )  # fmt: skip
