"""Element-wise activations in float32, for loops that are to be vectorised; `_activated` defines them.

Errors of silu and gelu_tanh are a few units in the last place where exp's argument is small, and grow with it as
those of exp do; that of gelu stays below 4e-7 of the result, tails included.
"""

from __future__ import annotations

import numpy as np

from ._activated import ACTIVATIONS
from ._exp import exp
from ._numba import jit
from ._vector import multiply_add

f32 = np.float32

NONE = -1
RELU, SILU, GELU, GELU_TANH = (ACTIVATIONS.index(name) for name in ("relu", "silu", "gelu", "gelu_tanh"))

TAIL = tuple(
    f32(c)
    for c in (
        0.13962129,
        0.13986375,
        0.11981964,
        0.10555886,
        -0.02322708,
        0.15934072,
        -0.25585711,
        0.14403955,
        -0.02915963,
    )
)
"""exp(a^2 / 2) Phi(-a) for 0 <= a < 15 as a polynomial without constant of 1 / (1 + `BEND` a), fitted to 3e-8."""
BEND, END = f32(0.35), f32(15)

ROOT, CUBE = f32((8 / np.pi) ** 0.5), f32(0.044715)


def number_of(name: str | None) -> int:
    """The activation as `activate` takes it."""
    return NONE if name is None else ACTIVATIONS.index(name)


@jit
def relu(z):
    return f32(0) if z < f32(0) else z


@jit
def silu(z):
    return z / (f32(1) + exp(-z))


@jit
def gelu(z):
    a = abs(z)
    if a > END:  # where Phi(-a) is less than any float32
        a = END
    square = a * a
    cut = multiply_add(-square, a, a)
    u = f32(1) / (f32(1) + BEND * a)
    p = TAIL[8]
    for k in range(7, -1, -1):
        p = multiply_add(TAIL[k], p, u)
    tail = p * u * (exp(f32(-0.5) * square) * (f32(1) - f32(0.5) * cut))
    return z * (tail if z < f32(0) else f32(1) - tail)


@jit
def gelu_tanh(z):
    return z / (f32(1) + exp(-ROOT * multiply_add(z, CUBE * z * z, z)))


@jit
def activate(activation, z):
    """Apply an activation to the elements of a float32 run, in place."""
    if activation == RELU:
        for i in range(z.size):
            z[i] = relu(z[i])
    elif activation == SILU:
        for i in range(z.size):
            z[i] = silu(z[i])
    elif activation == GELU:
        for i in range(z.size):
            z[i] = gelu(z[i])
    elif activation == GELU_TANH:
        for i in range(z.size):
            z[i] = gelu_tanh(z[i])
