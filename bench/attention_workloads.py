"""Workloads of the attention benchmarks: decoding with caches of all dtypes, and prefill."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pykernels import attention
from pykernels.bench import attention_data as data
from pykernels.bench import attention_peers as peers
from pykernels.bench.attention_data import SHORT, Shape
from pykernels.bench.harness import MIN_ROUNDS, OURS, Disagreement, Group, Workload, rotate, rotations
from pykernels.kernels.attention import cases

BFLOAT16 = OURS + " bf16"
FULL = OURS + ", not causal"

TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2, "int8": 6e-2, "e4m3fn": 2e-1}
"""Greatest error of an output, over the greatest magnitude of what is compared."""


def decoding(dtype: str, shape: Shape, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """A token for each sequence, beside torch; from as many sets of sequences as leave nothing in the cache."""

    def build() -> Workload:
        q, k, v = data.arrays(dtype, shape, copies := rotations(data.cache_bytes(shape, dtype)))
        parts = [slice(n * shape.batch, (n + 1) * shape.batch) for n in range(copies)]
        calls: dict[str, Any] = {OURS: data.steps(dtype, shape.batch, q, k, v)}
        for name in _here(peer_names):
            calls[name] = rotate([peers.decode(name, q[part], k[part], v[part]) for part in parts])
        verify = _verifier(dtype, data.exact_step(shape.batch, q, k, v))
        return Workload(calls, verify, _missing(peer_names), allocation="fresh")

    operation = "decode multi-query" if shape.kv_heads == 1 else "decode"
    return _decode(operation, dtype, shape, (OURS, *peer_names), build, rounds)


def decoding_narrow(dtype: str, shape: Shape, rounds: int = MIN_ROUNDS) -> Group:
    """The same with a cache of eight bits, beside one of bfloat16."""

    def build() -> Workload:
        q, k, v = data.arrays("bfloat16", shape, rotations(data.cache_bytes(shape, dtype)))
        dtypes = {OURS: dtype, BFLOAT16: "bfloat16"}
        calls = {name: data.steps(each, shape.batch, q, k, v) for name, each in dtypes.items()}
        exact = data.exact_step(shape.batch, q, k, v)
        return Workload(calls, lambda name, found: _verifier(dtypes[name], exact)(name, found), allocation="fresh")

    return _decode(f"decode {dtype} cache", dtype, shape, (OURS, BFLOAT16), build, rounds)


def prefilling(dtype: str, length: int, dim: int, causal: bool, heads: int, rounds: int = MIN_ROUNDS) -> Group:
    """One sequence that attends to itself, as many heads of keys as of queries."""
    shape = Shape(1, heads, heads, length, length, dim, dim)
    flops = cases.flops(shape, causal)

    def build() -> Workload:
        q, k, v = (data.normal((1, heads, length, dim), dtype, seed) for seed in range(3))
        calls: dict[str, Any] = {OURS: functools.partial(attention.attention, q, k, v, causal=causal)}
        if _here((peers.SDPA,)):
            calls[peers.SDPA] = peers.prefill(q, k, v, causal)
        verify = _verifier(dtype, data.exact_rows(q, k, v, causal))
        return Workload(calls, verify, _missing((peers.SDPA,)), "fresh", peers.product_alone(dtype, flops))

    size = cases.min_bytes(shape, data.DTYPES[dtype].itemsize)
    case = f"{SHORT[dtype]} H={heads}, S={length}, D={dim}"
    operation = "prefill causal" if causal else "prefill"
    providers = OURS, peers.SDPA
    return Group(operation, case, providers, build, length, size, peers.PRODUCT, flops, least_rounds=rounds)


def skipping(dtype: str, length: int, dim: int, heads: int) -> Group:
    """Causal attention beside that to all keys."""

    def build() -> Workload:
        q, k, v = (data.normal((1, heads, length, dim), dtype, seed) for seed in range(3))
        causal = {OURS: True, FULL: False}
        calls: dict[str, Any] = {}
        checks = {}
        for name, each in causal.items():
            calls[name] = functools.partial(attention.attention, q, k, v, causal=each)
            checks[name] = _verifier(dtype, data.exact_rows(q, k, v, each))
        return Workload(calls, lambda name, found: checks[name](name, found), allocation="fresh")

    case = f"{SHORT[dtype]} H={heads}, S={length}, D={dim}"
    return Group("causal beside full", case, (OURS, FULL), build, length, 0, limit=None)


def _decode(
    operation: str, dtype: str, shape: Shape, providers: tuple[str, ...], build: Callable[[], Workload], rounds: int
) -> Group:
    case, size = f"{SHORT[dtype]} {data.described(shape)}", data.cache_bytes(shape, dtype)
    elements, flops = 2 * shape.batch * shape.kv_heads * shape.keys * shape.dim, cases.flops(shape)
    return Group(operation, case, providers, build, elements, size, "read", flops, least_rounds=rounds)


def _verifier(dtype: str, exact: data.Places) -> Callable[[str, Any], None]:
    def verify(provider: str, result: Any) -> None:
        found = data.wide(result)
        for place, right in exact:
            error = float(np.abs(found[place] - right).max() / np.abs(right).max())
            if not error <= TOLERANCE[dtype]:
                raise Disagreement(f"the output differs from float64 by {error:.2g}, more than {TOLERANCE[dtype]:.2g}")

    return verify


def _here(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in peers.absent()]


def _missing(names: Sequence[str]) -> dict[str, str]:
    return {name: reason for name, reason in peers.absent().items() if name in names}
