"""The kernels of dq and of dk and dv, without S x S memory, and without two programs that add to one element.

With P the probabilities, dP = grad_out v^T, delta = sum(grad_out * out) - grad_lse of each row, and c the derivative
of a softcap, the logits' gradients are dS = P * (dP - delta), and

    dq = scale * (dS * c) k,   dk = scale * (dS * c)^T q,   dv = P^T grad_out,   dbias = dS,   dsinks = -P_sink * delta.

One kernel goes over the keys of a block of rows for dq; one over the rows of a block of keys for dk and dv, all rows
of the group, whose heads are so summed in registers; both compute P again from lse. As in the forward kernel, row r
is head ``r % G`` of the group and query ``r // G``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from .._triton import INTERPRETED
from .gpu_core import LOG2E, Rows, is_allowed, load_rows, logits, operand, rows_of, rules_of, tanh
from .gpu_forward import rows_at, sequence_of
from .problem import Lengths, Scoring


class Tile(NamedTuple):
    """Rows (M) and keys (N) of a product, head sizes in powers of two, and whether operands are read in every step."""

    M: int
    N: int
    D: int
    V: int
    warps: int
    AGAIN: bool


def backward_tile(q: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> Tile:
    """The sums of a program, and two tiles of products, in the registers; places of a bias or mask take as many.

    float32, whose products are multiply-adds of operands in registers, has none left for an operand that stays.
    """
    if q.dtype == torch.float64:
        raise NotImplementedError("the gpu backend has no gradients of float64; backend='cpu' has")
    D, V = (max(16, triton.next_power_of_2(x.shape[3])) for x in (q, v))
    width, single = max(D, V), q.element_size() == 4
    if width > 256 or (single and not INTERPRETED):
        side = 32 if width <= 64 else 16
        return Tile(side, side, D, V, 8, single)
    if width > 128:
        return Tile(32, 32, D, V, 8, single)
    M = 64 if scoring.bias is None and scoring.mask is None else 32
    return Tile(M, 64, D, V, 4 if width <= 64 else 8, single)


@triton.jit
def load_again(places, inside, BLOCK: tl.constexpr, D: tl.constexpr):
    """What `load_rows` does, in every step of a loop."""
    d = tl.arange(0, BLOCK)
    return tl.load(places[:, None] + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0, volatile=True)


@triton.jit
def store_rows(places, inside, x, BLOCK: tl.constexpr, D: tl.constexpr):
    d = tl.arange(0, BLOCK)
    tl.store(places[:, None] + d[None, :], x, mask=inside[:, None] & (d < D)[None, :])


@triton.jit
def sequence_at(block, n, starts, starts_q, starts_k, counts, N, G, Sq, Sk, BLOCK: tl.constexpr):
    """Number, batch, first row and first key, sizes, and keys that count of the sequence of `block`, and its block.

    `starts` is that of `starts_q` and `starts_k` whose rows, G times, make the blocks.
    """
    batch, q_first, k_first = n, n * 0, n * 0
    if starts is not None:
        n = sequence_of(starts, N, block.to(tl.int64), G, BLOCK)
        batch, q_first, k_first = n * 0, tl.load(starts_q + n), tl.load(starts_k + n)
        block -= (tl.load(starts + n) * G // BLOCK + n).to(tl.int32)
        Sq = (tl.load(starts_q + n + 1) - q_first).to(tl.int32)
        Sk = (tl.load(starts_k + n + 1) - k_first).to(tl.int32)
    keys = Sk
    if counts is not None:
        keys = tl.load(counts + n).to(tl.int32)
    return n, batch, q_first, k_first, Sq, Sk, keys, block


@triton.jit
def load_lse(places, present):
    """+Inf, which makes probabilities 0, for rows that are absent or have no weight."""
    lse = tl.load(places, mask=present, other=float("-inf"))
    return tl.where(lse == float("-inf"), float("inf"), lse)


@triton.jit
def gradients_of_logits(q, k, grad, v, lse, delta, rules, n, head, i, present, position, j, inside):
    """P, dS and dS * c of a tile of rows and keys."""
    products = tl.dot(q, tl.trans(k), input_precision="ieee")
    ahead = j[None, :] - position[:, None]
    s = logits(products, rules, n, head, i, present, j, ahead, inside)
    allowed = is_allowed(rules, n, head, i, present, j, ahead, inside)
    p = tl.where(allowed, tl.exp2((s - lse[:, None]) * LOG2E), 0.0)
    ds = tl.where(allowed, p * (tl.dot(grad, tl.trans(v), input_precision="ieee") - delta[:, None]), 0.0)
    capped = ds
    if rules.softcap is not None:
        bounded = tanh(products * rules.scale / rules.softcap)
        capped = ds * (1 - bounded * bounded)
    return p, ds, capped


@triton.jit
def _backward_rows_kernel(
    grad, q, k, v, lse, delta, dq, rules, starts_q, starts_k, counts, N, Sq, Sk, G, heads, blocks,
    D: tl.constexpr, Dv: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """dq of a block of rows."""
    program = tl.program_id(0)
    block, h, n = blocks - 1 - program % blocks, (program // blocks % heads).to(tl.int64), program // blocks // heads
    n, batch, q_first, k_first, Sq, _stored, Sk, block = sequence_at(
        block, n.to(tl.int64), starts_q, starts_q, starts_k, counts, N, G, Sq, Sk, BLOCK_M
    )  # fmt: skip
    if block * BLOCK_M >= Sq * G:
        return
    dtype: tl.constexpr = q.ptr.dtype.element_ty
    r = block * BLOCK_M + tl.arange(0, BLOCK_M)
    i, head, present = r // G, h * G + r % G, r < Sq * G
    row = q_first + i
    ahead = tl.where(rules.upper_left != 0, 0, Sk - Sq)
    first, last = block * BLOCK_M // G + ahead, tl.minimum((block * BLOCK_M + BLOCK_M - 1) // G, Sq - 1) + ahead
    begin = tl.minimum(tl.maximum(first - rules.left, 0), Sk) // BLOCK_N
    end = tl.cdiv(tl.minimum(tl.maximum(last + rules.right + 1, 0), Sk), BLOCK_N)
    of_q, of_grad = rows_at(q, batch, head, row), rows_at(grad, batch, head, row)
    queries = operand(load_rows(of_q, present, 0, BLOCK_D, D, True), dtype)
    given = operand(load_rows(of_grad, present, 0, BLOCK_V, Dv, True), dtype)
    weight, shift = load_lse(rows_at(lse, batch, head, row), present), rows_at(delta, batch, head, row)
    shift = tl.load(shift, mask=present, other=0)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for t in range(begin, end):
        j = t * BLOCK_N + tl.arange(0, BLOCK_N)
        inside = j < Sk
        keys = operand(load_rows(rows_at(k, batch, h, k_first + j), inside, 0, BLOCK_D, D, True), dtype)
        values = operand(load_rows(rows_at(v, batch, h, k_first + j), inside, 0, BLOCK_V, Dv, True), dtype)
        if AGAIN:
            queries, given = load_again(of_q, present, BLOCK_D, D), load_again(of_grad, present, BLOCK_V, Dv)
        ds = gradients_of_logits(
            queries, keys, given, values, weight, shift, rules, n, head, i, present, i + ahead, j, inside
        )[2]  # fmt: skip
        acc = tl.dot(operand(ds.to(dtype), dtype), keys, acc, input_precision="ieee")
    store_rows(rows_at(dq, batch, head, row), present, (acc * rules.scale).to(dtype), BLOCK_D, D)


@triton.jit
def _backward_keys_kernel(
    grad, q, k, v, lse, delta, dk, dv, rules, starts_q, starts_k, counts, N, Sq, Sk, G, heads, blocks,
    D: tl.constexpr, Dv: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys; zeros beyond the keys that count."""
    program = tl.program_id(0)
    block, h, n = program % blocks, (program // blocks % heads).to(tl.int64), program // blocks // heads
    n, batch, q_first, k_first, Sq, stored, Sk, block = sequence_at(
        block, n.to(tl.int64), starts_k, starts_q, starts_k, counts, N, 1, Sq, Sk, BLOCK_N
    )  # fmt: skip
    if block * BLOCK_N >= stored:
        return
    dtype: tl.constexpr = q.ptr.dtype.element_ty
    j = block * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = j < Sk
    ahead = tl.where(rules.upper_left != 0, 0, Sk - Sq)
    first = tl.maximum(block * BLOCK_N - rules.right - ahead, 0)
    last = tl.minimum(tl.minimum(block * BLOCK_N + BLOCK_N, Sk) - 1 + rules.left - ahead, Sq - 1)
    begin, end = first * G // BLOCK_M, tl.cdiv((last + 1) * G, BLOCK_M)
    if block * BLOCK_N >= Sk:
        end = begin
    of_k, of_v = rows_at(k, batch, h, k_first + j), rows_at(v, batch, h, k_first + j)
    keys = operand(load_rows(of_k, inside, 0, BLOCK_D, D, True), dtype)
    values = operand(load_rows(of_v, inside, 0, BLOCK_V, Dv, True), dtype)
    of_keys = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    of_values = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
    for t in range(begin, end):
        r = t * BLOCK_M + tl.arange(0, BLOCK_M)
        i, head, present = r // G, h * G + r % G, r < Sq * G
        row = q_first + i
        queries = operand(load_rows(rows_at(q, batch, head, row), present, 0, BLOCK_D, D, True), dtype)
        given = operand(load_rows(rows_at(grad, batch, head, row), present, 0, BLOCK_V, Dv, True), dtype)
        weight = load_lse(rows_at(lse, batch, head, row), present)
        shift = tl.load(rows_at(delta, batch, head, row), mask=present, other=0)
        if AGAIN:
            keys, values = load_again(of_k, inside, BLOCK_D, D), load_again(of_v, inside, BLOCK_V, Dv)
        p, _uncapped, ds = gradients_of_logits(
            queries, keys, given, values, weight, shift, rules, n, head, i, present, i + ahead, j, inside
        )  # fmt: skip
        of_values = tl.dot(tl.trans(operand(p.to(dtype), dtype)), given, of_values, input_precision="ieee")
        of_keys = tl.dot(tl.trans(operand(ds.to(dtype), dtype)), queries, of_keys, input_precision="ieee")
    if dk is not None:
        store_rows(rows_at(dk, batch, h, k_first + j), j < stored, (of_keys * rules.scale).to(dtype), BLOCK_D, D)
    if dv is not None:
        store_rows(rows_at(dv, batch, h, k_first + j), j < stored, of_values.to(dtype), BLOCK_V, Dv)


def backward_rows(
    grad_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor,
    scoring: Scoring, lengths: Lengths, tile: Tile, dq: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `dq`."""
    G = q.shape[1] // k.shape[1]
    _launch(_backward_rows_kernel, q.shape[2] * G, tile.M, grad_out, q, k, v, lse, delta, scoring, lengths, tile, dq)


def backward_keys(
    grad_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor,
    scoring: Scoring, lengths: Lengths, tile: Tile, dk: torch.Tensor | None, dv: torch.Tensor | None,
) -> None:  # fmt: skip
    """Fill `dk` and `dv`, or one of them."""
    _launch(_backward_keys_kernel, k.shape[2], tile.N, grad_out, q, k, v, lse, delta, scoring, lengths, tile, dk, dv)


def _launch(kernel, rows: int, BLOCK: int, grad_out, q, k, v, lse, delta, scoring, lengths, tile, *grads) -> None:
    """A program for each BLOCK of the rows of each head of keys; sequences of `lengths` begin with a new block."""
    heads, Sq, Sk = k.shape[1], q.shape[2], k.shape[2]
    N, blocks = q.shape[0], triton.cdiv(rows, BLOCK)
    programs = N * heads * blocks
    if lengths.cu_q is not None:
        N = len(lengths.cu_q) - 1
        blocks = rows // BLOCK + N
        programs = heads * blocks
    kernel[(programs,)](
        *map(rows_of, (grad_out, q, k, v)), *(Rows(x, *x.stride()) for x in (lse, delta)), *map(rows_of, grads),
        rules_of(scoring), *lengths, N, Sq, Sk, q.shape[1] // heads, heads, blocks, D=q.shape[3], Dv=v.shape[3],
        BLOCK_M=tile.M, BLOCK_N=tile.N, BLOCK_D=tile.D, BLOCK_V=tile.V, AGAIN=tile.AGAIN, num_warps=tile.warps,
    )  # fmt: skip
