"""Weights of products, as launchers take them."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .. import _options
from .._arrays import FLOAT8
from ..kernels.linear.problem import FLOATS
from ._arguments import CODES
from ._layout import layout
from ._tensor import QuantizedTensor

_FORMATS = {dtype: format for format, dtype in CODES.items()}
_SCALES = ("float32", FLOAT8["e8m0fnu"])


class Weight(NamedTuple):
    """Codes (N, K), their format, and float32 scales (ceil(N / R), ceil(K / C)) of blocks (R, C), or None."""

    shape: tuple[int, int]
    codes: Any
    scale: Any
    format: str
    block: tuple[int, int]


_prepared: WeakKeyDictionary[QuantizedTensor, dict[str, tuple[Any, Weight]]] = WeakKeyDictionary()


def prepare(arrays: Any, x: Any, weight: Any, backend: str) -> Weight:
    """`weight` for launchers, checked, of the kind of array and on the device of `x`.

    That of a QuantizedTensor is kept as long as it, unless torch says that it was written to or moved.
    """
    if not isinstance(weight, QuantizedTensor):
        values = _options.alike(arrays, x, "weight", weight, FLOATS)
        shape = _matrix("weight", values)
        return Weight(shape, rows(arrays, values, backend), None, arrays.dtype_name(values), (1, 1))
    codes = _options.alike(arrays, x, "weight.codes", weight.codes, _FORMATS)
    scale = _options.alike(arrays, x, "weight.scale", weight.scale, _SCALES)
    state = arrays.state(codes), arrays.state(scale)
    known = _prepared.setdefault(weight, {})
    before, found = known.get(backend, (None, None))
    if found is None or before != state:
        found = _convert(arrays, codes, scale, weight, backend)
        known[backend] = state, found
    return found


def rows(arrays: Any, x: Any, backend: str) -> Any:
    """`x`, of two axes, as launchers take it: the last one contiguous."""
    return arrays.raw(x if arrays.is_strided(x) else arrays.dense(x), backend)


def block_of(shape: tuple[int, int], granularity: Any, axis: int) -> tuple[int, int]:
    """Rows and columns of a matrix, not an empty one, that share a scale, whichever way its layout sees it."""
    if granularity == "tensor":
        return shape
    blocks = layout(shape, granularity, axis)
    return blocks.block if blocks.view[1:] == shape else (blocks.block[1], blocks.block[0])


def _convert(arrays: Any, codes: Any, scale: Any, weight: QuantizedTensor, backend: str) -> Weight:
    shape = _matrix("weight", codes)
    expected = layout(shape, weight.granularity, weight.axis).scale_shape
    if tuple(scale.shape) != expected:
        raise ValueError(f"weight.scale has shape {tuple(scale.shape)}: expected {expected}")
    format = _FORMATS[arrays.dtype_name(codes)]
    codes = rows(arrays, codes, backend)
    if 0 in shape:  # where not even a whole tensor has blocks
        return Weight(shape, codes, None, format, (1, 1))
    block = block_of(shape, weight.granularity, weight.axis)
    grid = -(-shape[0] // block[0]), -(-shape[1] // block[1])
    return Weight(shape, codes, arrays.raw(arrays.dense(arrays.cast(scale, "float32")), backend, grid), format, block)


def _matrix(name: str, x: Any) -> tuple[int, int]:
    if len(x.shape) != 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (N, K)")
    n, k = x.shape
    return int(n), int(k)
