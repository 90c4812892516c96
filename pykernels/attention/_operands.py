"""Queries, keys and values: their checks, and outputs that lie in memory as they do."""

from __future__ import annotations

from typing import Any

from .. import _options
from .._arrays import namespace
from ._scoring import alike

_SHAPES = {
    4: ("(B, Hq, Sq, D)", "(B, Hkv, Sk, D)", "(B, Hkv, Sk, Dv)"),
    3: ("(T, Hq, D)", "(Tk, Hkv, D)", "(Tk, Hkv, Dv)"),
}


def operands(q: Any, k: Any, v: Any, ndim: int = 4) -> tuple[Any, Any, Any, Any]:
    """The module for the kind of the arrays, and q, k and v, which fit together: 4 axes, or 3 of a ragged batch."""
    q, arrays = namespace(q)
    dtype = (_options.floating(arrays, q, "q"),)
    k, v = alike(arrays, q, "k", k, dtype), alike(arrays, q, "v", v, dtype)
    for name, x, expected in zip("qkv", (q, k, v), _SHAPES[ndim], strict=True):
        if len(x.shape) != ndim:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: expected {expected}")
    if q.shape[-1] != k.shape[-1] or q.shape[-1] < 1 or v.shape[-1] < 1:
        raise ValueError(
            f"q has shape {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)}: expected the same last axis D "
            "of q and k, and D and Dv of at least 1"
        )
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}: expected a value for every key")
    if k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise ValueError(f"q has {q.shape[1]} heads and k {k.shape[1]}: expected a number that k's divides")
    if ndim == 4 and q.shape[0] != k.shape[0]:
        raise ValueError(f"q has a batch of {q.shape[0]} and k of {k.shape[0]}: expected the same")
    return arrays, q, k, v


def check_out(arrays: Any, out: Any, shape: tuple[int, ...], q: Any, *others: Any) -> None:
    """Refuse an `out` that is no array of its own of `shape`, of the kind and dtype of `q`."""
    _options.check_out(arrays, out, shape, arrays.dtype_name(q), q)
    for x in others:
        if x is not None and arrays.overlap(out, x):
            raise ValueError("out shares memory with the input: expected an array of its own")
    if any(stride == 0 and size > 1 for size, stride in zip(out.shape, arrays.strides(out), strict=True)):
        raise ValueError("out has elements that share memory with each other: expected an array of its own")


def tokens_first(arrays: Any, x: Any) -> bool:
    """Whether `x` (B, H, S, D) has the heads of a token side by side in memory."""
    strides = arrays.strides(x)
    return bool(strides[1] < strides[2])


def allocate(arrays: Any, shape: tuple[int, ...], dtype: str, like: Any, backend: str) -> tuple[Any, Any]:
    """An array (B, H, S, D) to fill, with its axes in memory in the order of `like`, and as launchers take it."""
    if not tokens_first(arrays, like):
        return arrays.allocate(shape, dtype, like, backend)  # type: ignore[no-any-return]
    b, h, s, d = shape
    array, target = arrays.allocate((b, s, h, d), dtype, like, backend)
    return arrays.permute(array, (0, 2, 1, 3)), namespace(target)[1].permute(target, (0, 2, 1, 3))
