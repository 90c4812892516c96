"""Top-k against torch.topk, and against the time of reading the rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .gpu_timing import Call, Row, interleaved, rows

CASES = (
    ("float16", 256, 1 << 20, 64),
    ("float16", 256, 1 << 20, 1024),
    ("float32", 64, 1 << 20, 64),
    ("float32", 64, 65_536, 100),
    ("float32", 32, 50_257, 50),
    ("float32", 1, 1 << 20, 64),
)
REHEARSAL = (("float16", 2, 3000, 5),)
TARGET = 0.95


def measure(gpu: bool) -> Iterator[list[Row]]:
    import torch

    rate = read_rate(gpu)
    for dtype, R, n, k in CASES if gpu else REHEARSAL:
        x = torch.randn(R, n, device="cuda" if gpu else "cpu").to(getattr(torch, dtype))
        calls = _calls(x, k)
        seconds = interleaved(calls, gpu)
        work = dict.fromkeys(calls, float(x.nbytes))
        yield rows("topk", f"{dtype} {R} x {n}, k = {k}", seconds, work, rate, f"a read at {rate / 1e9:.0f} GB/s")


def read_rate(gpu: bool) -> float:
    """Bytes per second of the fastest reduction of a large array, or of a copy, which reads half of what it moves."""
    import torch

    x = torch.ones(1 << (28 if gpu else 12), device="cuda" if gpu else "cpu")
    y, total = torch.empty_like(x), torch.empty((), device=x.device)
    calls: dict[str, Call] = {
        "sum": lambda: torch.sum(x, 0, out=total),
        "amax": lambda: torch.amax(x, 0, out=total),
        "copy": lambda: y.copy_(x),
    }
    seconds = interleaved(calls, gpu)
    return max((1 + (name == "copy")) * x.nbytes / each for name, each in seconds.items())


def _calls(x: Any, k: int) -> dict[str, Call]:
    """Exact and approximate, of the same rows as torch.topk; the exact values are compared with its values first."""
    import torch

    from pykernels import topk as family
    from pykernels.kernels.topk import gpu as launchers

    values, indices = x.new_empty(x.shape[0], k), torch.empty(x.shape[0], k, dtype=torch.int64, device=x.device)
    exact = functools.partial(launchers.topk, x, k, True, True, values, indices)
    exact()
    expected = torch.topk(x, k, dim=1)
    if not torch.equal(values, expected.values) or not torch.equal(x.gather(1, indices), values):
        raise ArithmeticError(f"topk disagrees with torch.topk at {tuple(x.shape)}, k = {k}")
    return {
        "pykernels": exact,
        f"approximate, {TARGET}": lambda: family.approx_max_k(x, k, recall_target=TARGET, backend="gpu"),
        "torch.topk": lambda: torch.topk(x, k, dim=1, out=tuple(expected)),
    }
