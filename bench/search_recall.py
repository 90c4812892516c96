"""Recall on real data in its natural order: of the approximate top-k, and of databases of fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pykernels import search, topk
from pykernels.bench.search_data import Sentences
from pykernels.bench.search_workloads import narrowed
from pykernels.kernels.topk import cpu

Array = np.ndarray[Any, Any]
Step = Callable[[str], None]

TARGETS = (0.8, 0.9, 0.95, 0.99)
NEIGHBOURS = (10, 100)
DTYPES = ("bfloat16", "float16", "int8", "e4m3fn")
QUERIES = {True: 64, False: 512}
BLOCK = 64

APPROXIMATE_COLUMNS = (
    "scores of", "n", "queries", "k", "target",
    "plan here", "recall", "plan for a GPU", "expected", "by value", "by index",
)  # fmt: skip
OVERSAMPLING = (4, 16)
NARROW_COLUMNS = (
    "database",
    "n",
    "queries",
    "as",
    "recall@10",
    *(f"rescored of {10 * times}" for times in OVERSAMPLING),
)

NOTES = (
    "approx_max_k: the share of the true k best that was found, mean over the queries; by value (and here), one that "
    "ties with the k-th best counts as found. Plans are bins x survivors of each; exact where that is cheaper. The "
    "GPU's are run by the CPU's kernels. Expected: for positions at random, which these are not.",
    "Databases of fewer bits: the share of the 10 best in fp32, by value; rescored: so many candidates are scored "
    "again in fp32. int8 and e4m3fn have a scale for each vector; for maxsim, one.",
)


def tables(patches: Array, queries: Array, text: Sentences | None, step: Step) -> list[dict[str, Any]]:
    """Both tables; `queries` are patches, and for text every eighth sentence asks for those like it."""
    approximate: list[list[Any]] = []
    narrow: list[list[Any]] = []
    half = np.einsum("nd,nd->n", patches, patches) / 2
    step("approximate top-k of patches")
    blocks = (queries[first : first + BLOCK] @ patches.T - half for first in range(0, len(queries), BLOCK))
    approximate += _approximate("8x8x3 patches, l2", blocks, len(queries))
    step("patches in fewer bits")
    narrow += _narrow("8x8x3 patches, l2", patches, queries, "l2")
    if text is not None:
        step("sentences")
        asked = text.vectors[::8]
        approximate += _approximate("sentences, cosine", iter([asked @ text.vectors.T]), len(asked))
        narrow += _narrow("sentences, cosine", text.vectors, asked, "cosine")
        step("tokens")
        tokens, lengths = _padded(text, 32)
        scores = search.maxsim(tokens, text.tokens, document_offsets=text.offsets, query_lengths=lengths)
        approximate += _approximate("tokens, maxsim", iter([scores]), len(tokens))
        narrow += _narrow_tokens(text, tokens, lengths, scores)
    return [
        {"title": "approx_max_k on real scores in natural order", "columns": APPROXIMATE_COLUMNS, "rows": approximate},
        {"title": "Search of databases of fewer bits", "columns": NARROW_COLUMNS, "rows": narrow},
    ]


def _approximate(name: str, blocks: Iterator[Array], queries: int) -> Iterator[list[Any]]:
    """A row for every k and target; `blocks` are scores (block, n) of all `queries`."""
    sums: dict[tuple[int, float], Array] = {}
    n = 0
    for scores in blocks:
        n = scores.shape[1]
        for k in NEIGHBOURS:
            best, places = topk.topk(scores, k)
            for target in TARGETS:
                here = topk.approx_max_k(scores, k, recall_target=target)[0]
                values, indices = _survivors(scores, k, topk.plan(n, k, target, backend="gpu"))
                shares = [(here >= best[:, -1:]).sum() / k, (values >= best[:, -1:]).sum() / k]
                shares.append(sum(np.isin(a, b).sum() for a, b in zip(places, indices, strict=True)) / k)
                sums[k, target] = sums.get((k, target), np.zeros(3)) + shares
    for (k, target), found in sums.items():
        here, there = (topk.plan(n, k, target, backend=backend) for backend in ("cpu", "gpu"))
        recall = [round(float(share), 4) for share in found / queries]
        expected = round(there.expected_recall, 4)
        yield [name, n, queries, k, target, _bins(here, n), recall[0], _bins(there, n), expected, *recall[1:]]


def _survivors(scores: Array, k: int, plan: topk.RecallPlan) -> tuple[Array, Array]:
    """The k best of each row that a plan finds, with the kernels of the CPU whatever backend the plan is for."""
    if plan.bins == scores.shape[1]:
        return topk.topk(scores, k)
    shape = (len(scores), plan.survivors)
    values, indices = np.empty(shape, scores.dtype), np.empty(shape, np.int64)
    cpu.partial_topk(scores, plan.bins, plan.per_bin, True, values, indices)
    best, slots = topk.topk(values, k)
    return best, np.take_along_axis(indices, slots, axis=1)


def _bins(plan: topk.RecallPlan, n: int) -> str:
    return "exact" if plan.bins == n else f"{plan.bins} x {plan.per_bin}"


def _narrow(name: str, x: Array, q: Array, metric: str) -> Iterator[list[Any]]:
    worst = distances(x, q, metric, search.knn(q, x, 10, metric=metric)[1])[:, -1:]
    for dtype in DTYPES:
        near = narrowed(x, dtype)
        asked = q if dtype in ("int8", "e4m3fn") else narrowed(q, dtype)
        found = [search.knn(asked, near, 10, metric=metric)[1]]
        found += [search.knn(q, near, 10, metric=metric, rescore=x, oversampling=times)[1] for times in OVERSAMPLING]
        yield [name, len(x), len(q), dtype, *(round(recall(x, q, metric, worst, ids), 4) for ids in found)]


def recall(x: Array, q: Array, metric: str, worst: Array, ids: Array) -> float:
    """The share of the rows `ids` (Q, k) that are at most `worst` (Q, 1), the k-th best distance, from their query."""
    return float((distances(x, q, metric, ids) <= worst + 1e-6 * np.abs(worst)).mean())


def distances(x: Array, q: Array, metric: str, ids: Array) -> Array:
    """Float64 squared distances, or minus the inner products, of queries (Q, D) and their rows `ids` (Q, k)."""
    found = np.empty(ids.shape)
    for i, query in enumerate(q.astype(np.float64)):
        rows = x[ids[i]]
        found[i] = ((rows - query) ** 2).sum(1) if metric == "l2" else -(rows @ query)
    return found


def _narrow_tokens(text: Sentences, tokens: Array, lengths: Array, scores: Array) -> Iterator[list[Any]]:
    worst = np.partition(scores, -10)[:, -10, None]
    for dtype in DTYPES:
        q, x = (narrowed(a.reshape(-1, a.shape[-1]), dtype, "tensor") for a in (tokens, text.tokens))
        if dtype in ("int8", "e4m3fn"):
            q = type(q)(q.codes.reshape(tokens.shape), q.scale, "tensor")
        else:
            q = q.reshape(tokens.shape)
        found = search.maxsim(q, x, document_offsets=text.offsets, query_lengths=lengths, k=10)[1]
        share = float((np.take_along_axis(scores, found, 1) >= worst - 1e-6 * np.abs(worst)).mean())
        yield ["tokens, maxsim", scores.shape[1], len(tokens), dtype, round(share, 4), *(None for _ in OVERSAMPLING)]


def _padded(text: Sentences, longest: int) -> tuple[Array, Array]:
    """Every eighth sentence as a query: its first `longest` tokens, padded with zeros, and how many there are."""
    chosen = np.arange(0, len(text.offsets) - 1, 8)
    lengths = np.minimum(np.diff(text.offsets)[chosen], longest)
    tokens = np.zeros((len(chosen), longest, text.tokens.shape[1]), np.float32)
    for row, first, length in zip(tokens, text.offsets[chosen], lengths, strict=True):
        row[:length] = text.tokens[first : first + length]
    return tokens, lengths
