"""The machine's limits, measured: memory copy, memory read, and fp32 matrix product."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from pykernels.kernels._numba import jit, kernel

Array = np.ndarray[Any, Any]
_BYTES = 1 << 27
_GEMM = 1024
_STEPS = 2_000_000


@kernel
def _copy(x: Array, out: Array, threads: int) -> None:
    part = (x.size + threads - 1) // threads
    for t in numba.prange(threads):
        start = t * part
        stop = min(x.size, start + part)
        out[start:stop] = x[start:stop]


@jit
def largest_magnitude(x: Array) -> Any:
    """Largest `x` without its sign bit, as uint32."""
    largest = np.uint32(0)
    for i in range(x.size):
        m = np.uint32(x[i] & np.uint32(0x7FFFFFFF))
        largest = m if m > largest else largest
    return largest


@kernel
def _read(x: Array, out: Array) -> None:
    threads = out.size
    part = (x.size + threads - 1) // threads
    for t in numba.prange(threads):
        start = t * part
        out[t] = largest_magnitude(x[start : min(x.size, start + part)])


@kernel
def _spin(steps: int, out: Array) -> None:
    for t in numba.prange(out.size):
        state = np.uint32(t + 1)
        for _ in range(steps):
            state = np.uint32(state * np.uint32(1664525) + np.uint32(1013904223))
            state = np.uint32(state ^ np.uint32(state >> np.uint32(3)))
        out[t] = state


def copy(x: Array, out: Array) -> None:
    """Copy the uint32 vector `x` into `out`, one contiguous part per thread."""
    _copy(2 * x.nbytes, x, out, numba.get_num_threads())


def read(x: Array) -> int:
    """Read the uint32 vector `x` once; returns its largest magnitude."""
    parts = np.zeros(numba.get_num_threads(), np.uint32)
    _read(x.nbytes, x, parts)
    return int(parts.max())


def roofs() -> dict[str, float]:
    """Medians of this moment: ``copy`` and ``read`` in bytes/s (a copy counts both ways), ``GEMM`` in FLOP/s.

    Takes about a second; ``GPU copy`` is there when torch has a device.
    """
    x = np.zeros(_BYTES // 4, np.uint32)
    out = np.ones_like(x)
    a = np.ones((_GEMM, _GEMM), np.float32)
    product = np.empty_like(a)
    rates = {
        "copy": 2 * _BYTES / _median(lambda: copy(x, out)),
        "read": _BYTES / _median(lambda: read(x)),
        "GEMM": 2 * _GEMM**3 / _median(lambda: np.matmul(a, a, out=product)),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        rates["GPU copy"] = _gpu_copy(torch)
    return rates


def thread_scaling() -> float:
    """Speed-up of compute-bound work by all of Numba's threads over one; near 1, they share a core."""
    threads: int = numba.get_num_threads()
    one, all_parts = np.zeros(1, np.uint32), np.zeros(threads, np.uint32)
    serial = _median(lambda: _spin(0, _STEPS, one), 5)
    return threads * serial / _median(lambda: _spin(_BYTES, _STEPS, all_parts), 5)


def _gpu_copy(torch: Any) -> float:
    x = torch.ones(1 << 28, dtype=torch.float32, device="cuda")
    out = torch.empty_like(x)

    def run() -> None:
        out.copy_(x)
        torch.cuda.synchronize()

    return float(2 * x.nbytes / _median(run))


def _median(run: Callable[[], object], rounds: int = 11) -> float:
    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
