"""Results, in arrays of the user's if need be."""

from __future__ import annotations

from typing import Any

from .. import _options


def check_out_pair(arrays: Any, out: Any, shape: tuple[int, ...], sources: tuple[Any, ...]) -> None:
    """Refuse anything but two arrays, for float32 scores and int64 ids, that share memory with nothing."""
    _options.check_out_pair(arrays, out, shape, ("float32", "int64"), sources)


def deliver(arrays: Any, results: tuple[Any, ...], out: Any) -> Any:
    """The results, or `out` with their values."""
    if out is None:
        return results
    for target, result in zip(out, results, strict=True):
        arrays.copy_into(target, result)
    return out
