"""Workloads of the small kernels of a decoder, beside the same in torch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernels._dispatch import launcher
from pykernels.bench.attention_data import SHORT, wide
from pykernels.bench.fp8_peers import absent, tensor
from pykernels.bench.harness import MIN_ROUNDS, OURS, Call, Disagreement, Group, Workload
from pykernels.inference._kernels import gated, normalize
from pykernels.kernels.decoder import cases, reference
from pykernels.kernels.decoder.problem import Gated, Norm, Rotary

Array = np.ndarray[Any, Any]

TORCH = "torch"
WIDTH, HIDDEN, HEADS, HEAD_DIM = 2048, 5504, 16, 128
NORM = Norm("rms", 1e-6)
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
"""Greatest error, over the greatest magnitude; torch rounds to bfloat16 between its steps."""


def groups(rounds: int = MIN_ROUNDS) -> list[Group]:
    return [
        make(dtype, rows, rounds) for make in (_norm, _gate, _turn) for dtype in TOLERANCE for rows in cases.MEASURED
    ]


def _norm(dtype: str, rows: int, rounds: int) -> Group:
    x, residual = (cases.normal(rows, WIDTH, dtype=dtype, seed=seed) for seed in (0, 1))
    weight, exact = cases.normal(WIDTH, seed=2), np.empty((rows, WIDTH))
    total = (wide(x) + wide(residual)).astype(x.dtype)
    reference.normalize(total, None, weight, None, None, exact, NORM)

    def theirs(torch: Any) -> Call:
        a, b, w = tensor(x), tensor(residual), tensor(weight).to(tensor(x).dtype)

        def run() -> Any:
            summed = a + b
            return summed, torch.nn.functional.rms_norm(summed, (WIDTH,), w, NORM.eps)

        return run

    ours = functools.partial(normalize, x, weight, None, NORM, residual)
    size = cases.normalize_bytes(rows, WIDTH, x.itemsize)
    return _group(
        "residual and RMS norm", dtype, f"{rows} x {WIDTH}", size, ours, theirs, lambda out: out[1], exact, rounds
    )


def _gate(dtype: str, rows: int, rounds: int) -> Group:
    x, exact = cases.normal(rows, 2 * HIDDEN, dtype=dtype), np.empty((rows, HIDDEN))
    reference.gated(x, exact, Gated("silu"))

    def theirs(torch: Any) -> Call:
        a = tensor(x)
        return lambda: torch.nn.functional.silu(a[:, :HIDDEN]) * a[:, HIDDEN:]

    size = cases.gated_bytes(rows, HIDDEN, x.itemsize)
    ours = functools.partial(gated, x, "silu")
    return _group("gated SiLU", dtype, f"{rows} x {HIDDEN}", size, ours, theirs, lambda out: out, exact, rounds)


def _turn(dtype: str, rows: int, rounds: int) -> Group:
    x = cases.normal(1, HEADS, rows, HEAD_DIM, dtype=dtype)
    half, positions = HEAD_DIM // 2, np.arange(rows)[None]
    cos, sin = cases.tables(rows, half)
    exact = np.empty(x.shape)
    reference.rotary(x, cos, sin, positions, exact, Rotary())
    launch = launcher("decoder", "cpu", "rotary")

    def ours() -> Array:
        out = np.empty_like(x)
        launch(x, cos, sin, positions, out, Rotary())
        return out

    def theirs(torch: Any) -> Call:
        a = tensor(x)
        c, s = (torch.cat([tensor(t), tensor(t)], -1).to(a.dtype) for t in (cos, sin))
        return lambda: a * c + torch.cat([-a[..., half:], a[..., :half]], -1) * s

    size = cases.rotary_bytes(rows, HEADS, HEAD_DIM, x.itemsize)
    case = f"{rows} x {HEADS} heads of {HEAD_DIM}"
    return _group("rotary", dtype, case, size, ours, theirs, lambda out: out, exact, rounds)


def _group(
    operation: str,
    dtype: str,
    case: str,
    size: int,
    ours: Call,
    theirs: Callable[[Any], Call],
    chosen: Callable[[Any], Any],
    exact: Array,
    rounds: int,
) -> Group:
    def verify(provider: str, result: Any) -> None:
        error = float(np.abs(wide(chosen(result)) - exact).max() / np.abs(exact).max())
        if not error <= TOLERANCE[dtype]:
            raise Disagreement(f"the output differs from float64 by {error:.2g}, more than {TOLERANCE[dtype]:.2g}")

    def build() -> Workload:
        missing = {TORCH: absent()[TORCH]} if TORCH in absent() else {}
        calls = {OURS: ours} | ({} if missing else {TORCH: theirs(importlib.import_module("torch"))})
        return Workload(calls, verify, missing, "fresh")

    return Group(operation, f"{SHORT[dtype]} {case}", (OURS, TORCH), build, exact.size, size, least_rounds=rounds)
