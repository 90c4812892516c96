"""Whether a transform's input is sound: one pass over it, before anything is written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .._numba import jit, kernel, plus
from .problem import Motion, Tree

Array = np.ndarray[Any, Any]


def sound(positions: Array, motion: Motion, tree: Tree) -> bool:
    """Whether all numbers are finite, and the ends of every axis apart, of `positions` (B or 1, N, 3)."""
    good = np.empty(len(motion.axis), np.uint8)
    nbytes = positions.nbytes + 3 * motion.euler.nbytes
    _sound(nbytes, positions, *motion, tree.axis_anchor, tree.axis_bonded, shortest(positions.dtype), good)
    return bool(good.all())


def shortest(dtype: Any) -> Any:
    """The least square of an axis' length: what is below is no normal number."""
    return np.finfo(dtype).tiny


@kernel
def _sound(positions, translation, euler, axis, macro_translation, macro_euler, anchor, bonded, least, good):
    for b in prange(len(good)):
        member = np.int64(b)
        fine = _moves(translation, euler, axis, macro_translation, macro_euler, member)
        if member < len(positions):
            fine &= _places(positions, anchor, bonded, least, member)
        good[member] = fine


@jit
def _moves(translation, euler, axis, macro_translation, macro_euler, b):
    return (
        _finite(translation[b].reshape(-1))
        & _finite(euler[b].reshape(-1))
        & _finite(axis[b])
        & _finite(macro_translation[b].reshape(-1))
        & _finite(macro_euler[b].reshape(-1))
    )


@jit
def _places(positions, anchor, bonded, least, b):
    x = positions[b].reshape(-1)
    fine = _finite(x)
    for a in range(len(anchor)):
        i, j = 3 * anchor[a], 3 * bonded[a]
        dx, dy, dz = x[i] - x[j], x[i + 1] - x[j + 1], x[i + 2] - x[j + 2]
        fine &= dx * dx + dy * dy + dz * dz >= least
    return fine


@jit
def _finite(x):
    zero = x.dtype.type(0)
    total = zero
    for i in range(len(x)):
        total = plus(total, zero * x[i])  # NaN for NaN and Inf
    return total == zero
