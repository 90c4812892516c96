"""What the launchers of all backends take besides arrays."""

from __future__ import annotations

from typing import NamedTuple

FLOATS = ("float32", "bfloat16", "float16")


class Norm(NamedTuple):
    """`normalize(x, residual, weight, bias, total, out, problem)`, every array with a last stride of 1.

    x, residual, total, out (M, E) of one of FLOATS; residual and total are both None or both arrays; weight (E,)
    float32, bias (E,) float32 or None. Of arrays to write, total may be x or residual, and out may be x where there
    is no residual; they share no other memory.
    """

    kind: str  # "rms" or "layer"
    eps: float  # inside the root
    offset: float = 0.0  # added to weight


class Rotary(NamedTuple):
    """`rotary(x, cos, sin, positions, out, problem)`.

    x, out (n, H, T, D) of one of FLOATS, any strides with a last one of 1, out being x or sharing no memory with it;
    cos, sin (P, R / 2) float32, C-contiguous, 2 <= R <= D even; positions (n, T) int64 from 0 to P - 1.
    """

    interleaved: bool = False


class Gated(NamedTuple):
    """`gated(x, out, problem)`: x (M, 2 F), out (M, F) of one of FLOATS with last strides of 1, sharing no memory."""

    activation: str  # "relu", "silu", "gelu" or "gelu_tanh"
