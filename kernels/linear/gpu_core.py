"""What the Triton kernels of the family share: their arguments, values of codes, and what follows a sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import INTERPRETED, WIDE, e4m3fn_to_float16, float32_from_bits
from .._triton_activations import activate
from .problem import FLOATS, Problem

FP8 = tl.constexpr("fp8")
"""What `dot_of` calls products of fp8 that the device has."""


class Factors(NamedTuple):
    """What sums are multiplied with, and what is added: None for what is absent; scales have R rows of w each."""

    x_scale: Any
    scale: Any
    row: Any  # the stride of rows of scales
    R: Any
    bias: Any


def factors_of(x_scale: Any, scale: Any, bias: Any, problem: Problem) -> Factors:
    return Factors(x_scale, scale, 0 if scale is None else scale.stride(0), problem.block[0], bias)


def is_whole(x: torch.Tensor, scale: torch.Tensor | None, problem: Problem) -> bool:
    """Whether what is multiplied with a scale, if anything, are sums over all of K."""
    return scale is None or problem.block[1] >= x.shape[1]


def multiplies_fp8() -> bool:
    """Whether the device has products of fp8."""
    if INTERPRETED:
        return False
    target = triton.runtime.driver.active.get_current_target()
    return bool(target.backend == "cuda" and target.arch >= 89)


def dot_of(x: torch.Tensor, codes: torch.Tensor, problem: Problem) -> tl.dtype | None:
    """The type of a matrix product that is exact for `x` and `codes`; None where only float32 is."""
    kinds = {kind for kind in (problem.format, problem.x_format) if kind is not None}
    floats = kinds.intersection(FLOATS) | ({str(x.dtype).removeprefix("torch.")} if x.is_floating_point() else set())
    if len(floats) > 1 or "float32" in floats:
        return None
    if floats:
        return tl.bfloat16 if "bfloat16" in floats else tl.float16
    return tl.int8 if kinds == {"int8"} else tl.float16


@triton.jit
def values(code, FORMAT: tl.constexpr, HARDWARE: tl.constexpr):
    """Numbers and int8 themselves; of fp8 codes their values in float16, which holds all of them."""
    if code.dtype == tl.uint8:
        c = code.to(tl.uint16)
        if FORMAT == "e4m3fn" and HARDWARE:
            code = code.to(tl.float8e4nv, bitcast=True).to(tl.float16)
        elif FORMAT == "e4m3fn":
            code = e4m3fn_to_float16(code)
        elif FORMAT == "e5m2":
            code = (c << 8).to(tl.float16, bitcast=True)
        elif FORMAT == "e4m3fnuz":
            code = (((c & 0x80) << 8) | ((c & 0x7F) << 7)).to(tl.float16, bitcast=True) * 128.0
            code = tl.where(c == 0x80, float("nan"), code)
        else:
            w = code.to(tl.uint32)  # exponents of float16 end below those of e5m2fnuz
            code = (float32_from_bits(((w & 0x80) << 24) | ((w & 0x7F) << 21)) * float(2.0**111)).to(tl.float16)
            code = tl.where(c == 0x80, float("nan"), code)
    return code


@triton.jit
def float32_values(code, FORMAT: tl.constexpr, HARDWARE: tl.constexpr):
    return values(code, FORMAT, HARDWARE).to(tl.float32)


@triton.jit
def operand(code, FORMAT: tl.constexpr, DOT: tl.constexpr, HARDWARE: tl.constexpr):
    """What a matrix product of type `DOT` takes."""
    if DOT == FP8:
        code = code.to(tl.float8e5 if FORMAT == "e5m2" else tl.float8e4nv, bitcast=True)
    elif tl.int8 != DOT:
        code = values(code, FORMAT, HARDWARE)
        if tl.bfloat16 == DOT and (WIDE or code.dtype == tl.float16):
            code = code.to(tl.float32)
        if not (tl.bfloat16 == DOT and WIDE):
            code = code.to(DOT)
    return code


@triton.jit
def finish(sums, m, n, factors, WHOLE: tl.constexpr, ACTIVATION: tl.constexpr):
    """Elements (m, n) of the output from their sums, which scales of less than whole rows are part of already."""
    y = sums.to(tl.float32)
    if WHOLE and factors.scale is not None:
        y *= tl.load(factors.scale + n // factors.R * factors.row)
    if factors.x_scale is not None:
        y *= tl.load(factors.x_scale + m)
    if factors.bias is not None:
        y += tl.load(factors.bias + n)
    return activate(y, ACTIVATION)
