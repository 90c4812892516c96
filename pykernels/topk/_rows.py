"""Selections along an axis, as the launchers take them: rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _options


def rows(arrays: Any, x: Any, axis: int, backend: str) -> Any:
    """`x` as a dense matrix (R, n) with `axis` along its rows."""
    x = arrays.dense(_to_last(arrays, x, axis))
    return arrays.raw(x, backend, (prod(x.shape[:-1]), x.shape[-1]))


def fill(
    arrays: Any, x: Any, axis: int, size: int, dtype: str, backend: str, out: Any, run: Callable[[Any, Any], None]
) -> tuple[Any, Any]:
    """Have ``run(values, indices)`` fill matrices (R, size), and give them the dimensions of `x`, `axis` of `size`.

    `out` is None, or a pair to fill that `check_out` has accepted.
    """
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    matrix = (prod(rest), size)
    if out is None:
        values, first = arrays.allocate((*rest, size), dtype, x, backend)
        indices, second = arrays.allocate((*rest, size), "int64", x, backend)
        run(first.reshape(matrix), second.reshape(matrix))
        return _from_last(arrays, values, axis), _from_last(arrays, indices, axis)
    targets = [_to_last(arrays, each, axis) for each in out]
    if all(map(arrays.is_dense, targets)):
        run(*(arrays.raw(target, backend, matrix) for target in targets))
    else:
        for each, result in zip(out, fill(arrays, x, axis, size, dtype, backend, None, run), strict=True):
            arrays.copy_into(each, result)
    return out[0], out[1]


def check_out(arrays: Any, x: Any, axis: int, size: int, dtype: str, out: Any) -> None:
    """Refuse what is no pair (values, indices) for a selection from `x`."""
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    _options.check_out_pair(arrays, out, shape, (dtype, "int64"), (x,))


def _to_last(arrays: Any, x: Any, axis: int) -> Any:
    ndim = len(x.shape)
    if axis == ndim - 1:
        return x
    return arrays.permute(x, (*range(axis), *range(axis + 1, ndim), axis))


def _from_last(arrays: Any, x: Any, axis: int) -> Any:
    ndim = len(x.shape)
    if axis == ndim - 1:
        return x
    return arrays.permute(x, (*range(axis), ndim - 1, *range(axis, ndim - 1)))
