"""An array in FP8 or int8 with its scales."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .. import _options
from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from ..kernels.fp8.formats import SCALED_FORMATS, Recipe
from ._arguments import CODES
from ._layout import Granularity, layout


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """Codes and the scales that give them back their size: ``decode(codes) * scale``.

    Attributes
    ----------
    codes : float8 array (ml_dtypes or torch), or int8, whose values are the integers, of the shape of
        the original
    scale : float32 or float8_e8m0fnu array, one per block; its shape is that of `codes` with every
        scaled axis shortened to its number of blocks, and () for granularity "tensor"
    granularity : "tensor", "row", "column", "mx" or (rows, columns)
    axis : the axis along which a row runs
    """

    codes: Any
    scale: Any
    granularity: Granularity = "tensor"
    axis: int = -1

    @property
    def format(self) -> str:
        """The name of the FP8 format, or "int8"."""
        name: str = namespace(self.codes)[1].dtype_name(self.codes)
        return next(format for format in CODES if CODES[format] == name)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    def dequantize(self, dtype: Any = None, *, out: Any = None, backend: str | None = None) -> Any:
        """``decode(codes) * scale`` as float32 (default), float64, float16 or bfloat16.

        The product is rounded to float32 (float64: to float64), and from there to the half types.

        Examples
        --------
        >>> import numpy as np
        >>> from pykernels import quant
        >>> quant.quantize(np.float32([[1, 2], [30, 60]]), "e4m3fn", granularity="row").dequantize()
        array([[ 1.,  2.],
               [30., 60.]], dtype=float32)
        """
        codes, arrays = namespace(self.codes)
        name = _options.floating_name(dtype, "float32" if out is None else arrays.dtype_name(namespace(out)[0]))
        if arrays.tracing():
            _options.follows_data(backend)
            return arrays.operators("quant").dequantize(self, name, out)
        blocks = layout(self.shape, self.granularity, self.axis)
        recipe = Recipe(SCALED_FORMATS[self.format], blocks.block)
        run = launcher("fp8", backend := choose_backend(arrays, codes, backend), "dequantize")
        source = arrays.raw(arrays.dense(codes), backend, blocks.view)
        scale = arrays.raw(arrays.dense(self.scale), backend, blocks.grid)

        def multiply(target: Any) -> None:
            run(source, scale, target, recipe)

        return _options.fill(arrays, out, self.shape, name, codes, backend, blocks.view, multiply)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: `codes`, `scale`, and how they belong together as metadata."""
        from . import _files

        _files.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str], *, framework: str = "numpy") -> QuantizedTensor:
        """Read a file that `save` wrote; `framework` is "numpy" or "torch".

        Raises ValueError for a file that is not a safetensors file, or not one of a QuantizedTensor.
        """
        from . import _files

        return _files.load(path, framework)
