"""Checks of the options that only quantization has."""

from __future__ import annotations

from functools import cache
from numbers import Integral
from typing import Any

from .._arrays import FLOAT8
from .._options import choice
from ..kernels.fp8 import formats
from ..kernels.fp8.formats import Format

CODES = {format: FLOAT8.get(format, format) for format in formats.SCALED_FORMATS}
"""The dtype of each format's codes."""


def fp8_format(value: Any) -> Format:
    return formats.FORMATS[choice("format", value, formats.FORMATS)]


@cache
def _conversion(format: str, overflow: str, rounding: str, scaled: bool) -> Format:
    choice("overflow", overflow, formats.OVERFLOWS)
    choice("rounding", rounding, formats.ROUNDINGS)
    if not scaled:
        return fp8_format(format)
    fmt = formats.SCALED_FORMATS[choice("format", format, formats.SCALED_FORMATS)]
    if fmt.integer and overflow != "sat":
        raise ValueError(f"overflow={overflow!r} with format={format!r}: expected 'sat', as it has no Inf and no NaN")
    return fmt


def conversion(format: Any, overflow: Any, rounding: Any, seed: Any, scaled: bool = False) -> Format:
    """The format, after checking the options of a conversion to it, with scales or without."""
    for name, value in (("format", format), ("overflow", overflow), ("rounding", rounding)):
        if not isinstance(value, str):
            raise TypeError(f"{name}={value!r}: expected a string")
    fmt = _conversion(format, overflow, rounding, scaled)
    if rounding == "stochastic" or seed is not None:
        check_seed(seed, rounding)
    return fmt


def check_seed(seed: Any, rounding: str) -> None:
    if rounding != "stochastic":
        raise ValueError(f"seed={seed!r} has no effect with rounding={rounding!r}: expected rounding='stochastic'")
    if seed is None:
        raise ValueError("rounding='stochastic' needs seed, an integer in [0, 2**64)")
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise TypeError(f"seed={seed!r}: expected an integer")
    if not 0 <= int(seed) < 1 << 64:
        raise ValueError(f"seed={seed!r}: expected an integer in [0, 2**64)")
