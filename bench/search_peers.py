"""What searches without this library, as its experts would run it: FAISS, scikit-learn, torch; and the product alone.

Every maker does once what an index does once (norms, normalised rows, padding), which is not timed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]

FAISS, TUNED, SKLEARN, TORCH = "FAISS", "FAISS tuned", "scikit-learn", "torch"
PACKAGES = {FAISS: "faiss", TUNED: "faiss", SKLEARN: "sklearn", TORCH: "torch", "maxsim-cpu": "maxsim_cpu"}

BLAS_THRESHOLD = {FAISS: 128_000, TUNED: 1}
"""FAISS multiplies matrices from this many numbers in the queries on: its default, and always."""

SCORES = 1 << 28
"""Bytes of scores that torch holds at once."""

PRODUCT = 1 << 23
"""Bytes of a block of the product alone; it stays in the last cache."""
PRODUCT_ROWS = 4096

DOCUMENTS = 125
"""Documents that torch scores at once, each padded to the longest of them."""


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    return {
        name: f"{package} is not installed"
        for name, package in PACKAGES.items()
        if importlib.util.find_spec(package) is None
    }


def faiss_flat(name: str, metric: str, x: Array, q: Array, k: int, scores: Array, ids: Array, allowed: Any) -> Call:
    """IndexFlat, by the BLAS threshold that goes with `name`; `allowed` (N,) restricts it by a bitmap."""
    faiss: Any = importlib.import_module("faiss")
    index = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(x.shape[1])
    index.add(_unit(x) if metric == "cosine" else x)
    selector = None
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))

    def run() -> None:
        faiss.cvar.distance_compute_blas_threshold = BLAS_THRESHOLD[name]
        index.search(_unit(q) if metric == "cosine" else q, k, params=selector, D=scores, I=ids)

    return run


def sklearn_brute(metric: str, x: Array, q: Array, k: int) -> Call:
    """NearestNeighbors; its own output. The inner product is none of its metrics."""
    neighbors: Any = importlib.import_module("sklearn.neighbors")
    names = {"l2": "sqeuclidean", "cosine": "cosine"}
    index = neighbors.NearestNeighbors(algorithm="brute", metric=names[metric], n_jobs=-1).fit(x)

    def run() -> tuple[Array, Array]:
        distances, ids = index.kneighbors(q, k)
        return (1 - distances if metric == "cosine" else distances), ids

    return run


def torch_product(metric: str, x: Array, q: Array, k: int, scores: Array, ids: Array, mask: Any, dtype: str) -> Call:
    """A product and torch.topk, as many queries at a time as `SCORES` allows."""
    torch: Any = importlib.import_module("torch")
    kind = getattr(torch, dtype)
    rows = torch.from_numpy(_unit(x) if metric == "cosine" else x).to(kind).T
    half = (torch.from_numpy(x) ** 2).sum(1) / 2
    allowed = None if mask is None else torch.from_numpy(mask)
    out = torch.from_numpy(scores), torch.from_numpy(ids)
    block = max(1, min(len(q), SCORES // (4 * len(x))))
    buffer = torch.empty((block, len(x)), dtype=kind)

    def run() -> None:
        queries = torch.from_numpy(_unit(q) if metric == "cosine" else q)
        for first in range(0, len(q), block):
            part = queries[first : first + block]
            s = torch.matmul(part.to(kind), rows, out=buffer[: len(part)])
            if metric == "l2":
                s.sub_(half)
            if allowed is not None:
                s.masked_fill_(~(allowed if allowed.ndim == 1 else allowed[first : first + block]), -torch.inf)
            best, places = torch.topk(s, k)
            if metric == "l2":
                best = ((part**2).sum(1, keepdim=True) - 2 * best).clamp_(min=0)
            out[0][first : first + block], out[1][first : first + block] = best, places

    return run


def product_alone(x: Array, q: Array) -> dict[str, Call]:
    """Scores of all pairs and nothing else, block by block, in either layout, by NumPy and by torch."""
    rows = min(len(x), PRODUCT_ROWS, max(256, PRODUCT // (4 * len(q))))
    blocks = [x[first : first + rows] for first in range(0, len(x), rows)]
    wide, tall = np.empty((len(q), rows), np.float32), np.empty((rows, len(q)), np.float32)

    def numpy_wide() -> None:
        for block in blocks:
            np.matmul(q, block.T, out=wide[:, : len(block)])

    def numpy_tall() -> None:
        for block in blocks:
            np.matmul(block, q.T, out=tall[: len(block)])

    calls: dict[str, Call] = {"numpy": numpy_wide, "numpy transposed": numpy_tall}
    if TORCH not in absent():
        torch: Any = importlib.import_module("torch")
        queries, out_wide, out_tall = map(torch.from_numpy, (q, wide, tall))
        parts = [torch.from_numpy(block) for block in blocks]

        def torch_wide() -> None:
            for part in parts:
                torch.matmul(queries, part.T, out=out_wide[:, : len(part)])

        def torch_tall() -> None:
            for part in parts:
                torch.matmul(part, queries.T, out=out_tall[: len(part)])

        calls |= {"torch": torch_wide, "torch transposed": torch_tall}
    return calls


def maxsim_numpy(q: Array, x: Array, offsets: Array, scores: Array) -> Call:
    """One product, and a maximum for every document, none of which is empty."""
    products = np.empty((len(q), len(x)), np.float32)

    def run() -> None:
        np.matmul(q, x.T, out=products)
        np.maximum.reduceat(products, offsets[:-1], axis=1).sum(0, out=scores)

    return run


def maxsim_torch(q: Array, x: Array, offsets: Array, scores: Array) -> Call:
    """Batches of documents of like length, padded to the longest."""
    torch: Any = importlib.import_module("torch")
    lengths = np.diff(offsets)
    batches = []
    for members in np.array_split(np.argsort(lengths), -(-len(lengths) // DOCUMENTS)):
        padded = np.zeros((len(members), lengths[members].max(), x.shape[1]), np.float32)
        for row, document in zip(padded, members, strict=True):
            row[: lengths[document]] = x[offsets[document] : offsets[document + 1]]
        padding = np.arange(padded.shape[1]) >= lengths[members, None]
        tokens, hidden = torch.from_numpy(padded).transpose(1, 2), torch.from_numpy(padding)[:, None]
        batches.append((torch.from_numpy(members), tokens, hidden))
    query, out = torch.from_numpy(q), torch.from_numpy(scores)

    def run() -> None:
        for members, tokens, hidden in batches:
            out[members] = torch.matmul(query, tokens).masked_fill_(hidden, -torch.inf).amax(2).sum(1)

    return run


def maxsim_cpu(q: Array, x: Array, offsets: Array) -> Call:
    """maxsim-cpu's function for documents of different lengths; its own output."""
    package: Any = importlib.import_module("maxsim_cpu")
    documents = [x[first:last] for first, last in itertools.pairwise(offsets)]
    return functools.partial(package.maxsim_scores_variable, q, documents)


def _unit(x: Array) -> Array:
    unit: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


warnings.filterwarnings("ignore", message=".*NumPy array is not writable.*")
