"""Workloads of the search benchmarks: databases and documents, and the scores that every result must have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from pykernels import quant, search
from pykernels.bench import search_peers as peers
from pykernels.bench.harness import OURS, Disagreement, Group, Workload
from pykernels.bench.search_peers import FAISS, SKLEARN, TORCH, TUNED
from pykernels.kernels.search import cases

Array = np.ndarray[Any, Any]

N, D = 100_000, 128
VERIFIED = 4
"""Queries whose results are compared with float64."""

TOKENS, DOCUMENTS, SHORTEST, LONGEST = 32, 1000, 20, 300
FLOAT32 = OURS + " fp32"
UNMASKED = OURS + ", no mask"


def searching(metric: str, queries: int, k: int, peer_names: tuple[str, ...]) -> Group:
    """`knn` of float32 vectors, beside whole searches and the matrix product alone."""

    def build() -> Workload:
        x, q, scores, ids = _arrays(queries, k)
        calls: dict[str, Any] = {OURS: _ours(metric, x, q, k, scores, ids)}
        calls |= _peers(peer_names, metric, x, q, k, scores, ids)
        expected = _best(metric, x, q[:VERIFIED], k)
        verify = _verifier(metric, x, q, scores, ids, lambda provider: expected)
        return Workload(calls, verify, _missing(peer_names), limits=peers.product_alone(x, q))

    return _group("knn", f"{metric} Q={queries}, k={k}", (OURS, *peer_names), build, queries, k)


def masking(queries: int, k: int, hidden: float, per_query: bool, peer_names: tuple[str, ...]) -> Group:
    """The inner-product search of a part of the database, beside that of all of it."""

    def build() -> Workload:
        x, q, scores, ids = _arrays(queries, k)
        shape = (queries, N) if per_query else (N,)
        mask = np.random.default_rng(1).random(shape) >= hidden
        calls: dict[str, Any] = {
            OURS: _ours("ip", x, q, k, scores, ids, mask=mask),
            UNMASKED: _ours("ip", x, q, k, scores, ids),
        }
        calls |= _peers(peer_names, "ip", x, q, k, scores, ids, mask)
        some, every = (_best("ip", x, q[:VERIFIED], k, allowed) for allowed in (mask, None))
        verify = _verifier("ip", x, q, scores, ids, lambda provider: every if provider == UNMASKED else some)
        return Workload(calls, verify, _missing(peer_names))

    case = f"ip Q={queries}, k={k}, {hidden:.0%} out per {'query' if per_query else 'row'}"
    return _group("knn masked", case, (OURS, UNMASKED, *peer_names), build, queries, k, limit=None)


def narrow(dtype: str, queries: int, k: int) -> Group:
    """The inner-product search of a database of fewer bits, beside that of float32; and torch in bfloat16."""
    peer_names = (TORCH,) if dtype == "bfloat16" else ()

    def build() -> Workload:
        x, q, scores, ids = _arrays(queries, k)
        near, asked = narrowed(x, dtype), narrowed(q, dtype)
        calls: dict[str, Any] = {
            OURS: _ours("ip", near, asked, k, scores, ids),
            FLOAT32: _ours("ip", x, q, k, scores, ids),
        }
        if peer_names and TORCH not in peers.absent():
            calls[TORCH] = peers.torch_product("ip", x, q, k, scores, ids, None, dtype)
        wide_x, wide_q = _widened(near), _widened(asked)
        coarse, fine = _best("ip", wide_x, wide_q[:VERIFIED], k), _best("ip", x, q[:VERIFIED], k)

        def verify(provider: str, result: Any) -> None:
            if provider == OURS:
                _verifier("ip", wide_x, wide_q, scores, ids, lambda _: coarse)(provider, result)
            elif provider == FLOAT32:
                _verifier("ip", x, q, scores, ids, lambda _: fine)(provider, result)

        return Workload(calls, verify, _missing(peer_names))

    case = f"ip Q={queries}, k={k}"
    return _group(f"knn {dtype}", case, (OURS, FLOAT32, *peer_names), build, queries, k, limit=None)


def scoring(dtype: str = "float32") -> Group:
    """`maxsim` of one query's tokens against ragged documents."""
    peer_names = ("numpy", TORCH, "maxsim-cpu") if dtype == "float32" else ()
    beside = () if dtype == "float32" else (FLOAT32,)
    tokens = int(_lengths().sum())

    def build() -> Workload:
        draw = np.random.default_rng(0)
        offsets = np.concatenate([[0], np.cumsum(_lengths())])
        x, q = (_unit(draw.standard_normal((n, D), np.float32)) for n in (tokens, TOKENS))
        near, asked = (x, q) if dtype == "float32" else (narrowed(a, dtype, "tensor") for a in (x, q))
        scores = np.zeros(DOCUMENTS, np.float32)
        ours = functools.partial(search.maxsim, document_offsets=offsets, out=scores)
        calls: dict[str, Any] = {OURS: functools.partial(ours, asked, near)}
        if beside:
            calls[FLOAT32] = functools.partial(ours, q, x)
        if peer_names:
            calls["numpy"] = peers.maxsim_numpy(q, x, offsets, scores)
            if TORCH not in peers.absent():
                calls[TORCH] = peers.maxsim_torch(q, x, offsets, scores)
            if "maxsim-cpu" not in peers.absent():
                calls["maxsim-cpu"] = peers.maxsim_cpu(q, x, offsets)

        def verify(provider: str, result: Any) -> None:
            wide = (x, q) if provider != OURS else (_widened(near), _widened(asked))
            products = wide[1].astype(np.float64) @ wide[0].T.astype(np.float64)
            expected = np.maximum.reduceat(products, offsets[:-1], axis=1).sum(0)
            _close(result if provider == "maxsim-cpu" else scores, expected, _rounding(TOKENS))
            scores.fill(0)

        return Workload(calls, verify, _missing(peer_names), allocation="fresh")

    work = cases.flops(TOKENS, tokens, D)
    case = f"{TOKENS} x {DOCUMENTS} documents of {SHORTEST}..{LONGEST}"
    name = "maxsim" if dtype == "float32" else f"maxsim {dtype}"
    return Group(name, case, (OURS, *beside, *peer_names), build, tokens, 4 * D * tokens, limit="GEMM", flops=work)


