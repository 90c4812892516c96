"""Every backend against the reference, on the user's own machine: what ``pykernels check attention`` runs.

The reference computes in float64 from the same inputs; a backend may be off by roundings in float32, and by some in
the dtype of inputs and output, as processors multiply them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays import namespace
from .._checking import Array, on, rounded_differences
from .._dispatch import interpreting, launcher
from ..families import Check
from ..kernels.attention import cases
from ..kernels.attention.cases import Shape
from ..kernels.attention.problem import Gradients, Lengths, Scoring
from ._attention import attention
from ._cache import KVCache
from ._decode import decode
from ._halo import halo_attention
from ._merge import merge
from ._scoring import raw
from ._varlen import attention_varlen

_TOLERANCES = {"float32": 2e-5, "float64": 1e-13, "bfloat16": 1e-2, "float16": 2e-3}


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """The comparisons; of larger shapes if `exhaustive`, of few small ones by an interpreter."""
    for backend in backends:
        if backend == "reference":
            continue
        slow = backend == "gpu" and interpreting()
        shapes = cases.SMALL if slow else cases.SHAPES + cases.LARGE * exhaustive
        for dtype in [name for name in cases.DTYPES if backend == "cpu" or name != "float64"]:
            for shape in shapes:
                for features in cases.FEATURES:
                    yield _batch(dtype, shape, features, backend)
                yield _gradients(dtype, shape, backend)
            yield _ragged(dtype, cases.SMALL[0], backend)
            yield _split(dtype, cases.SMALL[1], backend)
            if dtype != "float64":
                for stored in (dtype, "int8", "float8_e4m3fn"):
                    yield _decoding(dtype, stored, cases.SMALL[0], backend)
            for pad in ("zero", "mask"):
                yield _halo(dtype, pad, backend)


def _batch(dtype: str, shape: Shape, features: dict[str, Any], backend: str) -> Check:
    operands, given = cases.operands(shape, dtype), cases.arguments(shape, features)

    def call(b: str) -> Any:
        arrays = {name: on(b, x) if isinstance(x, np.ndarray) else x for name, x in given.items()}
        return attention(*(on(b, x) for x in operands), **arrays, return_lse=True, backend=b)

    return Check("attention", f"{dtype} {tuple(shape)} {cases.named(features)}", backend, _both(call, dtype, backend))


def _gradients(dtype: str, shape: Shape, backend: str) -> Check:
    """By q, k, v, bias and sinks, of sums of products of out and lse with random numbers."""
    q, k, v = cases.operands(shape, dtype)
    given = cases.arguments(shape, {"bias": (1, 3), "sinks": True})
    wide = cases.DTYPES["float64" if dtype == "float64" else "float32"]
    rng = np.random.default_rng(2)
    by_out = rng.standard_normal((*q.shape[:3], shape.value_dim), np.float32).astype(q.dtype)
    by_lse = rng.standard_normal(q.shape[:3], np.float32).astype(wide)

    def call(b: str) -> Any:
        operands = [on(b, x) for x in (q, k, v)]
        bias, sinks = (on(b, given[name].astype(wide)) for name in ("bias", "sinks"))
        out, lse = attention(*operands, causal=True, bias=bias, sinks=sinks, return_lse=True, backend=b)
        whole = Scoring(shape.dim**-0.5, right=0, bias=bias, sinks=sinks)
        scoring = raw(namespace(operands[0])[1], whole, (*q.shape[:3], shape.keys), b)
        gradients = Gradients(*(on(b, np.empty(tuple(x.shape), wide)) for x in (*operands, bias, sinks)))
        launch = launcher("attention", b, "attention_backward")
        launch(on(b, by_out), on(b, by_lse), *operands, out, lse, scoring, Lengths(), gradients)
        return gradients

    return Check("attention_backward", f"{dtype} {tuple(shape)}", backend, _both(call, dtype, backend))


def _ragged(dtype: str, shape: Shape, backend: str) -> Check:
    """Three sequences, one of them without queries, and one with three keys."""
    q, k, v = (x.transpose(0, 2, 1, 3).reshape(-1, *x.shape[1::2]) for x in cases.operands(shape, dtype))
    queries, keys = [0, len(q) // 3, len(q) // 3, len(q)], [0, len(k) // 2, len(k) // 2 + 3, len(k)]

    def call(b: str) -> Any:
        return attention_varlen(on(b, q), on(b, k), on(b, v), queries, keys, causal=True, return_lse=True, backend=b)

    return Check("attention_varlen", f"{dtype} {len(q)}, {len(k)} tokens", backend, _both(call, dtype, backend))


def _split(dtype: str, shape: Shape, backend: str) -> Check:
    """Two halves of the keys, merged, against all of them."""
    q, k, v = cases.operands(shape, dtype)
    half = shape.keys // 2

    def call(b: str) -> Any:
        if b == "reference":
            return attention(q, k, v, return_lse=True, backend=b)
        halves = ((k[:, :, some], v[:, :, some]) for some in (slice(0, half), slice(half, None)))
        parts = [attention(on(b, q), on(b, k), on(b, v), return_lse=True, backend=b) for k, v in halves]
        return merge(*parts[0], *parts[1])

    return Check("merge", f"{dtype} {tuple(shape)}", backend, _both(call, dtype, backend))


def _decoding(dtype: str, stored: str, shape: Shape, backend: str) -> Check:
    """Two sequences of a cache, one of them half as long."""
    operands = cases.operands(shape, dtype)
    half = shape.keys // 2

    def call(b: str) -> Any:
        q, k, v = (on(b, x) for x in operands)
        device = None if isinstance(q, np.ndarray) else q.device
        cache = KVCache.paged(8, 16, shape.kv_heads, shape.dim, value_dim=shape.value_dim, dtype=stored, device=device)
        sequences = [cache.new(), cache.new()]
        cache.append(sequences, k[:, :, :half], v[:, :, :half])
        cache.append(sequences[:1], k[:1, :, half:], v[:1, :, half:])
        return decode(q, cache, sequences, return_lse=True, backend=b)

    return Check("decode", f"{dtype} {tuple(shape)} from {stored}", backend, _both(call, dtype, backend))


def _halo(dtype: str, pad: str, backend: str) -> Check:
    """An image whose sizes the block does not divide, of which every other pixel asks."""
    rng = np.random.default_rng(0)
    shapes = (*((2, 3, 9, 11, 16),) * 3, *((11, 16),) * 2)
    operands = [rng.standard_normal(shape, np.float32).astype(cases.DTYPES[dtype]) for shape in shapes]

    def call(b: str) -> Any:
        q, k, v, height, width = (on(b, x) for x in operands)
        tables = {"rel_height": height, "rel_width": width}
        return (halo_attention(q, k, v, block=4, halo=2, **tables, stride=2, pad=pad, backend=b),)

    return Check("halo_attention", f"{dtype} {shapes[0]} {pad}", backend, _both(call, dtype, backend))


def _both(call: Callable[[str], Any], dtype: str, backend: str) -> Callable[[], tuple[int, int]]:
    """All results of a call compared, up to rounding."""

    def run() -> tuple[int, int]:
        pairs = zip(call(backend), call("reference"), strict=True)
        compared = [rounded_differences(_plain(a), _plain(b), _TOLERANCES[dtype]) for a, b in pairs]
        return sum(n for n, _ in compared), sum(bad for _, bad in compared)

    return run


def _plain(x: Any) -> Array:
    x, arrays = namespace(x)
    return np.asarray(arrays.to_numpy(x)).astype(np.float64)
