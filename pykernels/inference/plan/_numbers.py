"""Checks of real numbers."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def positive(name: str, value: Any, *, zero: bool = False, most: float = math.inf) -> float:
    """`value` as a finite float above 0 (or 0, with `zero`) and at most `most`."""
    accepted = f"a finite number {'of at least' if zero else 'above'} 0" + (f", at most {most}" * (most < math.inf))
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected {accepted}")
    number = float(value)
    if number < 0 or (number == 0 and not zero) or not math.isfinite(number) or number > most:
        raise ValueError(f"{name}={value!r}: expected {accepted}")
    return number
