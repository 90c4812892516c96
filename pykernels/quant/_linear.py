"""linear."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _options
from .._arrays import FLOATING, namespace
from .._dispatch import choose_backend, launcher
from ..kernels.fp8.formats import SCALED_FORMATS
from ..kernels.linear.problem import ACTIVATIONS, FLOATS, Problem
from ._quantize import quantize
from ._tensor import QuantizedTensor
from ._weight import prepare, rows


def linear(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    input_format: str | None = None,
    out_dtype: Any = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """``activation(x @ weight.T + bias)`` with a weight that stays quantized: weight-only, or dynamic.

    The definition is in `pykernels.kernels.linear`. With few rows of x a weight is read once, in the width in which it
    is kept; with up to 24 on the CPU, up to three times. It is never written out whole in a wider one.

    Parameters
    ----------
    x : (..., K) in float32, bfloat16 or float16, of any leading axes; with a contiguous last axis it is not copied
        unless it has more than two axes and gaps
    weight : (N, K), a QuantizedTensor of format "int8" or fp8 and of any granularity and axis, as `quantize` makes it;
        or an array in float32, bfloat16 or float16
        What launchers need of a QuantizedTensor is prepared once and kept: write to no NumPy array of codes or scales
        after that. Writing to tensors is noticed.
    bias : None, or (N,) in any floating-point dtype, taken as float32
    activation : None, "relu", "silu", "gelu" (exact) or "gelu_tanh", in float32
    input_format : None to multiply x as it is ("weight-only"); or "int8" or an fp8 format, to which every row of x is
        quantized first, with a scale of its own ("dynamic"). For a QuantizedTensor only.
    out_dtype : None for x's dtype; float32, bfloat16 or float16
    out : array (..., N) of that dtype, of any strides, sharing no memory with the inputs
    backend : None to follow the data, or "cpu", "gpu", "reference" (float64 inside, then rounded)

    Returns
    -------
    Array (..., N) of x's kind. NaN and Inf go where the formula takes them; K = 0 gives ``activation(bias)``. The
    same bits whatever the number of threads.

    Under torch, differentiable with respect to x, bias and a weight that is an array; codes and scales are constants,
    and quantizing x passes the gradient straight through. The gradient recomputes what the activation was applied to,
    and multiplies in x's dtype by the dequantized weight.

    Raises
    ------
    TypeError for dtypes, mixed kinds of arrays and arguments of wrong type; ValueError for shapes and devices that do
    not fit, unknown options, `input_format` without a QuantizedTensor, and an `out` of wrong shape or overlapping
    memory; NotImplementedError for a backend that cannot run here. Nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> weight = quant.quantize(np.float32([[127, -2, 5], [1, 2, 127]]), "int8", granularity="row")
    >>> quant.linear(np.float32([1, 2, 3]), weight, np.float32([-300, 0]), activation="relu")
    array([  0., 386.], dtype=float32)
    """
    x, arrays = namespace(x)
    if arrays.tracing() or any(
        getattr(each, "requires_grad", False) and arrays.needs_gradient(each) for each in (x, bias, weight)
    ):
        operator = arrays.operators("linear").linear
        return operator(x, weight, bias, activation, input_format, out_dtype, out, backend)
    return forward(x, weight, bias, activation, input_format, out_dtype, out, backend)


def forward(
    x: Any,
    weight: Any,
    bias: Any,
    activation: str | None,
    input_format: str | None,
    out_dtype: Any = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """As `linear`, now and without a gradient."""
    x, arrays = namespace(x)
    dtype = _options.dtype_name(arrays, x, FLOATS)
    name = dtype if out_dtype is None else _options.floating_name(out_dtype, dtype, "out_dtype", FLOATS)
    _check(activation, input_format, weight)
    chosen = choose_backend(arrays, x, backend)
    prepared = prepare(arrays, x, weight, chosen)
    n, k = prepared.shape
    shape = tuple(x.shape)
    if shape[-1:] != (k,):
        raise ValueError(f"x has shape {shape} and weight {(n, k)}: expected (..., K) and (N, K)")
    added = None if bias is None else _bias(arrays, x, bias, n, chosen)
    m, result = prod(shape[:-1]), (*shape[:-1], n)
    if out is not None:
        _check_out(arrays, out, result, name, x, weight, bias)

    x_scale = None
    if input_format is None or k == 0:
        input_format = None
        source = rows(arrays, x, chosen) if len(shape) == 2 else arrays.raw(arrays.dense(x), chosen, (m, k))
    else:
        narrow = quantize(x, input_format, granularity="row", backend=chosen)
        source = arrays.raw(narrow.codes, chosen, (m, k))
        x_scale = arrays.raw(narrow.scale, chosen, (m,))
    run = launcher("linear", chosen, "linear")
    problem = Problem(prepared.format, prepared.block, activation, input_format)

    def multiply(target: Any) -> None:
        run(source, x_scale, prepared.codes, prepared.scale, added, target, problem)

    return _options.fill(arrays, out, result, name, x, chosen, (m, n), multiply)


def _check(activation: Any, input_format: Any, weight: Any) -> None:
    if activation is not None:
        _options.choice("activation", activation, ACTIVATIONS)
    if input_format is not None:
        _options.choice("input_format", input_format, SCALED_FORMATS)
        if not isinstance(weight, QuantizedTensor):
            raise ValueError(f"input_format={input_format!r} with a weight in full width: expected a QuantizedTensor")


def _bias(arrays: Any, x: Any, bias: Any, n: int, backend: str) -> Any:
    """`bias` as launchers take it."""
    bias = _options.alike(arrays, x, "bias", bias, FLOATING)
    if tuple(bias.shape) != (n,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}: expected ({n},)")
    return arrays.raw(arrays.dense(arrays.cast(bias, "float32")), backend)


def _check_out(arrays: Any, out: Any, shape: tuple[int, ...], name: str, x: Any, weight: Any, bias: Any) -> None:
    parts = (weight.codes, weight.scale) if isinstance(weight, QuantizedTensor) else (weight,)
    for source in (x, *parts, bias):
        if source is not None:
            _options.check_out(arrays, out, shape, name, source)
