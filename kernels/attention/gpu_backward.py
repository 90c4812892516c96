"""Gradients of attention: delta of each row first, then `gpu_gradients` and, for a bias, `gpu_bias`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_bias import bias_gradient
from .gpu_core import Rows, load_rows, rows_of
from .gpu_forward import rows_at
from .gpu_gradients import backward_keys, backward_rows, backward_tile
from .problem import Gradients, Lengths, Scoring


@triton.jit
def _delta_kernel(
    grad, out, lse, grad_lse, delta_ptr, rows, heads, Sq, Dv: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    present = row < rows
    batch, head, i = row // Sq // heads, row // Sq % heads, row % Sq
    x = load_rows(rows_at(grad, batch, head, i), present, 0, BLOCK_V, Dv, True).to(tl.float32)
    y = load_rows(rows_at(out, batch, head, i), present, 0, BLOCK_V, Dv, True).to(tl.float32)
    delta = tl.sum(x * y, axis=1)
    if grad_lse is not None:
        weighted = tl.load(rows_at(lse, batch, head, i), mask=present, other=0) != float("-inf")
        delta -= tl.load(rows_at(grad_lse, batch, head, i), mask=present & weighted, other=0)
    tl.store(delta_ptr + row, delta, mask=present)


def attention_backward(
    grad_out: torch.Tensor,
    grad_lse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scoring: Scoring,
    lengths: Lengths,
    grads: Gradients,
) -> None:
    """Gradients of ``sum(grad_out * out) + sum(grad_lse * lse)``, where `out` and `lse` are what `attention` gave."""
    tile = backward_tile(q, v, scoring)
    delta = torch.empty(lse.shape, dtype=lse.dtype, device=lse.device)
    rows, heads, Sq = delta.numel(), q.shape[1], q.shape[2]
    BLOCK_M = 4096 // min(tile.V, 256)
    with on_device_of(q):
        if rows:
            of_lse, of_grad_lse = (None if x is None else Rows(x, *x.stride()) for x in (lse, grad_lse))
            _delta_kernel[(triton.cdiv(rows, BLOCK_M),)](
                rows_of(grad_out), rows_of(out), of_lse, of_grad_lse, delta, rows, heads, Sq, Dv=v.shape[3],
                BLOCK_M=BLOCK_M, BLOCK_V=tile.V, num_warps=4,
            )  # fmt: skip
        given = grad_out, q, k, v, lse, delta, scoring, lengths, tile
        if grads.q is not None and grads.q.numel():
            backward_rows(*given, grads.q)
        if k.numel() or v.numel():
            backward_keys(*given, grads.k, grads.v)
        if grads.bias is not None and grads.bias.numel():
            bias_gradient(*given, grads.bias)
    if grads.sinks is not None:
        finite = lse.masked_fill(lse == float("-inf"), 0)
        grads.sinks.copy_(-(torch.exp(scoring.sinks[:, None] - finite) * delta).sum((0, 2)))
