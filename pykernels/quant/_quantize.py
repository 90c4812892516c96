"""quantize and quantize_dequantize."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _options
from .._arrays import FLOAT8, dtype_of, namespace
from .._dispatch import choose_backend, launcher
from .._remembered import remembered
from ..kernels.fp8 import formats
from ..kernels.fp8.formats import Recipe
from . import _arguments
from ._layout import Granularity, Layout, layout
from ._tensor import QuantizedTensor


class Options(NamedTuple):
    """What `quantize` and `quantize_dequantize` were asked for."""

    granularity: Any
    axis: int
    scale_format: str | None
    scale_rounding: str
    scale: Any
    overflow: str
    rounding: str
    seed: int | None


def quantize(
    x: Any,
    format: str,
    *,
    granularity: Granularity = "tensor",
    axis: int = -1,
    scale_format: str | None = None,
    scale_rounding: str = "floor",
    scale: Any = None,
    overflow: str = "sat",
    rounding: str = "nearest",
    seed: int | None = None,
    out: QuantizedTensor | None = None,
    backend: str | None = None,
) -> QuantizedTensor:
    """Scale to the range of an FP8 format or of int8 and convert: ``codes = encode(x / scale)``.

    Parameters
    ----------
    x : array of float64, float32, float16 or bfloat16, of any shape and strides
    format : "e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz" or "int8"
    overflow, rounding, seed : as for `encode`; "int8" takes no overflow but "sat"
    granularity : what shares a scale
        "tensor"; "row", all of `axis`; "column", all of the other of the last two axes (of the last
        one, if `axis` is neither); "mx", 32 elements along `axis`, with E8M0 scales; or (rows,
        columns), with the columns along `axis` and the rows along the other of the last two axes
        (rows = 1: any axis). Blocks at the edges may be ragged.
    axis : the axis along which a row runs
    scale_format : "fp32" (default), "pow2" (powers of two in float32) or "e8m0" (default for "mx")
    scale_rounding : for powers of two, "floor" (OCP MX 1.0), "ceil" or "even"
    scale : float32 scales to use instead of computed ones, positive and finite, of the shape that
        `QuantizedTensor.scale` would have; a number for granularity "tensor"
    out : a QuantizedTensor of the same layout to overwrite
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    QuantizedTensor, of x's kind of array. Block, row and MX variants read `x` once.

    The scale of a block is ``float32(amax / fmax)`` with `amax` its largest finite magnitude and
    `fmax` the format's largest value, at least 2**-126; 1 for a block without non-zero finite
    elements. Powers of two: see `pykernels.kernels.fp8`. NaN and Inf do not disturb the scale of
    their block; they become what `overflow` says.

    "int8" is symmetric: its codes are the integers from -127 to 127, and `fmax` is 127. It has no
    code for NaN, so a NaN makes the scale of its block NaN, and all of its codes 0; with a `scale`
    given, a NaN becomes 0.

    Raises
    ------
    TypeError, ValueError and NotImplementedError as `encode`; ValueError too for a granularity that
    does not fit x's dimensions and for a scale of wrong shape or not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> q = quant.quantize(np.float32([[1, 2, 3], [10, 20, 300]]), "e4m3fn", granularity="row")
    >>> q.scale
    array([[0.00669643],
           [0.66964287]], dtype=float32)
    >>> quant.quantize(np.float32([0.5, -1.0, 12.7]), "int8").codes
    array([  5, -10, 127], dtype=int8)
    """
    x, arrays = namespace(x)
    options = Options(granularity, axis, scale_format, scale_rounding, scale, overflow, rounding, seed)
    if arrays.tracing():
        _options.follows_data(backend)
        return arrays.operators("quant").quantize(x, format, options, out)  # type: ignore[no-any-return]
    blocks, recipe, stored = _plan(arrays, x, format, options)
    backend, codes_dtype = choose_backend(arrays, x, backend), _arguments.CODES[format]
    if out is not None:
        _check_out(arrays, out, x, options, blocks, stored, codes_dtype)
    reused = out.scale if out is not None and scale is None and arrays.is_dense(out.scale) else None
    stored_scale, scale_view = _scale(arrays, scale, reused, blocks, recipe, stored, x, backend)
    run = launcher("fp8", backend, "quantize")
    source = arrays.raw(arrays.dense(x), backend, blocks.view)

    def convert(target: Any) -> None:
        run(source, target, scale_view, recipe, scale is None)

    codes = _options.fill(arrays, out and out.codes, tuple(x.shape), codes_dtype, x, backend, blocks.view, convert)
    if out is None:
        return QuantizedTensor(codes, stored_scale, granularity, axis)
    if reused is None:
        arrays.copy_into(out.scale, stored_scale)
    return out


def quantize_dequantize(
    x: Any,
    format: str,
    *,
    granularity: Granularity = "tensor",
    axis: int = -1,
    scale_format: str | None = None,
    scale_rounding: str = "floor",
    scale: Any = None,
    overflow: str = "sat",
    rounding: str = "nearest",
    seed: int | None = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """`quantize`, then `dequantize`, in one pass: simulated in x's own dtype (arXiv 2209.05433, section 4).

    Takes what `quantize` takes, and gives the same bits as the two steps, ``dequantize(x.dtype)``.
    Under torch the gradient passes straight through (it is the identity).

    Parameters
    ----------
    out : array of x's shape and dtype, sharing no memory with it

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> quant.quantize_dequantize(np.float32([0.1, 0.2, 448]), "e4m3fn")
    array([1.015625e-01, 2.031250e-01, 4.480000e+02], dtype=float32)
    """
    x, arrays = namespace(x)
    options = Options(granularity, axis, scale_format, scale_rounding, scale, overflow, rounding, seed)
    if arrays.tracing() or arrays.needs_gradient(x):
        return arrays.operators("quant").quantize_dequantize(x, format, options, out, backend)
    blocks, recipe, stored = _plan(arrays, x, format, options)
    backend = choose_backend(arrays, x, backend)
    scale_view = _scale(arrays, scale, None, blocks, recipe, stored, x, backend)[1]
    run = launcher("fp8", backend, "quantize_dequantize")
    source = arrays.raw(arrays.dense(x), backend, blocks.view)

    def convert(target: Any) -> None:
        run(source, target, scale_view, recipe, scale is None)

    return _options.fill(arrays, out, tuple(x.shape), arrays.dtype_name(x), x, backend, blocks.view, convert)


def _plan(arrays: Any, x: Any, format: Any, options: Options) -> tuple[Layout, Recipe, str]:
    """The blocks of `x`, what to do with them, and the dtype of their scales."""
    _options.floating(arrays, x)
    arguments = (tuple(x.shape), format, options._replace(scale=None))
    try:
        return _planned(*arguments)
    except TypeError:  # what cannot be hashed, and what is of a wrong type
        return _planned.__wrapped__(*arguments)


@remembered
def _planned(shape: tuple[int, ...], format: Any, options: Options) -> tuple[Layout, Recipe, str]:
    fmt = _arguments.conversion(format, options.overflow, options.rounding, options.seed, scaled=True)
    blocks = layout(shape, options.granularity, options.axis)
    mx = options.granularity == "mx"
    scale_format = options.scale_format or ("e8m0" if mx else "fp32")
    _options.choice("scale_format", scale_format, formats.SCALE_FORMATS)
    if mx and scale_format != "e8m0":
        raise ValueError(f"scale_format={scale_format!r} with granularity='mx': expected 'e8m0'")
    _options.choice("scale_rounding", options.scale_rounding, formats.SCALE_ROUNDINGS)
    recipe = Recipe(
        fmt, blocks.block, scale_format, options.scale_rounding, options.overflow, options.rounding, options.seed
    )
    return blocks, recipe, FLOAT8["e8m0fnu"] if scale_format == "e8m0" else "float32"


def _scale(
    arrays: Any, scale: Any, reused: Any, blocks: Layout, recipe: Recipe, stored: str, x: Any, backend: str
) -> tuple[Any, Any]:
    """The array of scales, the user's or one to fill, and how the launchers take it."""
    if scale is not None:
        reused = _given_scale(arrays, scale, blocks, recipe, stored, x)
    if reused is not None:
        return reused, arrays.raw(reused, backend, blocks.grid)
    array, view = arrays.allocate(blocks.scale_shape, stored, x, backend)
    return array, view.reshape(blocks.grid)


