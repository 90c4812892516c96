"""Numba launchers, with the names and signatures of `reference`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._activations import number_of
from .._floats import BYTES, KINDS
from .._numba import kernel
from .cpu_rows import PIECE, gate, normalize_rows, turn_token
from .cpu_steps import add_gated as add_gated
from .cpu_steps import add_normalize as add_normalize
from .cpu_steps import add_rotary as add_rotary
from .cpu_steps import add_sum as add_sum
from .problem import Gated, Norm, Rotary

Array = np.ndarray[Any, Any]

_NO_BYTES = np.empty((0, 0), np.uint8)
_NO_FLOATS = np.empty(0, np.float32)


def normalize(
    x: Array, residual: Array | None, weight: Array, bias: Array | None, total: Array | None, out: Array, problem: Norm
) -> None:
    """See `Norm`."""
    if out.size == 0:
        return
    if residual is None or total is None:
        others = _NO_BYTES, _NO_BYTES
    else:
        others = residual.view(BYTES), total.view(BYTES)
    _normalize(
        2 * out.nbytes if residual is None else 4 * out.nbytes,
        KINDS[out.dtype],
        x.view(BYTES),
        *others,
        out.view(BYTES),
        weight,
        _NO_FLOATS if bias is None else bias,
        problem.kind == "layer",
        problem.eps,
        problem.offset,
    )


@kernel
def _normalize(kind, x, residual, total, out, weight, bias, centred, eps, offset):
    each = max(1, PIECE // weight.size)
    for task in numba.prange((len(x) + each - 1) // each):
        normalize_rows(kind, x, residual, total, out, weight, bias, centred, eps, offset, np.int64(task) * each, each)


def rotary(x: Array, cos: Array, sin: Array, positions: Array, out: Array, problem: Rotary) -> None:
    """See `Rotary`."""
    if out.size:
        given, target = x.view(BYTES), out.view(BYTES)
        width = 2 * cos.shape[1] if x is out else x.shape[3]
        _rotary(2 * out.nbytes, KINDS[out.dtype], given, cos, sin, positions, target, problem.interleaved, width)


@kernel
def _rotary(kind, x, cos, sin, positions, out, interleaved, width):
    tokens = positions.shape[1]
    for task in numba.prange(positions.size):
        n = np.int64(task) // tokens
        turn_token(kind, x, cos, sin, positions, out, interleaved, width, n, np.int64(task) - n * tokens)


def gated(x: Array, out: Array, problem: Gated) -> None:
    """See `Gated`."""
    if out.size:
        number, itemsize = number_of(problem.activation), out.itemsize
        _gated(3 * out.nbytes, KINDS[out.dtype], itemsize, x.view(BYTES), out.view(BYTES), number)


@kernel
def _gated(kind, itemsize, x, out, activation):
    width = out.shape[1] // itemsize
    pieces = (width + PIECE - 1) // PIECE
    for task in numba.prange(len(x) * pieces):
        row = np.int64(task) // pieces
        gate(kind, itemsize, x, out, activation, row, (np.int64(task) - row * pieces) * PIECE, width)
