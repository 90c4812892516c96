"""The definition in float64."""

from __future__ import annotations

import math

import numpy as np

from .._activated import activated
from .problem import Problem


def linear(x, x_scale, codes, scale, bias, out, problem: Problem) -> None:
    """See `Problem`."""
    wide = values(codes, problem.format)
    if scale is not None:
        rows, columns = problem.block
        n, k = codes.shape
        wide = wide * np.float64(scale).repeat(rows, 0)[:n].repeat(columns, 1)[:, :k]
    left = np.float64(x) if problem.x_format is None else values(x, problem.x_format)
    if x_scale is not None:
        left = left * np.float64(x_scale)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        y = left @ wide.T
        if bias is not None:
            y = y + np.float64(bias)
        out[...] = activated(y, problem.activation).astype(out.dtype)


def values(codes: np.ndarray, format: str) -> np.ndarray:
    """What codes mean: integers and floats themselves, fp8 by sign, exponent and fraction."""
    if codes.dtype != np.uint8:
        return np.float64(codes)
    return np.array([_fp8(code, format) for code in range(256)])[codes]


def _fp8(code: int, format: str) -> float:
    fraction_bits = 3 if format.startswith("e4m3") else 2
    unsigned = format.endswith("fnuz")  # one zero, one NaN
    bias = (7 if fraction_bits == 3 else 15) + unsigned
    magnitude, sign = code & 0x7F, -1.0 if code & 0x80 else 1.0
    exponent, fraction = divmod(magnitude, 1 << fraction_bits)
    if code == 0x80 and unsigned:
        return math.nan
    if format == "e4m3fn" and magnitude == 0x7F:
        return math.nan
    if format == "e5m2" and exponent == 31:
        return math.nan if fraction else sign * math.inf
    significand = fraction if exponent == 0 else fraction + (1 << fraction_bits)
    return sign * significand * 2.0 ** (max(exponent, 1) - bias - fraction_bits)
