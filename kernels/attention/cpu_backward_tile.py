"""Gradients of panels of rows against blocks of keys: five products, at their rate.

With weights p = exp(s - lse) and dp = <grad_out, v>, a row's ds = p (dp - delta) is the gradient of its logits, and

    dq = scale * ds k,    dk = scale * ds^T q,    dv = p^T grad_out.

Rows without a finite q, grad_out, delta or lse are left out, as `differentiate_rows` adds what they have to add. So
are keys that are not finite, which have a weight of 0 for all other rows.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .._dot import VECTOR
from .._numba import bits_from_float32, jit, kernel
from .cpu_backward_rows import BIAS_STRIDE, bias_at, columns, flatness, key_row, row_delta, rows_of
from .cpu_lanes import FIELDS, HIGH, LOW, LSE_AT, OUT_AT, QUERY_AT, QUERY_HEAD, describe, reach
from .cpu_problem import DIM, VALUE_DIM
from .cpu_product import LANES, add_products_at, products
from .cpu_scores import bound, logits
from .cpu_softmax import exponentials
from .cpu_tile import elements_of

WIDTH, BLOCK = 64, 64
"""Rows of a panel, and keys of a block."""

GRAD_BIAS_AT = FIELDS
"""Where the bias gradient of a lane begins, after its other fields."""

f32, u32 = np.float32, np.uint32
_INFINITE, _MAGNITUDE = u32(0x7F800000), u32(0x7FFFFFFF)


@kernel
def differentiate_tiles(work, rules, parts, edges, workers):
    """Gradients of sound rows; for `parts` and `edges`, see `differentiate_rows`. Later rows may see more keys."""
    for worker in numba.prange(workers):
        for task in range(np.int64(worker), len(edges) - 1, workers):
            _differentiate(work, rules, parts, edges[task], edges[task + 1])


@jit
def _differentiate(work, rules, parts, begin, finish):
    dim, value_dim = work.sizes[DIM], work.sizes[VALUE_DIM]
    pitch = columns(dim) + columns(value_dim)
    lanes, reaches = np.empty((FIELDS + 1, WIDTH), np.int64), np.empty(4, np.int64)
    lse, delta = np.empty(WIDTH, f32), np.empty(WIDTH, f32)
    packed, rows = np.empty((dim + value_dim) * WIDTH, f32), np.empty(WIDTH * pitch, f32)
    keys, values = np.empty(BLOCK * dim, f32), np.empty(BLOCK * value_dim, f32)
    k_offsets, v_offsets, p_offsets = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for j in range(BLOCK):
        p_offsets[j] = j * WIDTH
    p, ds, flat = np.empty(BLOCK * WIDTH, f32), np.empty(BLOCK * WIDTH, f32), np.empty(BLOCK * WIDTH, f32)
    found = np.empty(BLOCK * pitch, f32)
    elements = elements_of(dim, 1)
    grad_q = np.empty(len(elements) * WIDTH, f32)
    wild = np.empty(BLOCK, np.bool_)
    for i in range(begin, finish):
        n, h, part = parts[i, 0], parts[i, 1], parts[i, 2]
        key = key_row(work.sequences, work.sizes, n, h)
        first_row, end = rows_of(work.sequences, work.sizes, n, part)
        for row in range(first_row, end, WIDTH):
            _load(work, rules.numbers, n, h, row, min(WIDTH, end - row), packed, rows, lse, delta, lanes)
            reach(lanes, reaches)
            grad_q.fill(0)
            low, high = reaches[0], reaches[3]
            for start in range(low // BLOCK * BLOCK, high, BLOCK):
                first = max(start, low)
                count = min(start + BLOCK, high) - first
                for j in range(BLOCK):
                    at = key + first + min(j, count - 1)
                    k_offsets[j], v_offsets[j] = at * dim, at * value_dim
                k, v = work.k, work.v
                any_wild = _any_wild(k, v, key + first, count, dim, value_dim, wild)
                if any_wild:
                    _tame(k, k_offsets, dim, wild, count, keys)
                    _tame(v, v_offsets, value_dim, wild, count, values)
                    k, v = keys, values
                for at in range(0, WIDTH, LANES):
                    products(k, k_offsets, count, 1, packed, at, WIDTH, dim, p, at, WIDTH)
                    products(v, v_offsets, count, 1, packed, dim * WIDTH + at, WIDTH, value_dim, ds, at, WIDTH)
                flatness(rules, p, count * WIDTH, flat)
                logits(rules, p, WIDTH, first, count, lanes)
                if first < reaches[1] or first + count > reaches[2]:
                    bound(p, WIDTH, first, count, lanes)
                if any_wild:
                    _leave_out(p, wild, count)
                for at in range(0, WIDTH, VECTOR):
                    exponentials(p, at, WIDTH, count, lse, found, at)
                _grade(p, ds, count, delta)
                if work.grad_bias.size:
                    _add_bias(work.grad_bias, work.sizes[BIAS_STRIDE + 3], ds, first, count, lanes)
                if rules.softcap > 0:
                    for at in range(count * WIDTH):
                        ds[at] *= flat[at]
                for at in range(0, WIDTH, LANES):
                    add_products_at(k, elements, len(elements), k_offsets, ds, at, WIDTH, count, grad_q, at, WIDTH)
                for at in range(0, pitch, LANES):
                    x = ds if at < columns(dim) else p
                    products(x, p_offsets, count, 1, rows, at, pitch, WIDTH, found, at, pitch)
                into = work.grad_keys[part]
                for j in range(count):
                    total, share = into[key + first + j], found[j * pitch : (j + 1) * pitch]
                    for d in range(pitch):
                        total[d] += share[d]
            scale = f32(rules.scale)
            for lane in range(min(WIDTH, end - row)):
                for d in range(dim):
                    work.grad_q[lanes[QUERY_AT, lane] + d] = scale * grad_q[d * WIDTH + lane]


@jit
def _load(work, numbers, n, h, first, count, packed, rows, lse, delta, lanes):
    """A panel of `count` rows from `first`: q and grad_out as [element][lane] in `packed`, and [lane][element] in
    `rows`. Lanes that are left out are zeros that see no key."""
    describe(work.sequences, work.sizes, numbers, n, h, first, count, WIDTH, lanes)
    dim, value_dim = work.sizes[DIM], work.sizes[VALUE_DIM]
    pitch = columns(dim) + columns(value_dim)
    packed.fill(0)
    rows.fill(0)
    for lane in range(WIDTH):
        q_at, out_at, lse_at = lanes[QUERY_AT, lane], lanes[OUT_AT, lane], lanes[LSE_AT, lane]
        lanes[GRAD_BIAS_AT, lane] = bias_at(work.sizes, n, first + min(lane, count - 1), lanes[QUERY_HEAD, lane])
        sound = lane < count and math.isfinite(work.lse[lse_at])
        if lane < count:
            lse[lane] = work.lse[lse_at]
            delta[lane] = row_delta(work.out, work.grad_out, out_at, value_dim, work.grad_lse[lse_at])
            work.delta[lse_at] = delta[lane]
            sound = sound and math.isfinite(delta[lane])
            for d in range(dim):
                sound = sound and math.isfinite(work.q[q_at + d])
        if not sound:
            delta[lane] = lse[lane] = 0
            lanes[LOW, lane] = lanes[HIGH, lane]
            continue
        _copy(work.q, q_at, dim, lane, packed, 0, rows, lane * pitch)
        _copy(work.grad_out, out_at, value_dim, lane, packed, dim * WIDTH, rows, lane * pitch + columns(dim))


@jit
def _copy(x, x_at, dim, lane, packed, packed_at, rows, rows_at):
    for d in range(dim):
        packed[packed_at + d * WIDTH + lane] = x[x_at + d]
        rows[rows_at + d] = x[x_at + d]


@jit
def _any_wild(k, v, first, count, dim, value_dim, wild):
    """Which keys and values are not finite, and whether any."""
    found = False
    for j in range(count):
        most = max(_most(k, (first + j) * dim, dim), _most(v, (first + j) * value_dim, value_dim))
        wild[j] = most >= _INFINITE
        found = found or wild[j]
    return found


@jit
def _most(x, at, dim):
    run, most = x[at : at + dim], u32(0)
    for d in range(dim):
        bits = u32(bits_from_float32(run[d]) & _MAGNITUDE)
        if bits > most:
            most = bits
    return most


@jit
def _tame(x, offsets, dim, wild, count, out):
    """Copy a block with zeros for what is not finite; the offsets then name rows of the copy."""
    for j in range(count):
        for d in range(dim):
            out[j * dim + d] = f32(0) if wild[j] else x[offsets[j] + d]
    for j in range(len(offsets)):
        offsets[j] = min(j, count - 1) * dim


@jit
def _leave_out(s, wild, count):
    for j in range(count):
        if wild[j]:
            for lane in range(WIDTH):
                s[j * WIDTH + lane] = -np.inf


@jit
def _grade(p, ds, count, delta):
    """``p (dp - delta)`` in place of dp."""
    for j in range(count):
        weights, row = p[j * WIDTH : (j + 1) * WIDTH], ds[j * WIDTH : (j + 1) * WIDTH]
        for lane in range(len(row)):
            row[lane] = weights[lane] * (row[lane] - delta[lane])


@jit
def _add_bias(grad_bias, step, ds, first, count, lanes):
    for lane in range(WIDTH):
        at = lanes[GRAD_BIAS_AT, lane] + first * step
        for j in range(count):
            grad_bias[at + j * step] += ds[j * WIDTH + lane]
