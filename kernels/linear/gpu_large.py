"""Many rows of x: w is made wide, a part of its rows at a time, and torch multiplies; or torch multiplies codes."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .._triton import on_device_of, rounded
from .gpu_core import Factors, factors_of, float32_values, is_whole, multiplies_fp8
from .gpu_tile import merge
from .problem import FLOATS, Problem

WORKSPACE = 1 << 27
"""Bytes of w made wide."""
ROWS, COLUMNS = 16, 256
TYPES = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@triton.jit
def _dequantize_kernel(
    codes_ptr, scale_ptr, peak_ptr, out_ptr, first, N, K, R, C, stride_codes, stride_scale, blocks,
    FORMAT: tl.constexpr, HARDWARE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Values of codes times their scales, as parts of the row's `peak` if given, of rows from `first`."""
    program = tl.program_id(0)
    row = program // blocks * ROWS + tl.arange(0, ROWS)
    k = program % blocks * COLUMNS + tl.arange(0, COLUMNS)
    n, there = (first + row).to(tl.int64), (row < N)[:, None] & (k < K)[None, :]
    code = tl.load(codes_ptr + n[:, None] * stride_codes + k[None, :], mask=there, other=0)
    w = float32_values(code, FORMAT, HARDWARE)
    if scale_ptr is not None:
        s = tl.load(scale_ptr + (n // R * stride_scale)[:, None] + (k // C)[None, :], mask=there, other=0)
        if peak_ptr is not None:
            peak = tl.load(peak_ptr + n // R, mask=row < N, other=1)
            s = tl.where(s == peak[:, None], 1.0, s / peak[:, None])
        w *= s
    tl.store(out_ptr + row.to(tl.int64)[:, None] * K + k[None, :], rounded(w, out_ptr.dtype.element_ty), mask=there)


def dequantized(
    x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None, out: torch.Tensor,
    problem: Problem,
) -> None:  # fmt: skip
    """The product of `x`, numbers, with w in their dtype, or both in float32 where w are numbers of another dtype.

    Scales are part of w, and round it; of float16, whose range they may leave, only their ratios in a row are.
    """
    N, K = codes.shape
    if problem.format in FLOATS and codes.dtype != x.dtype:
        x = x.float()
    peak = scale.abs().amax(1, keepdim=True) if scale is not None and x.dtype == torch.float16 else None
    direct = peak is None and out.dtype == x.dtype and bias is None and problem.activation is None
    sums = out if direct else torch.empty(out.shape, dtype=torch.float32, device=x.device)
    plain = scale is None and codes.dtype == x.dtype
    part = N if plain else max(1, min(N, WORKSPACE // (K * x.element_size()) // ROWS * ROWS))
    wide = None if plain else torch.empty(part, K, dtype=x.dtype, device=x.device)
    with on_device_of(x):
        for first in range(0, N, part):
            w = codes
            if wide is not None:
                rows, blocks = min(part, N - first), triton.cdiv(K, COLUMNS)
                w = wide[:rows]
                _dequantize_kernel[(triton.cdiv(rows, ROWS) * blocks,)](
                    codes, scale, peak, w, first, rows, K, *problem.block, codes.stride(0),
                    0 if scale is None else scale.stride(0), blocks, FORMAT=problem.format,
                    HARDWARE=multiplies_fp8(), ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4,
                )  # fmt: skip
            _multiply(x, w, sums[:, first : first + len(w)])
        if not direct:
            factors = Factors(None, peak, 1, problem.block[0], bias)
            merge(sums[None], out, factors, peak is not None, problem.activation)


def _multiply(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
    """``x @ w.T`` into `out`, of their dtype or float32."""
    if out.dtype == x.dtype:
        torch.mm(x, w.T, out=out)
    elif x.is_cuda and torch.version.hip is None:
        torch.mm(x, w.T, out_dtype=out.dtype, out=out)
    else:
        torch.mm(x.float(), w.float().T, out=out)


def scaled(
    x: torch.Tensor, x_scale: Any, codes: torch.Tensor, scale: torch.Tensor | None,
    bias: torch.Tensor | None, out: torch.Tensor, problem: Problem,
) -> bool:  # fmt: skip
    """Whether torch's product of fp8 codes, which takes sizes of multiples of 16, could take these and has."""
    K, N, formats = x.shape[1], len(codes), (problem.x_format or "", problem.format)
    aligned = K % 16 == N % 16 == x.stride(0) % 16 == codes.stride(0) % 16 == 0
    possible = {"e4m3fn"} <= set(formats) <= set(TYPES) and is_whole(x, scale, problem)
    if not (aligned and possible and K and torch_multiplies_fp8(x)):
        return False
    left, right = (each.view(TYPES[name]) for each, name in zip((x, codes), formats, strict=True))
    plain = scale is not None and bias is None and problem.activation is None
    by_rows = plain and out.dtype == torch.bfloat16 and _takes_rows(x)  # whose sums torch gives in bfloat16 alone
    kind = torch.bfloat16 if by_rows else torch.float32
    direct = out.dtype == kind and out.is_contiguous()
    sums = out if direct else torch.empty(out.shape, dtype=kind, device=x.device)
    with on_device_of(x):
        if by_rows and scale is not None:
            of_w = scale[:, 0].repeat_interleave(problem.block[0])[:N] if problem.block[0] > 1 else scale[:, 0]
            scales = x_scale[:, None], of_w.contiguous()[None, :]
            factors = factors_of(None, None, bias, problem)
        else:
            scales = (torch.ones((), device=x.device),) * 2
            factors = factors_of(x_scale, scale, bias, problem)
        torch._scaled_mm(left, right.T, *scales, out_dtype=kind, out=sums)
        left_over = any(factor is not None for factor in (factors.x_scale, factors.scale, bias, problem.activation))
        if left_over or not direct:
            merge(sums[None], out, factors, True, problem.activation)
    return True


def torch_multiplies_fp8(x: torch.Tensor) -> bool:
    return x.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 9)


def _takes_rows(x: torch.Tensor) -> bool:
    """Whether the product takes a scale for each row, which torch has for Hopper in all versions."""
    return not x.is_cuda or torch.cuda.get_device_capability(x.device)[0] == 9
