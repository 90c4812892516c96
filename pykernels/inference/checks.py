"""A decoder's kernels against the reference, and its layouts on a mesh: what ``pykernels check inference`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays import dtype_of
from .._checking import on, rounded_differences
from ..families import Check
from ..kernels.decoder.problem import FLOATS, Norm, Rotary
from . import mesh
from ._kernels import gated, normalize, rotary
from .plan.volumes import ATTENTION, LAYOUTS, Shapes

_TOLERANCES = {"float32": 2e-6, "bfloat16": 8e-3, "float16": 1e-3}
_ROWS, _WIDTH = 5, 70


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
        got, expected = (call(option, dtype, each) for each in (backend, "reference"))
        return rounded_differences(got, expected, _TOLERANCES[dtype])

    return run


def _normal(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype_of(dtype))


def _norm(kind: str, dtype: str, backend: str) -> Any:
    x, weight = _normal((_ROWS, _WIDTH), dtype), _normal((_WIDTH,), "float32", 1)
    shift = on(backend, weight) if kind == "layer" else None
    return normalize(on(backend, x), on(backend, weight), shift, Norm(kind, 1e-6), on(backend, x), backend)[1]


def _gate(name: str, dtype: str, backend: str) -> Any:
    return gated(on(backend, _normal((_ROWS, 2 * _WIDTH), dtype)), name, backend)


def _turn(interleaved: bool, dtype: str, backend: str) -> Any:
    x = on(backend, _normal((2, 3, _ROWS, 16), dtype))
    angles = np.arange(8 * 20, dtype=np.float32).reshape(20, 8)
    positions = np.arange(2 * _ROWS, dtype=np.int64).reshape(2, _ROWS)
    cos, sin = on(backend, np.cos(angles)), on(backend, np.sin(angles))
    rotary(x, cos, sin, on(backend, positions), Rotary(interleaved), backend)
    return x


def _proof(layout: str, attention: str) -> Callable[[], tuple[int, int]]:
    def run() -> tuple[int, int]:
        shapes = Shapes(width=24, hidden=40, heads=6, kv_heads=1, head_dim=4)
        rows = mesh.prove(shapes, (2, 2, 2), 8, layouts=[layout], attention=[attention]).rows
        return len(rows), sum(not (row.same and row.held and row.error <= 1e-12) for row in rows)

    return run
