"""Numba launchers: the same names and signatures as `reference`. Arrays are C-contiguous."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._numba import LANES, SERIAL_BYTES
from .._order import as_integers, key_dtype, order_constants
from .cpu_exact import LONGEST, maxima_kernel, topk_kernel
from .cpu_partial import partial_kernel, select_kernel

Array = np.ndarray[Any, Any]

SHORTEST = 32
"""Elements of the shortest chunks."""
KEY_WORK = 16
"""The work on an element that is a chunk of its own, in bytes moved."""
TASK = 1 << 16
"""Elements that are worth a second task within a row."""
TILE = 4096
"""Bins of one task: their survivors stay in cache."""


def topk(x: Array, k: int, largest: bool, ordered: bool, values: Array, indices: Array) -> None:
    """The k best of each row of `x` (R, n) into `values` (R, k) and the int64 `indices` (R, k)."""
    rows, n = x.shape
    if rows == 0 or k == 0:
        return
    chunk = chunk_length(n, k)
    nbytes = x.nbytes if chunk > 1 else KEY_WORK * x.size
    threads = numba.get_num_threads() if nbytes >= SERIAL_BYTES else 1
    bits, constants = as_integers(x), order_constants(x.dtype, largest)
    split = chunk > 1 and n >= TASK and rows % threads > 0 and rows < 4 * threads
    maxima = np.empty((rows if split else 0, -(-n // chunk)), key_dtype(x.dtype))
    if split:
        maxima_kernel(nbytes, bits, constants, chunk, maxima, threads)
    tasks = min(rows, threads)
    nbytes = nbytes if tasks > 1 else 0
    topk_kernel(nbytes, bits, constants, chunk, maxima, ordered, as_integers(values), indices, tasks)


def chunk_length(n: int, k: int) -> int:
    """Elements of a chunk, 1 where there would be too few chunks to leave most of them out.

    It is the power of two nearest to sqrt(1.2 n / k), where maxima and candidates together are fewest.
    """
    length = min(max(1 << ((6 * n // (5 * k)).bit_length() // 2), SHORTEST), LONGEST)
    return length if 2 * k * length <= n else 1


def partial_topk(x: Array, bins: int, per_bin: int, largest: bool, values: Array, indices: Array) -> None:
    """The `per_bin` best of each bin of each row of `x`, rank by rank, (R, bins * per_bin)."""
    rows, n = x.shape
    if rows == 0:
        return
    threads = numba.get_num_threads() if x.nbytes >= SERIAL_BYTES else 1
    parts = max(1, min(threads, n // TASK)) if rows < 4 * threads else 1
    tile = min(TILE, -(-bins // (parts * LANES)) * LANES)
    shape = (rows, per_bin, bins)
    out, numbers = as_integers(values).reshape(shape), indices.reshape(shape)
    partial_kernel(x.nbytes, as_integers(x), order_constants(x.dtype, largest), bins, tile, out, numbers)


def select(x: Array, ids: Array, k: int, largest: bool, values: Array, indices: Array) -> None:
    """The k best of the candidates `x` (R, n), which carry distinct int64 `ids` (R, n), in order."""
    rows = x.shape[0]
    if rows == 0 or k == 0:
        return
    nbytes = KEY_WORK * x.size
    tasks = min(rows, numba.get_num_threads()) if nbytes >= SERIAL_BYTES else 1
    keys = np.empty((tasks, x.shape[1]), key_dtype(x.dtype))
    bits, constants = as_integers(x), order_constants(x.dtype, largest)
    select_kernel(nbytes if tasks > 1 else 0, bits, constants, ids, keys, as_integers(values), indices)
