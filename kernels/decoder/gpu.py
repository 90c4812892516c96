"""Triton launchers, with the names and signatures of `reference`, for torch tensors."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import TILE, on_device_of, rounded, warps
from .._triton_activations import activate
from .problem import Gated, Norm, Rotary

RESIDENT = 1 << 14
"""Longest row, in elements, that a program keeps in registers; it reads longer ones again, from its cache."""


@triton.jit
def _normalize_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, total_ptr, out_ptr, M, E, stride_x, stride_residual, stride_total,
    stride_out, eps, offset, CENTRED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows of at most BLOCK elements."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    inside = (row < M) & (i < E)
    h = tl.load(x_ptr + row * stride_x + i, mask=inside, other=0)
    if residual_ptr is not None:
        h = h.to(tl.float32) + tl.load(residual_ptr + row * stride_residual + i, mask=inside, other=0).to(tl.float32)
        h = rounded(h, total_ptr.dtype.element_ty)
        tl.store(total_ptr + row * stride_total + i, h, mask=inside)
    h = h.to(tl.float32)
    if CENTRED:
        h = tl.where(i < E, h - tl.sum(h, axis=1, keep_dims=True) / E, 0.0)
    factor = 1 / tl.sqrt_rn(tl.sum(h * h, axis=1, keep_dims=True) / E + eps)
    y = h * factor * (tl.load(weight_ptr + i, mask=i < E, other=0) + offset)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + i, mask=i < E, other=0)
    tl.store(out_ptr + row * stride_out + i, rounded(y, out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _normalize_long_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, total_ptr, out_ptr, M, E, stride_x, stride_residual, stride_total,
    stride_out, eps, offset, CENTRED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row of any length."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * stride_x
    if residual_ptr is not None:
        residual_ptr += row * stride_residual
        total_ptr += row * stride_total
        for start in range(0, E, BLOCK):
            i = start + tl.arange(0, BLOCK)
            h = tl.load(x_ptr + i, mask=i < E, other=0).to(tl.float32)
            h += tl.load(residual_ptr + i, mask=i < E, other=0).to(tl.float32)
            tl.store(total_ptr + i, rounded(h, total_ptr.dtype.element_ty), mask=i < E)
        tl.debug_barrier()
        x_ptr = total_ptr
    mean = 0.0
    if CENTRED:
        acc = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, E, BLOCK):
            i = start + tl.arange(0, BLOCK)
            acc += tl.load(x_ptr + i, mask=i < E, other=0).to(tl.float32)
        mean = tl.sum(acc) / E
    acc = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, E, BLOCK):
        i = start + tl.arange(0, BLOCK)
        h = tl.where(i < E, tl.load(x_ptr + i, mask=i < E, other=0).to(tl.float32) - mean, 0.0)
        acc += h * h
    factor = 1 / tl.sqrt_rn(tl.sum(acc) / E + eps)
    for start in range(0, E, BLOCK):
        i = start + tl.arange(0, BLOCK)
        h = tl.load(x_ptr + i, mask=i < E, other=0).to(tl.float32) - mean
        y = h * factor * (tl.load(weight_ptr + i, mask=i < E, other=0) + offset)
        if bias_ptr is not None:
            y += tl.load(bias_ptr + i, mask=i < E, other=0)
        tl.store(out_ptr + row * stride_out + i, rounded(y, out_ptr.dtype.element_ty), mask=i < E)


def normalize(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor | None,
    total: torch.Tensor | None, out: torch.Tensor, problem: Norm,
) -> None:  # fmt: skip
    """See `Norm`."""
    M, E = out.shape
    if out.numel() == 0:
        return
    strides = [0 if each is None else each.stride(0) for each in (x, residual, total, out)]
    given = x, residual, weight, bias, total, out, M, E, *strides, float(problem.eps), float(problem.offset)
    centred, BLOCK = problem.kind == "layer", triton.next_power_of_2(E)
    with on_device_of(x):
        if BLOCK <= RESIDENT:
            ROWS = max(1, 2048 // BLOCK)
            _normalize_kernel[(triton.cdiv(M, ROWS),)](
                *given, CENTRED=centred, ROWS=ROWS, BLOCK=BLOCK, num_warps=max(1, min(16, ROWS * BLOCK // 512))
            )  # fmt: skip
        else:
            _normalize_long_kernel[(M,)](*given, CENTRED=centred, BLOCK=TILE, num_warps=16)


@triton.jit
def _rotary_kernel(
    x_ptr, cos_ptr, sin_ptr, positions_ptr, out_ptr, H, T, D, half, stride_positions, x_n, x_h, x_t, out_n, out_h,
    out_t, INTERLEAVED: tl.constexpr, COPIED: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pairs of all heads of a token, and what there is besides if it is to be `COPIED`."""
    program = tl.program_id(0).to(tl.int64)
    n, t = program // T, program % T
    position = tl.load(positions_ptr + n * stride_positions + t)
    i = tl.arange(0, BLOCK)
    there = i < half
    c = tl.load(cos_ptr + position * half + i, mask=there, other=0)[None, :]
    s = tl.load(sin_ptr + position * half + i, mask=there, other=0)[None, :]
    for first in range(0, H, HEADS):
        h = (first + tl.arange(0, HEADS))[:, None]
        source, target = x_ptr + n * x_n + t * x_t + h * x_h, out_ptr + n * out_n + t * out_t + h * out_h
        if INTERLEAVED:
            j = tl.arange(0, 2 * BLOCK)[None, :]
            inside = (h < H) & (j < 2 * half)
            pairs = tl.load(source + j, mask=inside, other=0).to(tl.float32)
            a, b = tl.split(tl.reshape(pairs, (HEADS, BLOCK, 2)))
            turned = tl.interleave(a * c - b * s, b * c + a * s)
            tl.store(target + j, rounded(turned, out_ptr.dtype.element_ty), mask=inside)
        else:
            inside = (h < H) & there[None, :]
            a = tl.load(source + i[None, :], mask=inside, other=0).to(tl.float32)
            b = tl.load(source + half + i[None, :], mask=inside, other=0).to(tl.float32)
            tl.store(target + i[None, :], rounded(a * c - b * s, out_ptr.dtype.element_ty), mask=inside)
            tl.store(target + half + i[None, :], rounded(b * c + a * s, out_ptr.dtype.element_ty), mask=inside)
        if COPIED:
            for start in range(2 * half, D, BLOCK):
                k = start + i[None, :]
                beyond = (h < H) & (k < D)
                tl.store(target + k, tl.load(source + k, mask=beyond, other=0), mask=beyond)


