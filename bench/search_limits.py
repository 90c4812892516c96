"""The third limit of a search in TPU-KNN's roofline: operations on scores, beside memory and matrix products."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numba
import numpy as np

from pykernels.kernels._numba import SERIAL_BYTES, kernel

Array = np.ndarray[Any, Any]

SCORES, PASSES, ROUNDS = 1 << 12, 1 << 13, 9
"""Scores of a tile in the first cache, and how often it is read."""


@kernel
def _largest(tiles: Array, passes: int, out: Array) -> None:
    for t in numba.prange(len(tiles)):
        tile = tiles[t]
        total = 0
        for first in range(passes):
            largest = np.int32(first)
            for i in range(tile.size):
                largest = tile[i] if tile[i] > largest else largest
            total += largest
        out[t] = total


def selection_rate() -> float:
    """Maxima of two scores that all threads take in a second, of int32 scores in cache."""
    tiles = np.zeros((numba.get_num_threads(), SCORES), np.int32)
    out = np.zeros(len(tiles), np.int64)
    _largest(SERIAL_BYTES, tiles, 1, out)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        _largest(SERIAL_BYTES, tiles, PASSES, out)
        seconds.append(time.perf_counter() - start)
    return tiles.size * PASSES / statistics.median(seconds)
