"""Rows, tokens and pieces of rows of what a decoder block does between its products."""

from __future__ import annotations

import numpy as np

from .._activations import activate
from .._floats import read_run, write_run
from .._numba import jit, sum_of_lanes, sums

f32 = np.float32

LANES = 32
PIECE = 1 << 10
"""Numbers that a task of `gated` makes, and about as many as one of the others does."""


@jit
def normalize_rows(kind, x, residual, total, out, weight, bias, centred, eps, offset, first, count):
    size = weight.size
    h, other = np.empty(size, np.float32), np.empty(size if len(residual) else 0, np.float32)
    for i in range(first, min(first + count, len(x))):
        read_run(kind, x, i * x.strides[0], h)
        if other.size:
            read_run(kind, residual, i * residual.strides[0], other)
            for j in range(size):
                h[j] += other[j]
            write_run(kind, h, total, i * total.strides[0])
            read_run(kind, total, i * total.strides[0], h)
        if centred:
            mean = _sum(h) / f32(size)
            for j in range(size):
                h[j] -= mean
        factor = f32(1) / np.sqrt(_sum_of_squares(h) / f32(size) + f32(eps))
        _scale(h, factor, weight, f32(offset), bias)
        write_run(kind, h, out, i * out.strides[0])


@jit
def _scale(h, factor, weight, offset, bias):
    if bias.size:
        for j in range(h.size):
            h[j] = h[j] * factor * (weight[j] + offset) + bias[j]
    else:
        for j in range(h.size):
            h[j] = h[j] * factor * (weight[j] + offset)


@jit
def _sum(x):
    total = sums(x, 1, 32)
    whole = x.size // LANES * LANES
    for first in range(0, whole, LANES):
        run = x[first : first + LANES]
        for lane in range(LANES):
            total[0, lane] += run[lane]
    for i in range(whole, x.size):
        total[0, i - whole] += x[i]
    return sum_of_lanes(total, 0, 32)


@jit
def _sum_of_squares(x):
    total = sums(x, 1, 32)
    whole = x.size // LANES * LANES
    for first in range(0, whole, LANES):
        run = x[first : first + LANES]
        for lane in range(LANES):
            total[0, lane] += run[lane] * run[lane]
    for i in range(whole, x.size):
        total[0, i - whole] += x[i] * x[i]
    return sum_of_lanes(total, 0, 32)


@jit
def turn_token(kind, x, cos, sin, positions, out, interleaved, width, n, t):
    c, s = cos[positions[n, t]], sin[positions[n, t]]
    row = np.empty(width, np.float32)
    left, right = row[: c.size], row[c.size : 2 * c.size]
    for h in range(x.shape[1]):
        read_run(kind, x, n * x.strides[0] + h * x.strides[1] + t * x.strides[2], row)
        if interleaved:
            for i in range(c.size):
                a, b = row[2 * i], row[2 * i + 1]
                row[2 * i], row[2 * i + 1] = a * c[i] - b * s[i], b * c[i] + a * s[i]
        else:
            for i in range(c.size):
                a, b = left[i], right[i]
                left[i], right[i] = a * c[i] - b * s[i], b * c[i] + a * s[i]
        write_run(kind, row, out, n * out.strides[0] + h * out.strides[1] + t * out.strides[2])


@jit
def gate(kind, itemsize, x, out, activation, row, first, width):
    size = min(PIECE, width - first)
    gate, up = np.empty(size, np.float32), np.empty(size, np.float32)
    read_run(kind, x, row * x.strides[0] + first * itemsize, gate)
    read_run(kind, x, row * x.strides[0] + (width + first) * itemsize, up)
    activate(activation, gate)
    for i in range(size):
        gate[i] *= up[i]
    write_run(kind, gate, out, row * out.strides[0] + first * itemsize)
