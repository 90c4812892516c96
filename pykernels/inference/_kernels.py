"""The small kernels of a decoder block on NumPy arrays or torch tensors; see `pykernels.kernels.decoder`.

Arguments are those of the launchers, all of one kind and on one device, and are not checked.
"""

from __future__ import annotations

from typing import Any

from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from ..kernels.decoder.problem import Gated, Norm, Rotary


def normalize(
    x: Any, weight: Any, bias: Any, norm: Norm, residual: Any = None, backend: str | None = None
) -> tuple[Any, Any]:
    """The sum of `x` (M, E) and `residual`, or `x` where there is none, and its norm; new arrays of x's dtype."""
    arrays = namespace(x)[1]
    backend = choose_backend(arrays, x, backend)
    dtype = arrays.dtype_name(x)
    out, target = arrays.allocate(x.shape, dtype, x, backend)
    given, scale = arrays.strided(x, backend), arrays.strided(weight, backend)
    shift = None if bias is None else arrays.strided(bias, backend)
    launch = launcher("decoder", backend, "normalize")
    if residual is None:
        launch(given, None, scale, shift, None, target, norm)
        return x, out
    total, sums = arrays.allocate(x.shape, dtype, x, backend)
    launch(given, arrays.strided(residual, backend), scale, shift, sums, target, norm)
    return total, out


def rotary(x: Any, cos: Any, sin: Any, positions: Any, turn: Rotary, backend: str | None = None) -> None:
    """Turn `x` (n, H, T, D), whose last stride is 1, in place by tables (P, R / 2) at positions (n, T)."""
    arrays = namespace(x)[1]
    backend = choose_backend(arrays, x, backend)
    given = arrays.strided(x, backend)
    tables = arrays.strided(cos, backend), arrays.strided(sin, backend), arrays.strided(positions, backend)
    launcher("decoder", backend, "rotary")(given, *tables, given, turn)


def gated(x: Any, activation: str, backend: str | None = None) -> Any:
    """``f(x[:, :F]) * x[:, F:]`` of `x` (M, 2 F), a new array (M, F)."""
    arrays = namespace(x)[1]
    backend = choose_backend(arrays, x, backend)
    out, target = arrays.allocate((x.shape[0], x.shape[1] // 2), arrays.dtype_name(x), x, backend)
    launcher("decoder", backend, "gated")(arrays.strided(x, backend), target, Gated(activation))
    return out
