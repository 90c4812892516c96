"""The definition, in NumPy: a stable sort of every row. The launchers of all backends have these signatures."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def topk(x: Array, k: int, largest: bool, ordered: bool, values: Array, indices: Array) -> None:
    """The k best of each row of `x` (R, n) into `values` (R, k) and the int64 `indices` (R, k)."""
    for row in range(x.shape[0]):
        best = ranking(x[row], np.arange(x.shape[1]), largest)[:k]
        indices[row] = best if ordered else np.sort(best)
        values[row] = x[row, indices[row]]


def partial_topk(x: Array, bins: int, per_bin: int, largest: bool, values: Array, indices: Array) -> None:
    """The `per_bin` best of each bin of each row of `x`, rank by rank, (R, bins * per_bin)."""
    bin_of = np.concatenate([rotated(step, bins) for step in range(-(-x.shape[1] // bins))])[: x.shape[1]]
    by_bin = np.argsort(bin_of, kind="stable")
    starts = np.searchsorted(bin_of[by_bin], np.arange(bins + 1))
    for row in range(x.shape[0]):
        for b in range(bins):
            members = by_bin[starts[b] : starts[b + 1]]
            best = members[ranking(x[row, members], members, largest)[:per_bin]]
            indices[row, b::bins] = best
            values[row, b::bins] = x[row, best]


def rotated(step: int, bins: int) -> Array:
    """The bins of the elements from ``step * bins``, one for each bin."""
    h = step * 0x9E3779B1 % 2**32
    h = (h ^ h >> 15) * 0x85EBCA77 % 2**32
    rotation = (h ^ h >> 13) * bins // 2**32
    return (np.arange(bins) + rotation) % bins


def select(x: Array, ids: Array, k: int, largest: bool, values: Array, indices: Array) -> None:
    """The k best of the candidates `x` (R, n), which carry distinct int64 `ids` (R, n), in order."""
    for row in range(x.shape[0]):
        best = ranking(x[row], ids[row], largest)[:k]
        indices[row] = ids[row, best]
        values[row] = x[row, best]


def ranking(x: Array, ids: Array, largest: bool) -> Array:
    """Positions of the vector `x` from best to worst; equal values by the lowest of `ids`."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        values = x if x.dtype.kind in "iu" else x.astype(np.float64)
    rank = np.unique(values, return_inverse=True)[1]
    order: Array = np.lexsort((ids, -rank if largest else rank))
    return order
