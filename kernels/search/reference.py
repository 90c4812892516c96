"""The definition, in NumPy float64. The launchers of all backends have these signatures."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]


def search(
    q: Array,
    x: Array,
    scale: Array | None,
    bias: Array | None,
    rows: Array | None,
    mask: Array | None,
    workspace: int,
    scores: Array,
    ids: Array,
) -> None:
    """The best rows of `x` (N, D) for each of `q` (Q, D), in order: float32 `scores` and int64 `ids`, both (Q, k).

    `scale` and `bias` (None: ones, zeros) are float32 (N,), `rows` int64 (M,) and `mask` bool (Q, N).
    At most about `workspace` bytes of memory are used beside the arguments.
    """
    numbers = np.arange(len(x)) if rows is None else rows
    block = max(1, int(workspace // (8 * max(1, len(numbers)))))
    for first in range(0, len(q), block):
        s = wide(q[first : first + block]) @ wide(x[numbers]).T
        s = s * (1 if scale is None else scale[numbers]) + (0 if bias is None else bias[numbers])
        if mask is not None:
            s[~mask[first : first + block][:, numbers]] = -np.inf
        s[np.isnan(s)] = -np.inf
        s = s.astype(np.float32)
        for i, row in enumerate(s):
            best = np.lexsort((numbers, -row))[: scores.shape[1]]
            found = best[row[best] > -np.inf]
            scores[first + i], ids[first + i] = -np.inf, -1
            scores[first + i, : len(found)] = row[found]
            ids[first + i, : len(found)] = numbers[found]


def sums_of_squares(x: Array, out: Array) -> None:
    """``sum(x[n] ** 2)`` of each row into the float32 `out`."""
    out[:] = (wide(x) ** 2).sum(1)


def distances(q: Array, x: Array, scale: Array | None, ids: Array, out: Array) -> None:
    """``sum((q[i] - scale[n] * x[n]) ** 2)`` for n = ids[i, j] into float32 `out` (Q, k); Inf where n is -1."""
    for i in range(len(q)):
        factor = 1 if scale is None else scale[ids[i], None].astype(np.float64)
        out[i] = ((wide(q[i : i + 1]) - wide(x[ids[i]]) * factor) ** 2).sum(1)
        out[i, ids[i] < 0] = np.inf


def maxsim(q: Array, lengths: Array, x: Array, rows: Array | None, offsets: Array, scores: Array, argmax: Any) -> None:
    """Scores (B, documents) of the queries `q` (B, L, D), of which the first `lengths[b]` tokens count.

    `offsets` (documents + 1,) cuts the tokens `x` (T, D), or `rows` of them, into documents;
    `argmax`, if not None, is int64 (B, documents, L); tokens beyond a length have -1 there.
    """
    if argmax is not None:
        argmax[...] = -1
    for b in range(len(q)):
        query = wide(q[b, : lengths[b]])
        for d in range(len(offsets) - 1):
            numbers = np.arange(offsets[d], offsets[d + 1])
            numbers = numbers if rows is None else rows[numbers]
            s = query @ wide(x[numbers]).T
            s[np.isnan(s)] = -np.inf
            scores[b, d] = s.max(1, initial=-np.inf).sum()
            if argmax is not None and len(numbers):
                argmax[b, d, : lengths[b]] = numbers[s.argmax(1)]


def wide(x: Array) -> Array:
    """float64 values of `x`; uint8 are codes of e4m3fn."""
    return (x.view(ml_dtypes.float8_e4m3fn) if x.dtype == np.uint8 else x).astype(np.float64)
