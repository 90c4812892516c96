"""encode, decode and amax."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _options
from .._arrays import FLOAT8, namespace
from .._dispatch import choose_backend, launcher
from ..kernels.fp8.formats import FORMATS
from . import _arguments

_FORMAT_OF = {FLOAT8[name]: name for name in FORMATS}


def encode(
    x: Any,
    format: str,
    *,
    overflow: str = "sat",
    rounding: str = "nearest",
    seed: int | None = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """Convert to FP8 in one correctly rounded step, without a scale.

    Parameters
    ----------
    x : array of float64, float32, float16 or bfloat16, of any shape and strides
    format : "e4m3fn", "e5m2", "e4m3fnuz" or "e5m2fnuz"
    overflow : what happens past the largest value
        "sat" (OFP8 SAT): everything saturates, Inf too. "nonsat" (OFP8 NONSAT): Inf, or NaN in a
        format without Inf. "paper" (arXiv 2209.05433, section 2): finite values saturate; Inf stays
        Inf in e5m2 and becomes NaN in the others. NaN becomes NaN always.
    rounding : "nearest" (ties to even), "toward_zero" or "stochastic"
        Stochastic rounding depends on `seed` and the element's index in C order alone: the same
        bytes on every backend. Exact values stay exact. Under "sat" and "paper" no finite value
        becomes NaN or Inf.
    seed : integer in [0, 2**64), with "stochastic" only
    out : float8 array of the shape of `x`, sharing no memory with it
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    Array of x's kind and shape: ml_dtypes.float8_* for NumPy, torch.float8_* for torch. Not
    differentiable; see `quantize_dequantize`.

    Raises
    ------
    TypeError for an integer or complex `x` or a wrong dtype of `out`; ValueError for an unknown
    option, a bad seed, or an `out` of wrong shape or overlapping memory; NotImplementedError for a
    backend that cannot run here.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> quant.encode(np.float32([0.1, -1.0, 500.0]), "e4m3fn").view(np.uint8)
    array([ 29, 184, 126], dtype=uint8)
    """
    x, arrays = namespace(x)
    if arrays.tracing():
        _options.follows_data(backend)
        return arrays.operators("quant").encode(x, format, overflow, rounding, seed, out)
    fmt = _arguments.conversion(format, overflow, rounding, seed)
    _options.floating(arrays, x)
    run = launcher("fp8", backend := choose_backend(arrays, x, backend), "encode")

    if out is None and rounding != "stochastic" and not arrays.is_dense(x):
        x, inverse = _memory_order(arrays, x)
        codes = encode(arrays.dense(x), format, overflow=overflow, rounding=rounding, backend=backend)
        return arrays.permute(codes, inverse)

    source = arrays.raw(arrays.dense(x), backend)

    def convert(target: Any) -> None:
        run(source, target, fmt, overflow, rounding, seed)

    return _options.fill(arrays, out, tuple(x.shape), FLOAT8[format], x, backend, None, convert)


def decode(
    codes: Any, dtype: Any = None, *, format: str | None = None, out: Any = None, backend: str | None = None
) -> Any:
    """The values of FP8 codes; exact in every dtype.

    Parameters
    ----------
    codes : float8 array (ml_dtypes or torch), or uint8 array with `format`, of any shape and strides
    dtype : float32 (default), float64, float16 or bfloat16, as a name, a NumPy or a torch dtype
    format : the format of uint8 codes
    out : array of that dtype and the shape of `codes`, sharing no memory with it
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> quant.decode(np.uint8([29, 184, 126]), format="e4m3fn")
    array([ 1.015625e-01, -1.000000e+00,  4.480000e+02], dtype=float32)
    """
    codes, arrays = namespace(codes)
    name = _options.floating_name(dtype, "float32" if out is None else arrays.dtype_name(namespace(out)[0]))
    if arrays.tracing():
        _options.follows_data(backend)
        return arrays.operators("quant").decode(codes, name, format, out)
    stored = arrays.dtype_name(codes)
    if stored == "uint8" and format is not None:
        fmt = _arguments.fp8_format(format)
    elif stored in _FORMAT_OF and format in (None, _FORMAT_OF[stored]):
        fmt = FORMATS[_FORMAT_OF[stored]]
    else:
        raise TypeError(
            f"codes has dtype {stored} and format={format!r}: expected one of {', '.join(_FORMAT_OF)}, "
            f"or uint8 with format= one of {', '.join(FORMATS)}"
        )
    run = launcher("fp8", backend := choose_backend(arrays, codes, backend), "decode")

    if out is None and not arrays.is_dense(codes):
        codes, inverse = _memory_order(arrays, codes)
        return arrays.permute(decode(arrays.dense(codes), name, format=format, backend=backend), inverse)

    source = arrays.raw(arrays.dense(codes), backend)

    def convert(target: Any) -> None:
        run(source, target, fmt)

    return _options.fill(arrays, out, tuple(codes.shape), name, codes, backend, None, convert)


def amax(
    x: Any, axis: int | None = None, *, keepdims: bool = False, out: Any = None, backend: str | None = None
) -> Any:
    """Largest magnitude, in one pass; NaN and Inf propagate (NaN first), an empty reduction gives 0.

    Parameters
    ----------
    x : array of float64, float32, float16 or bfloat16, of any shape and strides
    axis : the axis to reduce; None for all of them
    keepdims : keep the reduced axes, with size one
    out : array of x's dtype and the result's shape, sharing no memory with `x`
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    Array of x's kind and dtype, of zero dimensions for ``axis=None``.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> quant.amax(np.float32([[1, -3], [2, 0]]), axis=0)
    array([2., 3.], dtype=float32)
    """
    x, arrays = namespace(x)
    if arrays.tracing():
        _options.follows_data(backend)
        return arrays.operators("quant").amax(x, axis, keepdims, out)
    dtype = _options.floating(arrays, x)
    shape = tuple(x.shape)
    if axis is None:
        view, kept = (1, prod(shape), 1), (1,) * len(shape)
        reduced: tuple[int, ...] = ()
    else:
        axis = _options.axis(axis, len(shape))
        view = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
        kept = (*shape[:axis], 1, *shape[axis + 1 :])
        reduced = (*shape[:axis], *shape[axis + 1 :])
    result = kept if keepdims else reduced
    run = launcher("fp8", backend := choose_backend(arrays, x, backend), "amax")
    ordered = _memory_order(arrays, x)[0] if axis is None and not arrays.is_dense(x) else x
    source = arrays.raw(arrays.dense(ordered), backend, view)

    def reduce(target: Any) -> None:
        run(source, target)

    return _options.fill(arrays, out, result, dtype, x, backend, (view[0], view[2]), reduce)


def _memory_order(arrays: Any, x: Any) -> tuple[Any, tuple[int, ...]]:
    """`x` with its axes in the order of memory, and the permutation that undoes it."""
    steps = arrays.strides(x)
    axes = tuple(sorted(range(len(steps)), key=lambda axis: -abs(steps[axis])))
    return arrays.permute(x, axes), tuple(axes.index(axis) for axis in range(len(axes)))
