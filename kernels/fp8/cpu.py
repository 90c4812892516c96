"""Numba launchers: the same names and signatures as `reference`. Arrays are C-contiguous."""

from .cpu_convert import amax, decode, encode
from .cpu_quantize import dequantize, quantize, quantize_dequantize

__all__ = ["amax", "decode", "dequantize", "encode", "quantize", "quantize_dequantize"]
