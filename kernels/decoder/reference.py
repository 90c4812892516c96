"""The definition in float64, rounded when it is written."""

from __future__ import annotations

import numpy as np

from .._activated import activated
from .problem import Gated, Norm, Rotary


def normalize(x, residual, weight, bias, total, out, problem: Norm) -> None:
    """See `Norm`."""
    if residual is not None:
        total[...] = (np.float64(x) + np.float64(residual)).astype(total.dtype)
        x = total
    if not out.size:
        return
    h = np.float64(x)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if problem.kind == "layer":
            h = h - h.mean(1, keepdims=True)
        y = h / np.sqrt((h * h).mean(1, keepdims=True) + problem.eps) * (np.float64(weight) + problem.offset)
        out[...] = (y if bias is None else y + np.float64(bias)).astype(out.dtype)


def rotary(x, cos, sin, positions, out, problem: Rotary) -> None:
    """See `Rotary`."""
    half = cos.shape[1]
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if problem.interleaved else (slice(half), slice(half, 2 * half))
    )
    c, s = (np.float64(table)[positions][:, None] for table in (cos, sin))  # (n, 1, T, R / 2)
    a, b = np.float64(x[..., first]), np.float64(x[..., second])
    with np.errstate(invalid="ignore", over="ignore"):
        out[..., 2 * half :] = x[..., 2 * half :]
        out[..., first] = (a * c - b * s).astype(out.dtype)
        out[..., second] = (b * c + a * s).astype(out.dtype)


def gated(x, out, problem: Gated) -> None:
    """See `Gated`."""
    width = out.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        gate = activated(np.float64(x[:, :width]), problem.activation)
        out[...] = (gate * np.float64(x[:, width:])).astype(out.dtype)
