"""Quantization to FP8 and int8: conversion, scaling, simulated quantization, and products with quantized weights.

The definition of every operation is in `pykernels.kernels.fp8`, and that of `linear` in `pykernels.kernels.linear`;
NumPy arrays give ml_dtypes arrays and torch tensors give torch.float8 tensors, with the same bytes. `quantize_module`,
`save_module`, `load_module` and `QuantizedLinear` are of torch, and import it when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._convert import amax, decode, encode
from ._delayed import DelayedScaling
from ._linear import linear
from ._matmul import scaled_matmul
from ._quantize import quantize, quantize_dequantize
from ._tensor import QuantizedTensor

if TYPE_CHECKING:
    from ._module import QuantizedLinear as QuantizedLinear
    from ._module import quantize_module as quantize_module
    from ._module_files import load_module as load_module
    from ._module_files import save_module as save_module

_OF_TORCH = {
    "QuantizedLinear": "_module",
    "load_module": "_module_files",
    "quantize_module": "_module",
    "save_module": "_module_files",
}
__all__ = [
    "DelayedScaling",
    "QuantizedLinear",
    "QuantizedTensor",
    "amax",
    "decode",
    "encode",
    "linear",
    "load_module",
    "quantize",
    "quantize_dequantize",
    "quantize_module",
    "save_module",
    "scaled_matmul",
]


def __getattr__(name: str) -> Any:
    if name not in _OF_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_OF_TORCH[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise NotImplementedError(f"{name} needs torch, which is not installed here") from error
