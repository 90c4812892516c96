"""Everything that needs a GPU, in one call: ``python -m pykernels.bench.on_gpu [OUT.json]``.

Checks the Triton kernels against the reference, then times them against the copy bandwidth measured
in the same rounds. Without a GPU it is a rehearsal: Triton's interpreter, tiny arrays, and times
that mean nothing.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 50
GRANULARITIES = ("tensor", "row", "column", "mx", (1, 128), (128, 128))


def main(out: str | None = None) -> int:
    import torch

    gpu = torch.cuda.is_available()
    if not gpu:
        os.environ.setdefault("TRITON_INTERPRET", "1")
    from pykernels.kernels.fp8 import cases
    from pykernels.machine import describe
    from pykernels.quant.checks import checks

    failed = [f"{c.operation} {c.case}" for c in list(checks(False, ["gpu"]))[:: 1 if gpu else 40] if c.run()[1]]
    print(f"checks: {len(failed)} failed", *failed, sep="\n  ")

    rows = []
    n = 1 << 28 if gpu else 1 << 12
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(n, device="cuda" if gpu else "cpu").to(dtype).reshape(-1, 1 << (14 if gpu else 6))
        calls = _calls(x)
        y = torch.empty_like(x)
        seconds = _interleaved({"copy": functools.partial(y.copy_, x), **calls}, gpu)
        rate = 2 * x.nbytes / seconds["copy"]
        for name, (operation, granularity) in _counted(calls).items():
            size = x.element_size()
            source, target = (1, size) if operation == "decode" else (size, 0 if operation == "amax" else 1)
            needed = cases.min_bytes(operation, source, target, granularity) * n
            share = needed / seconds[name] / rate
            rows.append({"dtype": str(dtype), "case": name, "seconds": seconds[name], "of copy": share})
            print(
                f"{dtype!s:16} {name:24} {1e3 * seconds[name]:9.3f} ms  {100 * share:4.0f} % of {rate / 1e9:.0f} GB/s"
            )
    if out is not None:
        with open(out, "w") as file:
            json.dump({"machine": describe(), "elements": n, "rows": rows, "failed": failed}, file, indent=1)
    return bool(failed)


def _calls(x: Any) -> dict[str, Callable[[], Any]]:
    """Every operation into memory of its own, by name; the name ends in the granularity."""
    from pykernels import quant

    codes = quant.encode(x, "e4m3fn", backend="gpu")
    values = quant.decode(codes, x.dtype, backend="gpu")
    peak = quant.amax(x, backend="gpu")
    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: quant.encode(x, "e4m3fn", out=codes, backend="gpu"),
        "decode": lambda: quant.decode(codes, out=values, backend="gpu"),
        "amax": lambda: quant.amax(x, out=peak, backend="gpu"),
    }
    for granularity in GRANULARITIES:
        q = quant.quantize(x, "e4m3fn", granularity=granularity, backend="gpu")
        options: dict[str, Any] = {"granularity": granularity, "out": q, "backend": "gpu"}
        calls[f"quantize {granularity}"] = functools.partial(quant.quantize, x, "e4m3fn", **options)
    return calls


def _counted(calls: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {name: (name.split(" ", 1)[0], name.partition(" ")[2] or None) for name in calls}


def _interleaved(calls: dict[str, Callable[[], Any]], gpu: bool) -> dict[str, float]:
    """Median seconds of each call, taken in turns; inputs are far larger than any cache."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS if gpu else 1):
        for name, call in calls.items():
            times[name].append(_once(call, gpu))
    return {name: statistics.median(each) for name, each in times.items()}


def _once(call: Callable[[], Any], gpu: bool) -> float:
    if not gpu:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    import torch

    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
