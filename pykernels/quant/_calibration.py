"""Scales for weights that are quantized once: what range of each block the codes should span."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _options
from ._quantize import quantize, quantize_dequantize
from ._tensor import QuantizedTensor
from ._weight import block_of

CALIBRATIONS = ("max", "percentile", "mse")
FACTORS = tuple(float(factor) for factor in np.linspace(1, 0.2, 41))
"""What "mse" tries to multiply the scales of "max" by."""
_SMALLEST = 2.0**-126


def check(calibration: Any, percentile: Any, granularity: Any) -> None:
    _options.choice("calibration", calibration, CALIBRATIONS)
    if calibration != "max" and granularity == "mx":
        raise ValueError(
            f"calibration={calibration!r} with granularity='mx', whose scales are powers of two: expected 'max'"
        )
    if not isinstance(percentile, Real) or isinstance(percentile, bool):
        raise TypeError(f"percentile={percentile!r}: expected a number in (0, 100]")
    if not 0 < float(percentile) <= 100:
        raise ValueError(f"percentile={percentile!r}: expected a number in (0, 100]")


def calibrated(weight: Tensor, format: str, granularity: Any, calibration: str, percentile: float) -> QuantizedTensor:
    """The finite `weight` (N, K), quantized by the scales of a calibration; magnitudes past their range saturate."""
    by_max = quantize(weight, format, granularity=granularity)
    if calibration == "max" or weight.numel() == 0:
        return by_max
    n, k = weight.shape
    block = block_of((n, k), granularity, -1)
    wide = weight.float()
    if calibration == "percentile":
        limits = by_block(wide.abs(), block, lambda each: _quantile(each, percentile / 100))
        within = quantize(limits.reshape(-1, 1), format, granularity="row").scale.reshape(by_max.scale.shape)
        scale = torch.where(limits.reshape(within.shape) > 0, within, by_max.scale)
    else:
        scale = _least_squares(wide, by_max.scale, block, format, granularity)
    return quantize(weight, format, granularity=granularity, scale=scale)


def by_block(x: Tensor, block: tuple[int, int], reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """`reduce` of the rows and columns (axes 2 and 3) of every block of `x`, ragged ones at the edges included."""
    bands = []
    for rows in _runs(x.shape[0], block[0]):
        tiles = []
        for columns in _runs(x.shape[1], block[1]):
            part = x[rows[0] : rows[1], columns[0] : columns[1]]
            part = part.reshape(-1, rows[2], (columns[1] - columns[0]) // columns[2], columns[2])
            tiles.append(reduce(part.transpose(1, 2)))
        bands.append(torch.cat(tiles, 1))
    return torch.cat(bands, 0)


def _runs(size: int, width: int) -> list[tuple[int, int, int]]:
    """Start, end and width of the whole blocks of an axis, and of the one that remains."""
    width = min(width, size)
    whole = size - size % width
    runs = [(0, whole, width), (whole, size, size - whole)]
    return runs if whole < size else runs[:1]


def _quantile(magnitudes: Tensor, share: float) -> Tensor:
    """The smallest element of every block that at least a `share` of its elements do not exceed."""
    flat = magnitudes.flatten(2)
    return flat.kthvalue(max(ceil(share * flat.shape[2]), 1), 2).values


def _least_squares(wide: Tensor, largest: Tensor, block: tuple[int, int], format: str, granularity: Any) -> Tensor:
    """Of the scales `largest` times `FACTORS`, those with the least sum of squared errors in every block."""
    best: Any = None
    for factor in FACTORS:
        scale = (largest * factor).clamp(min=_SMALLEST)
        rounded = quantize_dequantize(wide, format, granularity=granularity, scale=scale)
        errors = by_block(rounded.sub_(wide).square_(), block, lambda each: each.sum(3, dtype=torch.float64).sum(2))
        errors = errors.reshape(largest.shape)
        if best is None:
            best, chosen = errors, scale
        else:
            chosen = torch.where(errors < best, scale, chosen)
            best = torch.minimum(errors, best)
    return chosen
