"""A decoder's kernels against the reference, and its layouts on a mesh: what ``pykernels check inference`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._checking import on, rounded_differences
from ..families import Check
from ..kernels.decoder import cases
from ..kernels.decoder.problem import FLOATS, Norm, Rotary
from . import mesh
from ._kernels import gated, normalize, rotary
from .plan.volumes import ATTENTION, LAYOUTS, Shapes

_TOLERANCES = {"float32": 2e-6, "bfloat16": 8e-3, "float16": 1e-3}


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """Small kernels of every dtype; for the CPU also that layouts give one chip's output and the bytes of formulas."""
    for backend in backends:
        if backend == "reference":
            continue
        for dtype in FLOATS:
            for kind in ("rms", "layer"):
                yield Check("normalize", f"{dtype} {kind}", backend, _both(_norm, kind, dtype, backend))
            for name in ("relu", "silu", "gelu", "gelu_tanh"):
                yield Check("gated", f"{dtype} {name}", backend, _both(_gate, name, dtype, backend))
            for order in (False, True):
                case = f"{dtype} {'interleaved' if order else 'halves'}"
                yield Check("rotary", case, backend, _both(_turn, order, dtype, backend))
        if backend == "cpu":
            for layout in LAYOUTS:
                for attention in ATTENTION:
                    yield Check("mesh", f"{layout}, attention over {attention}", backend, _proof(layout, attention))


def _both(call: Callable[..., Any], option: Any, dtype: str, backend: str) -> Callable[[], tuple[int, int]]:
    def run() -> tuple[int, int]:
        pairs = zip(*(call(option, dtype, each) for each in (backend, "reference")), strict=True)
        compared = [rounded_differences(got, expected, _TOLERANCES[dtype]) for got, expected in pairs]
        return sum(n for n, _ in compared), sum(bad for _, bad in compared)

    return run


def _norm(kind: str, dtype: str, backend: str) -> list[Any]:
    made = []
    for rows, width in cases.ROWS:
        x, weight = on(backend, cases.normal(rows, width, dtype=dtype)), on(backend, cases.normal(width, seed=1))
        shift = weight if kind == "layer" else None
        made.append(normalize(x, weight, shift, Norm(kind, 1e-6), x, backend)[1])
    return made


def _gate(name: str, dtype: str, backend: str) -> list[Any]:
    return [gated(on(backend, cases.normal(m, 2 * f, dtype=dtype)), name, backend) for m, f in cases.ROWS]


def _turn(interleaved: bool, dtype: str, backend: str) -> list[Any]:
    made = []
    for n, heads, tokens, dim, turned in cases.HEADS:
        x = on(backend, cases.normal(n, heads, tokens, dim, dtype=dtype))
        cos, sin = (on(backend, table) for table in cases.tables(n * tokens, turned // 2))
        positions = on(backend, np.arange(n * tokens).reshape(n, tokens))
        rotary(x, cos, sin, positions, Rotary(interleaved), backend)
        made.append(x)
    return made


def _proof(layout: str, attention: str) -> Callable[[], tuple[int, int]]:
    def run() -> tuple[int, int]:
        shapes = Shapes(width=24, hidden=40, heads=6, kv_heads=1, head_dim=4)
        rows = mesh.prove(shapes, (2, 2, 2), 8, layouts=[layout], attention=[attention]).rows
        return len(rows), sum(not (row.same and row.held and row.error <= 1e-12) for row in rows)

    return run
