"""FP8 conversion and quantization beside torch, torch.compile, ml_dtypes and NumPy: the cases."""

from __future__ import annotations

from typing import Any

import pytest

from pykernels.bench import harness
from pykernels.bench.fp8_workloads import (
    decoding,
    encoding,
    largest,
    model_matrices,
    on_model,
    overhead,
    quantizing,
    quantizing_fresh,
)
from pykernels.bench.harness import Group

SIZE = 1 << 24
SWEEP = {True: (1 << 10, 1 << 14, 1 << 20), False: tuple(1 << k for k in range(10, 31, 2) if k != 24)}
GRANULARITIES = ("tensor", (1, 128), (128, 128), "mx", "column")


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_fp8(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` leaves out sizes."""
    sizes = (*SWEEP[quick], SIZE)
    return [
        *(encoding("fp32", "e4m3fn", n, sweep=True) for n in sizes),
        encoding("bf16", "e4m3fn", SIZE),
        encoding("bf16", "e5m2", SIZE),
        *(decoding("e4m3fn", n) for n in sizes),
        largest(SIZE),
        *(quantizing("row", n, compiled=n == SIZE or not quick) for n in sizes),
        *(quantizing(granularity, SIZE) for granularity in GRANULARITIES),
        quantizing("row", SIZE, compiled=not quick, format="int8"),
        quantizing_fresh(SIZE),
        quantizing("row", SIZE, dequantize=True),
        *(on_model(granularity) for granularity in ("row", "mx") if model_matrices()),
        *(overhead(library) for library in ("NumPy", "torch")),
    ]
