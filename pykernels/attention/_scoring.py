"""How logits are made: checks of the arguments that say so, and the `Scoring` that launchers take.

A public function calls `scoring` on what the user passed, before anything is written, and `raw` on the result
for the launchers:

    asked = scoring(arrays, q, q.shape[1], causal=causal, scale=scale, window=window, softcap=softcap, sinks=sinks,
                    alibi_slopes=alibi_slopes)
    launcher("attention", backend, "decode")(..., raw(arrays, asked, None, backend), ...)

Between the two, arrays are of the user's kind and dtypes are the launchers'; bias and mask have four axes, of size 1
where they are broadcast.
"""

from __future__ import annotations

from math import isfinite
from numbers import Integral, Real
from typing import Any

from .. import _options
from .._arrays import FLOATING, namespace
from ..kernels.attention.problem import Scoring

CAUSAL = ("lower_right", "upper_left")


def scoring(
    arrays: Any,
    q: Any,
    heads: int,
    *,
    causal: bool | str,
    scale: float | None,
    window: tuple[int, int] | None,
    softcap: float | None,
    sinks: Any,
    alibi_slopes: Any,
    bias: Any = None,
    mask: Any = None,
    shape: tuple[int, int, int, int] | None = None,
) -> Scoring:
    """The checked arguments for checked queries `q` (..., D); `bias` and `mask` broadcast to `shape`."""
    left, right, upper_left = _reach(causal, window)
    width = logit_dtype(arrays, q)
    if alibi_slopes is not None:
        alibi_slopes = _per_head(arrays, q, "alibi_slopes", alibi_slopes, heads, width)
        if arrays.needs_gradient(alibi_slopes):
            raise NotImplementedError("alibi_slopes requires a gradient, which is not computed: expected a constant")
    if bias is not None:
        bias = arrays.cast(_broadcast(arrays, q, "bias", bias, shape, FLOATING), width)
    if mask is not None:
        mask = _broadcast(arrays, q, "mask", mask, shape, ("bool",))
    if sinks is not None:
        sinks = _per_head(arrays, q, "sinks", sinks, heads, width)
    return Scoring(
        q.shape[-1] ** -0.5 if scale is None else finite("scale", scale),
        0.0 if softcap is None else _positive("softcap", softcap),
        left,
        right,
        upper_left,
        alibi_slopes,
        bias,
        mask,
        sinks,
    )


def raw(arrays: Any, asked: Scoring, shape: tuple[int, int, int, int] | None, backend: str) -> Scoring:
    """What `scoring` gave as the launchers of a backend take it, bias and mask as views of `shape`."""
    slopes, bias, mask, sinks = asked.slopes, asked.bias, asked.mask, asked.sinks
    if slopes is None and bias is None and mask is None and sinks is None:
        return asked
    return asked._replace(
        slopes=None if slopes is None else arrays.strided(slopes, backend),
        bias=None if bias is None else expanded(arrays, bias, shape, backend),
        mask=None if mask is None else expanded(arrays, mask, shape, backend),
        sinks=None if sinks is None else arrays.strided(sinks, backend),
    )


def expanded(arrays: Any, x: Any, shape: tuple[int, int, int, int] | None, backend: str) -> Any:
    """`x` with strides of 0 where it is broadcast to `shape`."""
    view = arrays.strided(x, backend)
    return namespace(view)[1].expand(view, shape)


def logit_dtype(arrays: Any, q: Any) -> str:
    """The dtype of lse, bias, slopes and sinks."""
    return "float64" if arrays.dtype_name(q) == "float64" else "float32"


def alike(arrays: Any, q: Any, name: str, value: Any, accepted: tuple[str, ...]) -> Any:
    """`value` as an array of the kind and on the device of `q`, of an accepted dtype."""
    return _options.alike(arrays, q, name, value, accepted, "q")


def _reach(causal: Any, window: Any) -> tuple[int, int, bool]:
    """The limits `left` and `right`, and whether queries are aligned to the first key."""
    if not isinstance(causal, bool) and causal not in CAUSAL:
        raise ValueError(f"causal={causal!r}: expected False, True, {' or '.join(map(repr, CAUSAL))}")
    left = right = -1
    if window is not None:
        if not isinstance(window, tuple | list) or len(window) != 2:
            raise TypeError(f"window={window!r}: expected a pair (left, right)")
        for limit in window:
            if not isinstance(limit, Integral) or isinstance(limit, bool):
                raise TypeError(f"window={window!r}: expected a pair of integers")
            if limit < -1:
                raise ValueError(f"window={window!r}: expected numbers of keys, or -1 for no limit")
        left, right = int(window[0]), int(window[1])
    return left, right if causal is False else 0, causal == "upper_left"


def finite(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected a number")
    if not isfinite(value):
        raise ValueError(f"{name}={value!r}: expected a finite number")
    return float(value)


def _positive(name: str, value: Any) -> float:
    number = finite(name, value)
    if number <= 0:
        raise ValueError(f"{name}={value!r}: expected a positive number, or None")
    return number


def _per_head(arrays: Any, q: Any, name: str, value: Any, heads: int, dtype: str) -> Any:
    value = alike(arrays, q, name, value, FLOATING)
    if tuple(value.shape) != (heads,):
        raise ValueError(f"{name} has shape {tuple(value.shape)}: expected {(heads,)}, a number for each query head")
    return arrays.cast(value, dtype)


def _broadcast(arrays: Any, q: Any, name: str, value: Any, shape: Any, accepted: tuple[str, ...]) -> Any:
    """`value` with four axes, of size 1 where it is broadcast to `shape`."""
    value = alike(arrays, q, name, value, accepted)
    given = tuple(value.shape)
    if len(given) > 4 or any(
        size != 1 and size != whole for size, whole in zip(reversed(given), reversed(shape), strict=False)
    ):
        raise ValueError(f"{name} has shape {given}: expected one that broadcasts to {shape}")
    return value if len(given) == 4 else value.reshape((1,) * (4 - len(given)) + given)