def _arrays(queries: int, k: int) -> tuple[Array, Array, Array, Array]:
    draw = np.random.default_rng(0)
    x, q = (draw.standard_normal((n, D), np.float32) for n in (N, queries))
    return x, q, np.zeros((queries, k), np.float32), np.zeros((queries, k), np.int64)


def _ours(metric: str, x: Any, q: Any, k: int, scores: Array, ids: Array, **options: Any) -> Callable[[], Any]:
    return functools.partial(search.knn, q, x, k, metric=metric, out=(scores, ids), **options)


def _peers(
    names: tuple[str, ...], metric: str, x: Array, q: Array, k: int, scores: Array, ids: Array, mask: Any = None
) -> dict[str, Callable[[], Any]]:
    makers: dict[str, Callable[[], Callable[[], Any]]] = {
        FAISS: lambda: peers.faiss_flat(FAISS, metric, x, q, k, scores, ids, mask),
        TUNED: lambda: peers.faiss_flat(TUNED, metric, x, q, k, scores, ids, mask),
        SKLEARN: lambda: peers.sklearn_brute(metric, x, q, k),
        TORCH: lambda: peers.torch_product(metric, x, q, k, scores, ids, mask, "float32"),
    }
    return {name: makers[name]() for name in names if name not in peers.absent()}


def _scores(metric: str, x: Array, q: Array) -> Array:
    """Scores of all pairs in float64, the largest the best: -|q - x|^2 for "l2"."""
    x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "cosine":
        x, q = _unit(x), _unit(q)
    s: Array = q @ x.T
    return s if metric != "l2" else 2 * s - (x**2).sum(1) - (q**2).sum(1)[:, None]


def _best(metric: str, x: Array, q: Array, k: int, mask: Array | None = None) -> Array:
    s = _scores(metric, x, q)
    if mask is not None:
        s = np.where(mask if mask.ndim == 1 else mask[: len(q)], s, -np.inf)
    best: Array = -np.sort(-np.partition(s, s.shape[1] - k)[:, s.shape[1] - k :])
    return best


def _verifier(
    metric: str, x: Array, q: Array, scores: Array, ids: Array, expected: Callable[[str], Array]
) -> Callable[[str, Any], None]:
    """Checks that scores are the expected ones to float32 rounding, and that their rows have them."""
    lengths = np.linalg.norm(q[:VERIFIED], axis=1).max() * np.linalg.norm(x, axis=1).max()
    tolerance = _rounding(1 if metric == "cosine" else float(lengths)) * (4 if metric == "l2" else 1)

    def verify(provider: str, result: Any) -> None:
        found, rows = result if provider == SKLEARN else (scores, ids)
        best = expected(provider)
        sign = -1 if metric == "l2" else 1
        _close(sign * found[:VERIFIED], best, tolerance)
        for i, query in enumerate(q[:VERIFIED]):
            _close(_scores(metric, x[rows[i]], query[None])[0], best[i], tolerance)
            if len(np.unique(rows[i])) < len(rows[i]):
                raise Disagreement("a row was found twice")
        scores.fill(0)
        ids.fill(0)

    return verify


def _rounding(magnitude: float) -> float:
    """Error of a float32 inner product of `D` terms whose absolute values add up to `magnitude`."""
    return float(4 * np.finfo(np.float32).eps * np.sqrt(D) * magnitude)


def _close(found: Any, expected: Array, tolerance: float) -> None:
    error = float(np.abs(np.asarray(found, np.float64) - expected).max())
    if not error <= tolerance:
        raise Disagreement(f"scores differ from float64 by {error:.2g}, more than {tolerance:.2g}")


def narrowed(x: Array, dtype: str, granularity: str = "row") -> Any:
    """The float32 matrix `x` as a database of fewer bits: int8 and e4m3fn with scales."""
    if dtype in ("bfloat16", "float16"):
        return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)
    if dtype == "int8":
        scale = np.float32(np.abs(x).max(1, keepdims=True) if granularity == "row" else np.abs(x).max()) / 127
        return quant.QuantizedTensor(np.rint(x / scale).astype(np.int8), scale, granularity)
    return quant.quantize(x, dtype, granularity=granularity)


def _widened(x: Any) -> Array:
    wide: Array = x.dequantize(np.float32) if isinstance(x, quant.QuantizedTensor) else x.astype(np.float32)
    return wide


def _unit(x: Array) -> Array:
    unit: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


@functools.cache
def _lengths() -> Array:
    return np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, DOCUMENTS)


def _missing(providers: tuple[str, ...]) -> dict[str, str]:
    return {name: reason for name, reason in peers.absent().items() if name in providers}


def _group(
    operation: str,
    case: str,
    providers: tuple[str, ...],
    build: Any,
    queries: int,
    k: int,
    limit: str | None = "product",
) -> Group:
    size, work = cases.min_bytes(queries, N, D, k, 4), cases.flops(queries, N, D)
    return Group(operation, case, providers, build, queries * N, size, limit=limit, flops=work)
