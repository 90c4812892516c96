"""Products of every format against the reference: what ``pykernels check linear`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .._arrays import namespace
from .._checking import on
from ..families import Check
from ..kernels.fp8.formats import SCALED_FORMATS
from ..kernels.linear import cases
from ._linear import linear
from ._tensor import QuantizedTensor


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """Weights of every shape and format, as they are and with scales, to the tolerance of float32 sums."""
    for backend in backends:
        if backend == "reference":
            continue
        for dtype in cases.FLOATS:
            for format in (*SCALED_FORMATS, *cases.FLOATS):
                for asked in (None, format) if format in SCALED_FORMATS else (None,):
                    case = f"{dtype} x {format}" + ("" if asked is None else ", x quantized too")
                    yield Check("linear", case, backend, _product(dtype, format, asked, backend))


def _product(dtype: str, format: str, asked: str | None, backend: str) -> Callable[[], tuple[int, int]]:
    def run() -> tuple[int, int]:
        compared = [_sums(shape, dtype, format, asked, backend) for shape in cases.SHAPES]
        return sum(n for n, _ in compared), sum(bad for _, bad in compared)

    return run


def _sums(shape: cases.Shape, dtype: str, format: str, asked: str | None, backend: str) -> tuple[int, int]:
    x, bias, codes = cases.activations(shape, dtype), cases.bias(shape), cases.codes(shape, format)
    scale = None if format in cases.FLOATS else cases.scales(shape, format, (16, 32))
    results = []
    for each in (backend, "reference"):
        weight = on(each, codes)
        if scale is not None:
            weight = QuantizedTensor(weight, on(each, scale), (16, 32))
        y = linear(on(each, x), weight, on(each, bias), input_format=asked, out_dtype="float32", backend=each)
        results.append(np.asarray(namespace(y)[1].to_numpy(y), np.float64))
    got, expected = results
    wide = codes.astype(np.float64) if scale is None else weight.dequantize("float64")
    allowed = cases.tolerance(x.astype(np.float64), wide, bias.astype(np.float64), expected, "float32")
    return expected.size, int(np.count_nonzero(~(np.abs(got - expected) <= allowed)))
