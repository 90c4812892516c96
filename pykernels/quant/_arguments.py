"""Checks of the options that only FP8 has."""

from __future__ import annotations

from functools import cache
from numbers import Integral
from typing import Any

from .._options import choice
from ..kernels.fp8 import formats
from ..kernels.fp8.formats import Format


def fp8_format(value: Any) -> Format:
    return formats.FORMATS[choice("format", value, formats.FORMATS)]


@cache
def _conversion(format: str, overflow: str, rounding: str) -> Format:
    choice("overflow", overflow, formats.OVERFLOWS)
    choice("rounding", rounding, formats.ROUNDINGS)
    return fp8_format(format)


def conversion(format: Any, overflow: Any, rounding: Any, seed: Any) -> Format:
    """The format, after checking the options of a conversion to it."""
    for name, value in (("format", format), ("overflow", overflow), ("rounding", rounding)):
        if not isinstance(value, str):
            raise TypeError(f"{name}={value!r}: expected a string")
    fmt = _conversion(format, overflow, rounding)
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