def _given_scale(arrays: Any, scale: Any, blocks: Layout, recipe: Recipe, stored: str, x: Any) -> Any:
    """The user's scale, checked, as the kernels read it."""
    value, kind = namespace(scale)
    if value.ndim and kind is not arrays:
        raise TypeError(f"scale is a {type(scale).__name__}: expected a number or the same kind of array as x")
    if tuple(value.shape) != blocks.scale_shape:
        raise ValueError(f"scale has shape {tuple(value.shape)}: expected {blocks.scale_shape}")
    numbers = kind.to_numpy(value)
    if numbers.dtype.kind in "cObUSmM":
        raise TypeError(f"scale has dtype {kind.dtype_name(value)}: expected real numbers")
    with np.errstate(over="ignore"):
        numbers = np.asarray(numbers, np.float32).reshape(blocks.scale_shape)
    bad = ~(np.isfinite(numbers) & (numbers > 0))
    if recipe.scale_format != "fp32":
        mantissa, exponent = np.frexp(numbers)
        bad |= (mantissa != 0.5) | (exponent < -126)
    if bad.any():
        expected = "positive finite numbers" if recipe.scale_format == "fp32" else "powers of two, 2**-127 to 2**127"
        raise ValueError(f"scale contains {numbers[bad].flat[0]}: expected {expected}")
    if stored != "float32":
        numbers = (exponent + 126).astype(np.uint8).view(dtype_of(stored))
    return arrays.from_numpy(np.ascontiguousarray(numbers).reshape(blocks.scale_shape), x)


def _check_out(arrays: Any, out: Any, x: Any, options: Options, blocks: Layout, stored: str, codes: str) -> None:
    if not isinstance(out, QuantizedTensor):
        raise TypeError(f"out is a {type(out).__name__}: expected a QuantizedTensor")
    asked = (options.granularity, options.axis)
    if (out.granularity, out.axis) != asked:
        raise ValueError(f"out has (granularity, axis) {(out.granularity, out.axis)}: expected {asked}, as asked for")
    _options.check_out(arrays, out.codes, tuple(x.shape), codes, x, "out.codes")
    _options.check_out(arrays, out.scale, blocks.scale_shape, stored, x, "out.scale")
