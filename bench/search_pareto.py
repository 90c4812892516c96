"""Queries per second against recall, on patches of photographs: the picture of TPU-KNN (arXiv 2206.14286) for here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pykernels import search
from pykernels.bench import search_peers as peers
from pykernels.bench.harness import OURS, interleave
from pykernels.bench.pinning import Pinning
from pykernels.bench.search_recall import OVERSAMPLING, distances, recall
from pykernels.bench.search_workloads import narrowed

Array = np.ndarray[Any, Any]

K = 10
EVERY = {True: 8, False: 1}
QUERIES = {True: 512, False: 2048}
ROUNDS = {True: 3, False: 5}
LINKS, EFFORT = 16, 100
EFS = (10, 20, 40, 80, 160, 320, 640)
COLUMNS = ("method", "recall@10", "queries/s", "build s")


class Method(NamedTuple):
    """One way to search; `run` gives the rows found. `series` joins the points of a curve."""

    series: str
    name: str
    run: Callable[[], Array]
    build_seconds: float | None = None


def measure(patches: Array, queries: Array, quick: bool, step: Callable[[str], None]) -> dict[str, Any]:
    """A table of all methods, the same as points of curves, and what was left out.

    Returns ``{"table": ..., "curves": {"title", "series": {name: [[recall, queries per second], ...]}},
    "notes": [...]}``.
    """
    x, q = np.ascontiguousarray(patches[:: EVERY[quick]]), queries
    step("search by product")
    methods = _products(x, q)
    found = {method: method.run() for method in methods}
    pinning = Pinning()
    pinning.settle()
    try:
        seconds = _seconds(methods, ROUNDS[quick])
    finally:
        pinning.release()
    asked = f"{len(q)} patches of the mirrored photographs ask {len(x):,} others"
    notes = [f"Queries per second: {asked}, l2, k={K}; best of {ROUNDS[quick]} rounds"]
    if importlib.util.find_spec("hnswlib") is None:
        notes.append("not measured: hnswlib is not installed")
    else:
        step("hnswlib")
        graph = _graph(x, q)
        found |= {method: method.run() for method in graph}
        seconds |= _seconds(graph, ROUNDS[quick])
        methods += graph
        notes.append(f"hnswlib with M={LINKS}, ef_construction={EFFORT}, ef {', '.join(map(str, EFS))}")
    worst = _worst(x, q, list(found.values()))
    rows, series = [], dict[str, list[list[float]]]()
    for method in methods:
        point = [round(recall(x, q, "l2", worst, found[method]), 4), round(len(q) / seconds[method])]
        rows.append([method.name, *point, method.build_seconds])
        series.setdefault(method.series, []).append(point)
    title = f"Search of {len(x):,} patches of photographs, {len(q)} queries at a time"
    return {
        "table": {"title": title, "columns": COLUMNS, "rows": rows},
        "curves": {"title": title, "x": "recall@10", "y": "queries per second", "series": series},
        "notes": notes,
    }


def _products(x: Array, q: Array) -> list[Method]:
    """Searches that compare every query with every row; the first is the exact one."""
    methods = [Method(OURS, f"{OURS} fp32", functools.partial(_ids, q, x))]
    for dtype in ("bfloat16", "int8"):
        near, name = narrowed(x, dtype), f"{OURS} {dtype}"
        methods.append(Method(name, name, functools.partial(_ids, narrowed(q, dtype, "tensor"), near)))
        for times in OVERSAMPLING:
            again = functools.partial(_ids, q, near, rescore=x, oversampling=times)
            methods.append(Method(name, f"{name}, rescored of {K * times}", again))
    scores, ids = np.zeros((len(q), K), np.float32), np.zeros((len(q), K), np.int64)

    def whole(run: Callable[[], Any]) -> Callable[[], Array]:
        def rows() -> Array:
            run()
            return np.array(ids)

        return rows

    for name in (peers.FAISS, peers.TUNED):
        if name not in peers.absent():
            run = peers.faiss_flat(name, "l2", x, q, K, scores, ids, None)
            methods.append(Method(name, f"{name} flat", whole(run)))
    if peers.SKLEARN not in peers.absent():
        brute = peers.sklearn_brute("l2", x, q, K)
        methods.append(Method(peers.SKLEARN, f"{peers.SKLEARN} brute", lambda: np.array(brute()[1])))
    if peers.TORCH not in peers.absent():
        run = peers.torch_product("l2", x, q, K, scores, ids, None, "float32")
        methods.append(Method(peers.TORCH, "torch matmul, topk", whole(run)))
    return methods


def _ids(q: Any, x: Any, **options: Any) -> Array:
    found: Array = search.knn(q, x, K, metric="l2", **options)[1]
    return found


def _graph(x: Array, q: Array) -> list[Method]:
    """hnswlib's graph; its queries, each by one thread, use all cores."""
    import numba

    hnswlib: Any = importlib.import_module("hnswlib")
    threads = numba.get_num_threads()
    graph = hnswlib.Index("l2", x.shape[1])
    graph.init_index(len(x), M=LINKS, ef_construction=EFFORT, random_seed=0)
    start = time.perf_counter()
    graph.add_items(x, num_threads=threads)
    build = round(time.perf_counter() - start, 1)

    def rows(ef: int) -> Array:
        graph.set_ef(ef)
        found: Array = graph.knn_query(q, K, num_threads=threads)[0].astype(np.int64)
        return found

    series = f"hnswlib, built in {build:.0f} s"
    return [Method(series, f"hnswlib ef={ef}", functools.partial(rows, ef), build) for ef in EFS]


def _worst(x: Array, q: Array, found: list[Array]) -> Array:
    """The K-th smallest distance (Q, 1) to the rows that any method found."""
    every = np.concatenate(found, axis=1)
    worst = np.empty((len(q), 1))
    for i, rows in enumerate(every):
        worst[i] = np.sort(distances(x, q[i : i + 1], "l2", np.unique(rows)[None])[0])[K - 1]
    return worst


def _seconds(methods: list[Method], rounds: int) -> dict[Method, float]:
    calls = {method.name: method.run for method in methods}
    seconds = interleave(calls, rounds, dict.fromkeys(calls, 1))
    return {method: min(seconds[method.name]) for method in methods}
