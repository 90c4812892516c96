"""What the launchers of all backends take besides arrays."""

from __future__ import annotations

from typing import NamedTuple

from .._activated import ACTIVATIONS as ACTIVATIONS

FLOATS = ("float32", "bfloat16", "float16")


class Problem(NamedTuple):
    """`linear(x, x_scale, codes, scale, bias, out, problem)`, every array with a last stride of 1.

    x (M, K) of FLOATS with `x_scale` None, or int8 or uint8 (fp8) codes with `x_scale` (M,) float32;
    codes (N, K) of int8, uint8 (fp8) or FLOATS; scale float32 (ceil(N / R), ceil(K / C)) or None;
    bias (N,) float32 or None; out (M, N) of FLOATS, sharing memory with none of the others.
    """

    format: str  # of codes: "int8", one of the fp8 formats, or one of FLOATS
    block: tuple[int, int] = (1, 1)  # R, C: rows and columns of codes with one scale; without scales not read
    activation: str | None = None  # None or one of ACTIVATIONS
    x_format: str | None = None  # None, "int8" or one of the fp8 formats