def rotary(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor, out: torch.Tensor, problem: Rotary
) -> None:
    """See `Rotary`."""
    n, H, T, D = x.shape
    if out.numel() == 0:
        return
    half = cos.shape[1]
    BLOCK = triton.next_power_of_2(half)
    HEADS = max(1, min(triton.next_power_of_2(H), 2048 // BLOCK))
    with on_device_of(x):
        _rotary_kernel[(n * T,)](
            x, cos, sin, positions, out, H, T, D, half, positions.stride(0), *x.stride()[:3], *out.stride()[:3],
            INTERLEAVED=problem.interleaved, COPIED=2 * half < D and x is not out, HEADS=HEADS, BLOCK=BLOCK,
            num_warps=max(1, min(4, HEADS * BLOCK // 256)),
        )  # fmt: skip


@triton.jit
def _gated_kernel(
    x_ptr, out_ptr, F, stride_x, stride_out, blocks, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    program = tl.program_id(0)
    row, i = (program // blocks).to(tl.int64), program % blocks * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(x_ptr + row * stride_x + i, mask=i < F, other=0).to(tl.float32)
    up = tl.load(x_ptr + row * stride_x + F + i, mask=i < F, other=0).to(tl.float32)
    y = activate(gate, ACTIVATION) * up
    tl.store(out_ptr + row * stride_out + i, rounded(y, out_ptr.dtype.element_ty), mask=i < F)


def gated(x: torch.Tensor, out: torch.Tensor, problem: Gated) -> None:
    """See `Gated`."""
    M, F = out.shape
    if out.numel() == 0:
        return
    BLOCK = min(1024, triton.next_power_of_2(F))
    blocks = triton.cdiv(F, BLOCK)
    with on_device_of(x):
        _gated_kernel[(M * blocks,)](
            x, out, F, x.stride(0), out.stride(0), blocks, ACTIVATION=problem.activation, BLOCK=BLOCK,
            num_warps=warps(BLOCK, 4),
        )  # fmt: skip
