"""Linear layers with narrow weights beside torch: matrix-vector products, few rows and many, int8 on both sides."""

from __future__ import annotations

from typing import Any

import pytest

from pykernels.bench import harness
from pykernels.bench.harness import MIN_ROUNDS, Group
from pykernels.bench.linear_peers import BF16, FBGEMM, FP32, INTEGER, PACKED, WIDENED
from pykernels.bench.linear_workloads import Shape, dynamic, weight_only

FORMATS = ("int8", "e4m3fn")
DTYPES = ("bfloat16", "float32")
LAYERS = ((4096, 4096), (4096, 16384))
"""(N, K) of weights."""

FEW = {True: (4, 16, 32), False: (2, 4, 8, 16, 32)}
MANY = {True: (), False: (128, 1024, 4096)}
ROUNDS = {True: 5, False: MIN_ROUNDS}


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_linear(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` leaves out numbers of rows, and of few rows x in float32 and the wide layer."""
    rounds = ROUNDS[quick]
    layers, dtypes = (LAYERS[:1], DTYPES[:1]) if quick else (LAYERS, DTYPES)
    return [
        *(
            weight_only(format, dtype, Shape(1, *layer), _vector_peers(format, dtype), rounds)
            for format in FORMATS
            for dtype in DTYPES
            for layer in LAYERS
        ),
        *(weight_only("bfloat16", "bfloat16", Shape(1, *layer), (BF16,), rounds) for layer in LAYERS),
        *(
            weight_only(format, dtype, Shape(m, *layer), _peers(format, dtype), rounds)
            for format in FORMATS
            for dtype in dtypes
            for layer in layers
            for m in FEW[quick]
        ),
        *(
            weight_only("int8", dtype, Shape(m, *layer), _peers("int8", dtype, m), rounds)
            for dtype in DTYPES
            for m, layer in [(256, (2048, 2048)), *((m, LAYERS[0]) for m in MANY[quick])]
        ),
        *(dynamic(Shape(m, *LAYERS[0]), (INTEGER, FBGEMM, BF16), rounds) for m in (1, 64, 512)),
    ]


def _vector_peers(format: str, dtype: str) -> tuple[str, ...]:
    """Of x in float32 those that are as exact."""
    if dtype == "float32":
        return (FP32,)
    return (PACKED, BF16, FP32) if format == "int8" else (BF16, FP32)


def _peers(format: str, dtype: str, m: int = 1) -> tuple[str, ...]:
    """Those of many rows; torch's int8 product is several times slower than the others from a hundred rows on."""
    if dtype == "float32":
        return WIDENED, FP32
    return (PACKED, WIDENED, BF16) if format == "int8" and m < 1000 else (WIDENED, BF16)
