"""The definition of `store`: numbers are float32, as they are what pages keep."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from .problem import Pages

Array = np.ndarray[Any, Any]

_LARGEST = {"int8": np.float32(127), "uint8": np.float32(448)}
_SMALLEST_SCALE = np.float32(2.0**-126)


def store(k: Array, v: Array, pages: Pages, where: Array) -> None:
    """Write tokens to pages; see `Pages`."""
    for x, values, scale in ((k, pages.k, pages.k_scale), (v, pages.v, pages.v_scale)):
        for n, t in np.ndindex(*where.shape[1:]):
            page, row = where[:, n, t]
            if scale is None:
                values[page, :, row] = x[n, :, t]
            else:
                values[page, :, row], scale[page, :, row] = quantized(np.float32(x[n, :, t]), values.dtype)


def quantized(x: Array, dtype: Any) -> tuple[Array, Array]:
    """Codes of float32 `x` (H, D), bytes if of e4m3fn, and their scales (H,)."""
    largest = np.abs(x).max(-1)
    scale = np.where(
        np.isfinite(largest), np.maximum(largest / _LARGEST[dtype.name], _SMALLEST_SCALE), np.float32("nan")
    )
    ratio = np.where(np.isfinite(scale)[:, None], x / scale[:, None], np.float32(0))
    codes = np.rint(ratio).astype(np.int8) if dtype == np.int8 else ratio.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes, scale
