"""Softmax of allowed logits in NumPy float64."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def softmax(s: Array, allowed: Array, v: Array, sink: float = -np.inf) -> tuple[Array, Array]:
    """Outputs and logarithms of the denominators of rows of logits, of which those `allowed` take part."""
    out, lse = np.zeros((len(s), v.shape[1])), np.full(len(s), sink)
    for i, row in enumerate(s):
        part = allowed[i] & ~np.isneginf(row)
        chosen = row[part]
        if np.isnan(chosen).any() or np.isposinf(chosen).any():
            out[i] = lse[i] = np.nan
            continue
        highest = max(chosen.max(initial=-np.inf), sink)
        if np.isneginf(highest):
            continue
        weights = np.exp(chosen - highest)
        total = weights.sum() + np.exp(sink - highest)
        with np.errstate(invalid="ignore"):
            out[i], lse[i] = weights @ v[part] / total, highest + np.log(total)
    return out, lse


def wide(x: Array) -> Array:
    return np.asarray(x, np.float64)
