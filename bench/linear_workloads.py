"""Workloads of the benchmarks of linear layers: narrow weights with few rows and many, and int8 on both sides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pykernels import quant
from pykernels.bench import linear_peers as peers
from pykernels.bench.attention_data import DTYPES, SHORT, normal, wide
from pykernels.bench.attention_peers import product_alone
from pykernels.bench.fp8_peers import tensor
from pykernels.bench.harness import (
    MIN_ROUNDS,
    OURS,
    Call,
    Disagreement,
    Group,
    Workload,
    quickest,
    reading,
    rotate,
    rotations,
)
from pykernels.kernels.linear import cases
from pykernels.kernels.linear.cases import Shape as Shape

Array = np.ndarray[Any, Any]

BOUND = "read or product"
"""The limit that takes longer: reading all bytes, or a matrix product in x's dtype of as many operations."""

TOLERANCE = {"float32": 1e-5, "bfloat16": 1.5e-2}
"""Greatest error of an output, over the greatest magnitude of what is compared."""

QUANTIZED = {peers.BF16: TOLERANCE["bfloat16"], peers.FBGEMM: 6e-2}
"""The same where x is quantized; of int8 with a scale for each row 3e-2."""

SAMPLE = 32, 64
"""Rows and columns of outputs that are compared."""


class Weight(NamedTuple):
    """Codes (N, K), and scales (N, 1), or None for a weight that is not quantized."""

    codes: Array
    scale: Array | None


def weight_only(format: str, dtype: str, shape: Shape, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """x in `dtype`, the weight in `format`, from as many copies as leave nothing in the cache."""
    block = None if format in cases.FLOATS else (1, shape.k)
    item = DTYPES[dtype].itemsize
    size, flops = cases.min_bytes(shape, item, DTYPES[format].itemsize, item, block), cases.flops(shape)

    def build() -> Workload:
        x, weight = normal((shape.m, shape.k), dtype, 0), make_weight(format, shape)
        calls = _calls(x, weight, peer_names, quant.linear)
        limits = {} if shape.m == 1 else longer(dtype, size, flops)
        verify = _verifier(x, weight, dict.fromkeys((OURS, *peer_names), TOLERANCE[dtype]))
        return Workload(calls, verify, _missing(peer_names), "fresh", limits)

    operation = f"{'matrix-vector' if shape.m == 1 else 'linear'}, {SHORT[format]} weight"
    return _group(operation, dtype, shape, peer_names, build, size, flops, rounds)


def dynamic(shape: Shape, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """Rows of x, in bfloat16, are quantized to int8 first."""
    size, flops = cases.min_bytes(shape, 2, 1, 2, (1, shape.k)), cases.flops(shape)

    def build() -> Workload:
        x, weight = normal((shape.m, shape.k), "bfloat16", 0), make_weight("int8", shape)
        calls = _calls(x, weight, peer_names, functools.partial(quant.linear, input_format="int8"))
        limits = {} if shape.m == 1 else longer("bfloat16", size, flops)
        verify = _verifier(x, weight, dict.fromkeys((OURS, *peer_names), 3e-2) | QUANTIZED)
        return Workload(calls, verify, _missing(peer_names), "fresh", limits)

    return _group("linear, int8 x int8", "bfloat16", shape, peer_names, build, size, flops, rounds)


def make_weight(format: str, shape: Shape) -> Weight:
    """A random weight."""
    drawn = normal((shape.n, shape.k), format if format in cases.FLOATS else "float32", 1)
    if format in cases.FLOATS:
        return Weight(drawn, None)
    stored = quant.quantize(drawn, format, granularity="row")
    return Weight(stored.codes, stored.scale)


def _calls(x: Array, weight: Weight, names: Sequence[str], ours: Any) -> dict[str, Call]:
    """Calls of all providers, each with copies of the weight of its own; ours takes tensors where torch is."""
    kind: Any = np.asarray if peers.FP32 in peers.absent() else tensor
    given = kind(x)
    calls = {OURS: rotate([functools.partial(ours, given, _as_ours(each, kind)) for each in copies(weight, 0)])}
    for name in _here(names):
        kept = copies(weight, peers.WEIGHT_BYTES.get(name, 0))
        calls[name] = rotate([peers.product(name, given, tensor(codes), tensor(_scales(kept[0]))) for codes, _ in kept])
    return calls


def _scales(weight: Weight) -> Array:
    return np.ones((len(weight.codes), 1), np.float32) if weight.scale is None else weight.scale


def _as_ours(weight: Weight, kind: Any) -> Any:
    codes = kind(weight.codes)
    return codes if weight.scale is None else quant.QuantizedTensor(codes, kind(weight.scale), "row")


def copies(weight: Weight, item: int) -> list[Weight]:
    """Copies of a weight that will take `item` bytes an element, or as many as it takes."""
    nbytes = weight.codes.size * item or weight.codes.nbytes
    return [Weight(weight.codes.copy(), weight.scale) for _ in range(rotations(nbytes))]


def longer(dtype: str, nbytes: int, flops: int) -> dict[str, Call]:
    """The matrix products that do as much, or reading if even the fastest of them takes less."""
    read, products = reading(nbytes), product_alone(dtype, flops)
    return products if min(map(quickest, products.values())) > quickest(read) else {"reading": read}


def _verifier(x: Array, weight: Weight, tolerances: dict[str, float]) -> Callable[[str, Any], None]:
    """Compares rows and columns from all over the output with float64."""
    rows, columns = (
        np.unique(np.linspace(0, size - 1, count, dtype=np.int64))
        for size, count in zip((len(x), len(weight.codes)), SAMPLE, strict=True)
    )
    chosen = wide(weight.codes[columns])
    if weight.scale is not None:
        chosen = chosen * weight.scale[columns]
    exact = wide(x[rows]) @ chosen.T

    def verify(provider: str, result: Any) -> None:
        found = wide(result)[np.ix_(rows, columns)]
        error, most = float(np.abs(found - exact).max() / np.abs(exact).max()), tolerances[provider]
        if not error <= most:
            raise Disagreement(f"the output differs from float64 by {error:.2g}, more than {most:.2g}")

    return verify


def _group(
    operation: str,
    dtype: str,
    shape: Shape,
    peer_names: Sequence[str],
    build: Callable[[], Workload],
    size: int,
    flops: int,
    rounds: int,
) -> Group:
    case = f"{SHORT[dtype]} M={shape.m}, {shape.n} x {shape.k}"
    limit = "read" if shape.m == 1 else BOUND
    providers = OURS, *peer_names
    return Group(operation, case, providers, build, shape.n * shape.k, size, limit, flops, least_rounds=rounds)


def _here(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in peers.absent()]


def _missing(names: Sequence[str]) -> dict[str, str]:
    return {name: reason for name, reason in peers.absent().items() if name in names}
