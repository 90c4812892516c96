"""Element-wise activations in float32, as `_activated` defines and `_activations` computes them."""

from __future__ import annotations

import triton
import triton.language as tl

from . import _activations

TAIL = tl.constexpr(tuple(map(float, _activations.TAIL)))
BEND, END = tl.constexpr(float(_activations.BEND)), tl.constexpr(float(_activations.END))
ROOT, CUBE = tl.constexpr(float(_activations.ROOT)), tl.constexpr(float(_activations.CUBE))


@triton.jit
def activate(z, NAME: tl.constexpr):
    if NAME == "relu":
        z = tl.where(z < 0, 0.0, z)
    elif NAME == "silu":
        z = z / (1 + tl.exp(-z))
    elif NAME == "gelu":
        z = z * _normal_distribution(z)
    elif NAME == "gelu_tanh":
        z = z / (1 + tl.exp((z + z * CUBE * z * z) * -ROOT))
    return z


@triton.jit
def _normal_distribution(z):
    a = tl.minimum(tl.abs(z), END, propagate_nan=tl.PropagateNan.ALL)
    square = a * a
    cut = tl.fma(a, a, -square)
    u = 1 / (1 + a * BEND)
    p = tl.full(z.shape, TAIL[8], tl.float32)
    for k in tl.static_range(8):
        p = p * u + TAIL[7 - k]
    tail = p * u * (tl.exp(-0.5 * square) * (1 - 0.5 * cut))
    return tl.where(z < 0, tail, 1 - tail)
