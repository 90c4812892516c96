"""Sines and cosines of whole arrays, in a loop that vectorises."""

from __future__ import annotations

import math

from ._numba import bits_from_float64, jit
from ._vector import multiply_add

LARGEST = 1e6
"""Of the angles, in radian, that the vector loop reduces; `math` takes care of others."""

_HIGH, _MIDDLE, _LOW = (float.fromhex(f"0x1.{bits}") for bits in ("921fb544p+0", "0b4611a6p-34", "3198a2e037073p-69"))
"""The first 33 bits of pi/2, the next 33, the next 53: products of the first two with quarter turns are exact."""
_ROUND = 1.5 * 2.0**52
"""A sum with it has the nearest integer in its low bits."""

_SINE, _COSINE = (tuple((-1) ** (n // 2) / math.factorial(n) for n in range(first, 2, -2)) for first in (17, 16))
"""Taylor's coefficients down to those of r^3 and r^4; up to pi/4, others add less than 2^-58."""


@jit
def sincos(x, sines, cosines):
    """Sines and cosines of the vector `x`, float32 or float64, into vectors of the same dtype.

    Computed in float64, with an error below 2.1 ulp, and rounded. An angle's results do not depend on
    where in `x` it is. NaN and Inf give NaN.
    """
    far = 0
    for i in range(x.size):
        angle = float(x[i])
        sines[i], cosines[i] = _sincos(angle)
        far += not abs(angle) <= LARGEST
    if far > 0:
        for i in range(x.size):
            angle = float(x[i])
            if not abs(angle) <= LARGEST:
                sines[i], cosines[i] = math.sin(angle), math.cos(angle)


@jit
def _sincos(angle):
    rounded = angle * (2 / math.pi) + _ROUND
    quarters = rounded - _ROUND
    r = angle - quarters * _HIGH - quarters * _MIDDLE - quarters * _LOW
    z = r * r
    s, c = _SINE[0], _COSINE[0]
    for k in range(1, len(_SINE)):
        s = multiply_add(_SINE[k], s, z)
    for k in range(1, len(_COSINE)):
        c = multiply_add(_COSINE[k], c, z)
    s, c = multiply_add(r, r * z, s), 1 - (0.5 * z - z * z * c)
    turns = bits_from_float64(rounded)
    sine, cosine = (c, s) if turns & 1 else (s, c)
    return -sine if turns & 2 else sine, -cosine if (turns + 1) & 2 else cosine
