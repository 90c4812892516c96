"""Brute force in float64, and inputs, for the tests of searches."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np

RNG = np.random.default_rng
DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int8": np.int8,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
}
METRICS = ("ip", "l2", "cosine")
BACKENDS = ("reference", "cpu")


def true_scores(q, x, metric):
    """All scores in float64, (Q, N)."""
    q, x = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - x) ** 2).sum(-1)
    products = q @ x.T
    if metric == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
        products = np.divide(products, lengths, out=np.zeros_like(products), where=lengths != 0)
    return products


def brute_force(q, x, k, metric, allowed=True):
    """The k best: scores and ids, of exact scores, equal ones by the lowest id."""
    worst = np.inf if metric == "l2" else -np.inf
    s = np.where(allowed & ~np.isnan(t := true_scores(q, x, metric)), t, worst)
    ids = np.argsort(s if metric == "l2" else -s, axis=1, kind="stable")[:, :k]
    s = np.take_along_axis(s, ids, 1)
    return s, np.where(s == worst, -1, ids)


def assert_nearest(result, q, x, k, metric, allowed=True, tolerance=1e-5):
    """The scores of the k best, up to rounding; ids that have these scores, each once; ordered, ties by id."""
    scores, ids = result
    assert scores.dtype == np.float32 and ids.dtype == np.int64 and scores.shape == ids.shape == (len(q), k)
    expected, best = brute_force(q, x, k, metric, allowed)
    np.testing.assert_array_equal(ids < 0, best < 0)
    found = ids >= 0
    scale = max(1.0, np.abs(expected[found]).max(initial=0))
    np.testing.assert_array_equal(scores[~found], expected[~found])
    np.testing.assert_allclose(scores[found], expected[found], rtol=tolerance, atol=tolerance * scale)
    true = np.take_along_axis(np.where(allowed, true_scores(q, x, metric), np.nan), np.maximum(ids, 0), 1)
    np.testing.assert_allclose(scores[found], true[found], rtol=tolerance, atol=tolerance * scale)
    for row, good in zip(ids, found, strict=True):
        assert len(set(row[good])) == good.sum()
    behind, ahead = (scores[:, 1:], scores[:, :-1]) if metric == "l2" else (scores[:, :-1], scores[:, 1:])
    assert (behind >= ahead)[found[:, 1:]].all()
    assert (np.diff(ids, axis=1)[(behind == ahead) & found[:, 1:]] > 0).all()


def integers(shape, dtype, seed=0, high=4):
    return RNG(seed).integers(1 - high, high, shape).astype(np.float32).astype(DTYPES[dtype])


def tensor(x):
    import torch

    x = np.ascontiguousarray(x)
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    if x.dtype == ml_dtypes.float8_e4m3fn:
        return torch.from_numpy(x.view(np.uint8)).view(torch.float8_e4m3fn)
    return torch.from_numpy(x)


def ragged(lengths, dim, dtype="float32", seed=0):
    """Packed tokens, their offsets, and the documents as a list."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = RNG(seed).standard_normal((offsets[-1], dim)) * (20 if dtype == "int8" else 1)
    tokens = tokens.astype(DTYPES[dtype])
    return tokens, offsets, [tokens[a:b] for a, b in pairwise(offsets)]
