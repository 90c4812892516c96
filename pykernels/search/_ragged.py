"""Which tokens count: lengths, offsets and masks as the launchers take them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._vectors import on_host

Array = np.ndarray[Any, Any]

_INTEGERS = ("int64", "int32")


class Documents(NamedTuple):
    """Runs ``offsets[d] : offsets[d + 1]`` of `rows`, or of the tokens themselves if None."""

    rows: Array | None
    offsets: Array


class Queries(NamedTuple):
    """How many tokens of each query count, and which come first, (B, L); None: the first ones."""

    lengths: Array
    order: Array | None


def documents(shape: tuple[int, ...], offsets: Any, lengths: Any, mask: Any) -> Documents:
    """The documents of packed (T, D) or padded (n, Ld, D) tokens."""
    if len(shape) == 2:
        _refuse(("document_lengths", lengths), ("document_mask", mask), reason="packed documents")
        if offsets is None:
            raise ValueError(f"documents has shape {shape}, packed, and document_offsets=None: expected offsets")
        return Documents(None, _offsets(offsets, shape[0]))
    if len(shape) != 3:
        raise ValueError(f"documents has shape {shape}: expected (T, D) with document_offsets, or (documents, Ld, D)")
    count, width = shape[:2]
    _refuse(("document_offsets", offsets), reason="padded documents")
    if mask is not None:
        _refuse(("document_lengths", lengths), reason="document_mask")
        flags = _flags("document_mask", mask, (count, width))
    elif lengths is not None:
        flags = np.arange(width) < _lengths("document_lengths", lengths, (count,), width)[:, None]
    else:
        return Documents(None, np.arange(count + 1) * width)
    ends = np.cumsum(np.count_nonzero(flags, 1), dtype=np.int64)
    return Documents(np.flatnonzero(flags), np.concatenate([np.zeros(1, np.int64), ends]))


def queries(shape: tuple[int, ...], lengths: Any, mask: Any) -> Queries:
    """The tokens of queries (..., L, D); their lengths have the leading shape."""
    lead, width = shape[:-2], shape[-2]
    if mask is not None:
        _refuse(("query_lengths", lengths), reason="query_mask")
        flags = _flags("query_mask", mask, (*lead, width)).reshape(-1, width)
        counts = np.count_nonzero(flags, 1).astype(np.int64)
        if np.array_equal(flags, np.arange(width) < counts[:, None]):
            return Queries(counts, None)
        return Queries(counts, np.argsort(~flags, 1, kind="stable"))
    if lengths is not None:
        return Queries(_lengths("query_lengths", lengths, lead, width).reshape(-1), None)
    return Queries(np.full(lead, width, np.int64).reshape(-1), None)


def _offsets(value: Any, tokens: int) -> Array:
    offsets = on_host("document_offsets", value, _INTEGERS).astype(np.int64)
    if offsets.ndim != 1 or len(offsets) < 1:
        raise ValueError(f"document_offsets has shape {offsets.shape}: expected (documents + 1,)")
    if offsets[0] < 0 or offsets[-1] > tokens or (np.diff(offsets) < 0).any():
        raise ValueError(f"document_offsets does not ascend from at least 0 to at most {tokens}, the number of tokens")
    return np.ascontiguousarray(offsets)


def _lengths(name: str, value: Any, shape: tuple[int, ...], most: int) -> Array:
    lengths: Array = on_host(name, value, _INTEGERS).astype(np.int64)
    if lengths.shape != shape:
        raise ValueError(f"{name} has shape {lengths.shape}: expected {shape}")
    if lengths.size and (lengths.min() < 0 or lengths.max() > most):
        bad = lengths[(lengths < 0) | (lengths > most)].flat[0]
        raise ValueError(f"{name} contains {bad}: expected 0 to {most}")
    return lengths


def _flags(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    flags: Array = on_host(name, value, ("bool",))
    if flags.shape != shape:
        raise ValueError(f"{name} has shape {flags.shape}: expected {shape}")
    return flags


def _refuse(*arguments: tuple[str, Any], reason: str) -> None:
    for name, value in arguments:
        if value is not None:
            raise ValueError(f"{name} was given with {reason}: expected None")
