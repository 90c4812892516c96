"""The fp8 kernels against the rate of a copy."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .gpu_timing import Call, Row, interleaved, rows

GRANULARITIES = ("tensor", "row", "column", "mx", (1, 128), (128, 128))


def measure(gpu: bool) -> Iterator[list[Row]]:
    import torch

    from pykernels.kernels.fp8 import cases

    n = 1 << 28 if gpu else 1 << 12
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(n, device="cuda" if gpu else "cpu").to(dtype).reshape(-1, 1 << (14 if gpu else 6))
        calls = _calls(x)
        y = torch.empty_like(x)
        seconds = interleaved({"copy": functools.partial(y.copy_, x), **calls}, gpu)
        rate = 2 * x.nbytes / seconds["copy"]
        work = {}
        for name in calls:
            operation, _, granularity = name.partition(" ")
            size = x.element_size()
            source, target = (1, size) if operation == "decode" else (size, 0 if operation == "amax" else 1)
            work[name] = cases.min_bytes(operation, source, target, granularity or None) * n
        yield rows("fp8", str(dtype), seconds, work, rate, f"a copy at {rate / 1e9:.0f} GB/s")


def _calls(x: Any) -> dict[str, Call]:
    """Every operation into memory of its own, by name; the name ends in the granularity."""
    from pykernels import quant

    codes = quant.encode(x, "e4m3fn", backend="gpu")
    values = quant.decode(codes, x.dtype, backend="gpu")
    peak = quant.amax(x, backend="gpu")
    calls: dict[str, Call] = {
        "encode": lambda: quant.encode(x, "e4m3fn", out=codes, backend="gpu"),
        "decode": lambda: quant.decode(codes, out=values, backend="gpu"),
        "amax": lambda: quant.amax(x, out=peak, backend="gpu"),
    }
    for granularity in GRANULARITIES:
        q = quant.quantize(x, "e4m3fn", granularity=granularity, backend="gpu")
        options: dict[str, Any] = {"granularity": granularity, "out": q, "backend": "gpu"}
        calls[f"quantize {granularity}"] = functools.partial(quant.quantize, x, "e4m3fn", **options)
    return calls
