"""From a granularity to the blocks that share a scale."""

from __future__ import annotations

from math import prod
from numbers import Integral
from typing import Any, NamedTuple

from .._remembered import remembered

GRANULARITIES = "'tensor', 'row', 'column', 'mx' or a pair of positive integers"
MX_BLOCK = 32

Granularity = str | tuple[int, int]


class Layout(NamedTuple):
    """An array seen as (B, M, N), one scale per `block` of (M, N), stored with shape `scale_shape`."""

    view: tuple[int, int, int]
    block: tuple[int, int]
    grid: tuple[int, int, int]
    scale_shape: tuple[int, ...]


def layout(shape: tuple[int, ...], granularity: Any, axis: Any) -> Layout:
    """The blocks of an array of `shape`; a row runs along `axis`, and so does the second number of a pair."""
    if isinstance(granularity, list):
        granularity = tuple(granularity)
    try:
        build = _layout if all(type(n) is int for n in shape) else _layout.__wrapped__  # symbolic sizes do not hash
        return build(tuple(shape), granularity, axis)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise TypeError(f"granularity={granularity!r}: expected {GRANULARITIES}") from None


@remembered
def _layout(shape: tuple[int, ...], granularity: Any, axis: Any) -> Layout:
    if granularity == "tensor":
        size = prod(shape)
        return Layout((1, 1, size), (1, max(size, 1)), (1, 1, 1), ())
    height, width = _block(granularity)
    ndim = len(shape)
    needed = 1 if height == 1 else 2
    if ndim < needed:
        raise ValueError(f"granularity={granularity!r} needs at least {needed} dimension(s): x has {ndim}")
    if not isinstance(axis, Integral) or not -ndim <= int(axis) < ndim:
        raise ValueError(f"axis={axis!r}: expected an axis of an array of {ndim} dimension(s)")
    axis = int(axis) % ndim

    if height == _ALL and width == 1:
        return _runs(shape, axis - 1 if axis == ndim - 1 else ndim - 1, _ALL)
    if height == 1:
        return _runs(shape, axis, width)
    if axis < ndim - 2:
        raise ValueError(f"axis={axis!r} with granularity={granularity!r}: expected one of the last two axes")
    if axis == ndim - 2:
        height, width = width, height
    *lead, m, n = shape
    grid = (prod(lead), -(-m // height), -(-n // width))
    return Layout((prod(lead), m, n), (height, width), grid, (*lead, *grid[1:]))


_ALL = 0


def _block(granularity: Any) -> tuple[int, int]:
    """Rows and columns of a block; `_ALL` stands for the whole axis."""
    named = {"row": (1, _ALL), "column": (_ALL, 1), "mx": (1, MX_BLOCK)}
    if isinstance(granularity, str):
        if granularity not in named:
            raise ValueError(f"granularity={granularity!r}: expected {GRANULARITIES}")
        return named[granularity]
    if not isinstance(granularity, tuple) or not all(isinstance(n, Integral) for n in granularity):
        raise TypeError(f"granularity={granularity!r}: expected {GRANULARITIES}")
    if len(granularity) != 2 or min(granularity) < 1:
        raise ValueError(f"granularity={granularity!r}: expected {GRANULARITIES}")
    return int(granularity[0]), int(granularity[1])


def _runs(shape: tuple[int, ...], axis: int, width: int) -> Layout:
    """Blocks of `width` elements along one axis."""
    outer, n, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    width = width or max(n, 1)
    count = -(-n // width)
    scale_shape = (*shape[:axis], count, *shape[axis + 1 :])
    if inner == 1:
        return Layout((1, outer, n), (1, width), (1, outer, count), scale_shape)
    return Layout((outer, n, inner), (width, 1), (outer, count, inner), scale_shape)
