"""FP8 quantization: conversion, scaling, simulated quantization and scaled products.

The definition of every operation is in `pykernels.kernels.fp8`; NumPy arrays give ml_dtypes arrays
and torch tensors give torch.float8 tensors, with the same bytes.
"""

from ._convert import amax, decode, encode
from ._delayed import DelayedScaling
from ._matmul import scaled_matmul
from ._quantize import quantize, quantize_dequantize
from ._tensor import QuantizedTensor

__all__ = [
    "DelayedScaling",
    "QuantizedTensor",
    "amax",
    "decode",
    "encode",
    "quantize",
    "quantize_dequantize",
    "scaled_matmul",
]
