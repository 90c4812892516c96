"""Vectors as users pass them, plain or quantized, and as the launchers take them."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from .. import _options
from .._arrays import library, namespace
from ..quant import QuantizedTensor, decode

FLOATS = ("float32", "float16", "bfloat16")
CODES = ("int8", "float8_e4m3fn")


class Vectors(NamedTuple):
    """``values * scale``: an array (..., D) and, of a QuantizedTensor, float32 scales of shape () or (..., 1)."""

    arrays: Any
    values: Any
    scale: Any
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def described(self) -> str:
        return self.dtype if self.scale is None else f"{self.dtype} (QuantizedTensor)"

    def raw(self, backend: str, shape: tuple[int, ...] | None = None) -> Any:
        """The values, as (rows, D) unless said otherwise, as the launchers take them."""
        return self.arrays.raw(self.arrays.dense(self.values), backend, shape or (self.rows, self.shape[-1]))

    def raw_scale(self, backend: str) -> Any:
        """The scales as a float32 vector of `rows` elements, or None."""
        if self.scale is None:
            return None
        arrays = self.arrays
        scale = arrays.raw(arrays.dense(arrays.cast(self.scale, "float32")), backend)
        kind = namespace(scale)[1]
        return kind.dense(library(scale).broadcast_to(scale.reshape(-1), (self.rows,)))

    def floats(self, backend: str, dtype: str = "float32") -> Any:
        """``values * scale`` as a floating-point array (rows, D), as the launchers take it."""
        values = widened(self.raw(backend), dtype, backend)
        scale = self.raw_scale(backend)
        return values if scale is None else values * scale[:, None]


def vectors(name: str, x: Any) -> Vectors:
    """`x`, checked to be of a dtype and layout that the launchers read."""
    if not isinstance(x, QuantizedTensor):
        x, arrays = namespace(x)
        return Vectors(arrays, x, None, _options.dtype_name(arrays, x, FLOATS + CODES, name))
    codes, arrays = namespace(x.codes)
    dtype = arrays.dtype_name(codes)
    if dtype not in CODES:
        raise TypeError(f"{name} is quantized to {dtype}: expected one of {', '.join(CODES)}")
    last = x.axis in (-1, codes.ndim - 1)
    if x.granularity != "tensor" and not (x.granularity == "row" and last):
        raise ValueError(
            f"{name} has granularity {x.granularity!r} and axis {x.axis}: "
            "expected 'tensor', or 'row' along the last axis"
        )
    scale, kind = namespace(x.scale)
    if kind is not arrays:
        raise TypeError(
            f"{name} holds codes and scales of different kinds of array: expected both of NumPy or of torch"
        )
    expected = () if x.granularity == "tensor" else (*codes.shape[:-1], 1)
    if tuple(scale.shape) != tuple(expected):
        raise ValueError(f"{name} has scales of shape {tuple(scale.shape)}: expected {tuple(expected)}")
    return Vectors(arrays, codes, scale, dtype)


def check_pair(a: Vectors, b: Vectors, names: tuple[str, str]) -> None:
    """Refuse vectors of two kinds of array, on two devices or of different length, or of none."""
    if a.arrays is not b.arrays:
        raise TypeError(f"{names[0]} and {names[1]} are different kinds of array: expected both of NumPy or of torch")
    devices = a.arrays.device(a.values), b.arrays.device(b.values)
    if devices[0] != devices[1]:
        raise ValueError(
            f"{names[0]} is on device {devices[0]!r} and {names[1]} on {devices[1]!r}: expected one device"
        )
    if a.shape[-1] != b.shape[-1] or a.shape[-1] < 1:
        raise ValueError(
            f"{names[0]} has shape {a.shape} and {names[1]} {b.shape}: expected vectors of one length, at least 1"
        )


def widened(x: Any, dtype: str, backend: str) -> Any:
    """Launcher arguments, uint8 for codes of e4m3fn, as floating-point values: exact for codes in every dtype."""
    kind = namespace(x)[1]
    return decode(x, dtype, format="e4m3fn", backend=backend) if kind.dtype_name(x) == "uint8" else kind.cast(x, dtype)


def on_host(name: str, x: Any, dtypes: tuple[str, ...]) -> Any:
    """A small argument beside the vectors, an array of any kind or a list, as a NumPy array of one of `dtypes`."""
    value, kind = namespace(x)
    _options.dtype_name(kind, value, dtypes, name)
    return kind.to_numpy(value)
