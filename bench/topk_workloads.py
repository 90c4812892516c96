"""Workloads of the top-k benchmarks: matrices whose k best of each row are known beforehand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernels import topk
from pykernels.bench import topk_peers as peers
from pykernels.bench.harness import OURS, Disagreement, Group, Workload, rotate, rotations
from pykernels.kernels.topk import cases

Array = np.ndarray[Any, Any]
DISTINCT = 8
"""Rows that are drawn; the others are these, rotated."""

RECALL_TARGET = 0.95
RECALL_SLACK = 0.02
"""Measured recall of one matrix may fall this far below its expectation before it is called wrong."""


def selecting(rows: int, n: int, k: int, peer_names: tuple[str, ...] = ("torch.topk",), order: str = "random") -> Group:
    """`topk` of a float32 matrix whose rows are in a given order."""

    def build() -> Workload:
        matrices = _matrices(rows, n, order)
        values, indices = np.zeros((rows, k), np.float32), np.zeros((rows, k), np.int64)
        ours = [functools.partial(topk.topk, x, k, out=(values, indices)) for x in matrices]
        calls: dict[str, Any] = {OURS: rotate(ours)}
        for name, make in (("torch.topk", peers.torch_topk), ("np.argpartition", peers.argpartition)):
            if name in peer_names and name not in peers.absent():
                calls[name] = rotate([make(x, k, values, indices) for x in matrices])
        expected = _expected(matrices[0][:DISTINCT], k)

        def verify(provider: str, result: object) -> None:
            _exact(matrices[0], expected, values, indices, stable=provider == OURS)
            values.fill(0)
            indices.fill(0)

        return Workload(calls, verify, _missing(peer_names))

    case = f"fp32 {rows} x {n:,}, k={k}" + ("" if order == "random" else f", {order}")
    return _group("topk", case, (OURS, *peer_names), build, rows, n, k)


def approximating(rows: int, n: int, k: int) -> Group:
    """`approx_max_k` beside the exact `topk`; its allocation is its own."""
    exact = "pykernels topk"

    def build() -> Workload:
        matrices = _matrices(rows, n, "random")
        values, indices = np.zeros((rows, k), np.float32), np.zeros((rows, k), np.int64)
        calls: dict[str, Any] = {
            OURS: rotate([functools.partial(topk.approx_max_k, x, k, recall_target=RECALL_TARGET) for x in matrices]),
            exact: rotate([functools.partial(topk.topk, x, k) for x in matrices]),
        }
        if "torch.topk" not in peers.absent():
            calls["torch.topk"] = rotate([peers.torch_topk(x, k, values, indices) for x in matrices])
        expected = _expected(matrices[0][:DISTINCT], k)

        def verify(provider: str, result: Any) -> None:
            if provider != OURS:
                best, places = (np.asarray(each) for each in result)
                return _exact(matrices[0], expected, best, places, stable=provider == exact)
            recall = np.mean([np.isin(best, found).mean() for best, found in zip(expected[1], result[1], strict=False)])
            if recall < RECALL_TARGET - RECALL_SLACK:
                raise Disagreement(f"recall {recall:.3f} of {len(expected[1])} rows")

        return Workload(calls, verify, _missing(("torch.topk",)), allocation="fresh")

    case = f"fp32 {rows} x {n:,}, k={k}, recall {RECALL_TARGET}"
    return _group("approx_max_k", case, (OURS, exact, "torch.topk"), build, rows, n, k)


def _matrices(rows: int, n: int, order: str) -> list[Array]:
    """As many matrices as leave nothing useful in the cache, their rows the same few, rotated."""
    draw = np.random.default_rng(0)
    makers: dict[str, Callable[[int], Array]] = {
        "random": lambda count: draw.standard_normal((count, n), np.float32),
        "ascending": lambda count: np.tile(np.arange(n, dtype=np.float32), (count, 1)),
        "all equal": lambda count: np.ones((count, n), np.float32),
        "8 values": lambda count: draw.integers(0, 8, (count, n)).astype(np.float32),
    }
    distinct = makers[order](min(rows, DISTINCT))
    found = []
    for number in range(rotations(rows * n * 4)):
        x = np.empty((rows, n), np.float32)
        for first in range(0, rows, DISTINCT):
            shift = 0 if order == "ascending" else first + 9 * number
            x[first : first + DISTINCT] = np.roll(distinct, shift, axis=1)[: rows - first]
        found.append(x)
    return found


def _expected(x: Array, k: int) -> tuple[Array, Array]:
    """Values and indices of the k best of each row of `x`, by a stable sort of those that may be among them."""
    indices = np.empty((len(x), k), np.int64)
    for row, best in zip(x, indices, strict=True):
        candidates = np.flatnonzero(row >= np.partition(row, row.size - k)[row.size - k])
        best[:] = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
    return np.take_along_axis(x, indices, axis=1), indices


def _exact(x: Array, expected: tuple[Array, Array], values: Array, indices: Array, stable: bool) -> None:
    """Raise unless every row has the expected values at its indices; `stable`: unless ties are in order, too."""
    best = expected[0][np.arange(len(x)) % DISTINCT]
    if not np.array_equal(values, best) or not np.array_equal(np.take_along_axis(x, indices, axis=1), best):
        raise Disagreement("values differ from those of a stable sort, or indices do not lead to them")
    if np.any(np.diff(np.sort(indices, axis=1), axis=1) == 0):
        raise Disagreement("an index occurs twice in a row")
    if stable and not np.array_equal(indices[: len(expected[1])], expected[1]):
        raise Disagreement("indices differ from those of a stable sort")


def _missing(providers: tuple[str, ...]) -> dict[str, str]:
    return {name: reason for name, reason in peers.absent().items() if name in providers}


def _group(operation: str, case: str, providers: tuple[str, ...], build: Any, rows: int, n: int, k: int) -> Group:
    size, work = rows * cases.min_bytes(n, k, 4), rows * cases.flops(n)
    return Group(operation, case, providers, build, rows * n, size, limit="read", flops=work)
