"""Every backend against the reference, on the user's own machine: what ``pykernels check fp8`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._checking import Array, as_bytes, compare, on
from .._dispatch import interpreting
from ..families import Check
from ..kernels.fp8 import cases
from ..kernels.fp8.formats import FORMATS, OVERFLOWS, SCALE_ROUNDINGS
from ._convert import amax, decode, encode
from ._quantize import quantize, quantize_dequantize
from ._tensor import QuantizedTensor

_CHUNK = 1 << 24


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """The comparisons, in the order of their cost; those of all 2**32 float32 inputs if `exhaustive`."""
    for backend in backends:
        if backend == "reference":
            continue
        for make in (_encodings, _decodings, _reductions, _quantizations, _integers):
            yield from make(backend)
        if exhaustive and not (backend == "gpu" and interpreting()):
            yield from _exhaustive(backend)


def _encodings(backend: str) -> Iterator[Check]:
    for format in FORMATS:
        for dtype in cases.DTYPES:
            x = cases.boundaries(FORMATS[format]) if dtype == "float64" else cases.every_pattern(dtype)
            for overflow in OVERFLOWS:
                for rounding in ("nearest", "toward_zero"):
                    options: dict[str, Any] = {"overflow": overflow, "rounding": rounding}
                    case = f"{dtype} -> {format}, {overflow}, {rounding}"
                    yield Check("encode", case, backend, _encoding(x, format, options, backend))
        sample = cases.mixed((33, 101), "float32")
        for overflow in OVERFLOWS:
            options = {"overflow": overflow, "rounding": "stochastic", "seed": (1 << 63) + 12345}
            case = f"float32 -> {format}, {overflow}, stochastic"
            yield Check("encode", case, backend, _encoding(sample, format, options, backend))


def _decodings(backend: str) -> Iterator[Check]:
    for format in FORMATS:
        codes = np.arange(256, dtype=np.uint8)
        for dtype in cases.DTYPES:

            def run(format: str = format, dtype: str = dtype, codes: Array = codes) -> tuple[int, int]:
                return compare(lambda b: decode(on(b, codes), dtype, format=format, backend=b), backend)

            yield Check("decode", f"{format} -> {dtype}", backend, run)


def _reductions(backend: str) -> Iterator[Check]:
    for dtype in cases.DTYPES:
        for shape in ((1025,), (3, 0, 4), (130, 7, 257)):
            x = cases.mixed(shape, dtype)
            for axis in (None, *range(x.ndim)):

                def run(x: Array = x, axis: int | None = axis) -> tuple[int, int]:
                    return compare(lambda b: amax(on(b, x), axis, backend=b), backend)

                yield Check("amax", f"{dtype} {shape}, axis {axis}", backend, run)


def _quantizations(backend: str) -> Iterator[Check]:
    for dtype in cases.DTYPES:
        for format in FORMATS:
            yield from _hard_blocks(dtype, format, backend)
        for shape in ((130, 257), (2, 3, 129)):
            x = cases.mixed(shape, dtype)
            for granularity in cases.GRANULARITIES:
                for axis in (-1, -2):
                    case = f"{dtype} {shape} -> e4m3fn {granularity}, axis {axis}"
                    run = _quantization(x, "e4m3fn", {"granularity": granularity, "axis": axis}, backend)
                    yield Check("quantize", case, backend, run)


def _integers(backend: str) -> Iterator[Check]:
    for dtype in cases.DTYPES:
        yield from _hard_blocks(dtype, "int8", backend)
    x = cases.mixed((33, 101), "float32")
    for granularity in cases.GRANULARITIES:
        run = _quantization(x, "int8", {"granularity": granularity}, backend)
        yield Check("quantize", f"float32 -> int8 {granularity}", backend, run)
    for rounding, seed in (("toward_zero", None), ("stochastic", 1 << 63)):
        run = _quantization(x, "int8", {"granularity": "row", "rounding": rounding, "seed": seed}, backend)
        yield Check("quantize", f"float32 -> int8 row, {rounding}", backend, run)


def _hard_blocks(dtype: str, format: str, backend: str) -> Iterator[Check]:
    x = cases.hard_blocks(dtype, 33)
    for scale_format, scale_rounding in (("fp32", "floor"), *(("e8m0", r) for r in SCALE_ROUNDINGS)):
        options: dict[str, Any] = {"scale_format": scale_format, "scale_rounding": scale_rounding}
        for granularity in ("row", (1, 32)):
            case = f"{dtype} -> {format} {granularity} {scale_format} {scale_rounding}, hard blocks"
            run = _quantization(x, format, {**options, "granularity": granularity}, backend)
            yield Check("quantize", case, backend, run)


def _exhaustive(backend: str) -> Iterator[Check]:
    for format in FORMATS:
        for overflow in OVERFLOWS:
            for rounding in ("nearest", "toward_zero"):

                def run(format: str = format, overflow: str = overflow, rounding: str = rounding) -> tuple[int, int]:
                    return _every_float32(format, {"overflow": overflow, "rounding": rounding}, backend)

                yield Check("encode", f"all 2**32 float32 -> {format}, {overflow}, {rounding}", backend, run)


def _encoding(x: Array, format: str, options: dict[str, Any], backend: str) -> Callable[[], tuple[int, int]]:
    return lambda: compare(lambda b: encode(on(b, x), format, **options, backend=b), backend)


def _quantization(x: Array, format: str, options: dict[str, Any], backend: str) -> Callable[[], tuple[int, int]]:
    """Codes, scales, and the fused and the separate way back."""

    def run() -> tuple[int, int]:
        def both(b: str) -> QuantizedTensor:
            return quantize(on(b, x), format, **options, backend=b)

        compared = [compare(lambda b: both(b).codes, backend), compare(lambda b: both(b).scale, backend)]
        compared.append(compare(lambda b: both(b).dequantize(x.dtype.name, backend=b), backend))
        compared.append(compare(lambda b: quantize_dequantize(on(b, x), format, **options, backend=b), backend))
        return sum(n for n, _ in compared), sum(bad for _, bad in compared)

    return run


def _every_float32(format: str, options: dict[str, Any], backend: str) -> tuple[int, int]:
    """All inputs against the reference's step function, chunk by chunk and sign by sign."""
    fmt = FORMATS[format]
    steps = list(
        cases.float32_runs(
            fmt,
            options["overflow"],
            options["rounding"],
            lambda x: as_bytes(encode(x, format, **options, backend="reference")),
        )
    )
    compared = mismatches = 0
    for first in range(0, 1 << 32, _CHUNK):
        bits = np.arange(first, first + _CHUNK, dtype=np.uint32)
        expected = np.full(_CHUNK, fmt.nan_code | (first >> 31) << 7, np.uint8)
        base = first & 0x7FFFFFFF
        for low, high, code in steps:
            if high >= base and low < base + _CHUNK:
                signed = code | (first >> 31) << 7 if code or fmt.negative_zero else 0
                expected[max(low - base, 0) : high - base + 1] = signed
        got = as_bytes(encode(on(backend, bits.view(np.float32)), format, **options, backend=backend))
        compared += _CHUNK
        mismatches += int(np.count_nonzero(got != expected))
    return compared, mismatches
