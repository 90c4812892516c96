"""Products of quantized arrays."""

from __future__ import annotations

from typing import Any

from .. import _options
from .._arrays import namespace
from ._tensor import QuantizedTensor


def scaled_matmul(a: QuantizedTensor, b: QuantizedTensor, out_dtype: Any = None) -> Any:
    """The matrix product of two quantized arrays of any granularity, accumulated in float32.

    Parameters
    ----------
    a, b : QuantizedTensor of shapes (..., M, K) and (..., K, N), which may broadcast as in matmul
    out_dtype : float32 (default), float64, float16 or bfloat16; float64 computes in float64

    Both sides are dequantized to float32 and multiplied by the BLAS of NumPy or torch, so that the
    error is that of a float32 product of the dequantized arrays. Under torch it is differentiable
    in neither.

    Raises
    ------
    TypeError for anything but QuantizedTensors of one kind of array; ValueError for shapes that do
    not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> a = quant.quantize(np.eye(2, dtype=np.float32), "e4m3fn")
    >>> quant.scaled_matmul(a, a)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, QuantizedTensor):
            raise TypeError(f"{name} is a {type(value).__name__}: expected a QuantizedTensor")
    arrays, kind_of_b = namespace(a.codes)[1], namespace(b.codes)[1]
    if arrays is not kind_of_b:
        raise TypeError("a and b hold different kinds of array: expected both of NumPy or both of torch")
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}: expected (..., M, K) and (..., K, N)")
    name = _options.floating_name(out_dtype, "float32")
    wide = "float64" if name == "float64" else "float32"
    return arrays.cast(a.dequantize(wide) @ b.dequantize(wide), name)
