"""knn against brute force in float64: order, ties, masks, extremes, layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_oracle import BACKENDS, DTYPES, METRICS, RNG, assert_nearest, brute_force, integers

from pykernels.search import knn

SHAPES = [(1, 1, 1), (5, 13, 3), (12, 12, 17), (13, 31, 1), (3, 33, 129), (17, 49, 64), (2, 1025, 5), (49, 100, 32)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_ties_are_resolved_by_the_lowest_id(metric, dtype, backend):
    """Small integers: every product is exact, and most scores are shared by many rows."""
    for seed, (count, rows, dim) in enumerate(SHAPES):
        q, x = integers((count, dim), dtype, seed), integers((rows, dim), dtype, seed + 100)
        for k in {1, min(10, rows), rows}:
            expected, best = brute_force(q, x, k, metric)
            scores, ids = knn(q, x, k, metric=metric, backend=backend)
            np.testing.assert_array_equal(ids, best)
            np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
def test_random_floats(metric, backend):
    for seed, (count, rows, dim) in enumerate([*SHAPES, (7, 2000, 100), (64, 777, 33)]):
        q, x = RNG(seed).standard_normal((count, dim), np.float32), RNG(seed + 50).standard_normal((rows, dim), "f4")
        for k in {1, min(rows, 64), rows}:
            assert_nearest(knn(q, x, k, metric=metric, backend=backend), q, x, k, metric)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "e4m3fn"])
@pytest.mark.parametrize("metric", METRICS)
def test_other_dtypes(metric, dtype, backend):
    scale = 30 if dtype == "int8" else 1
    q, x = ((RNG(seed).standard_normal((n, 67)) * scale).astype(DTYPES[dtype]) for seed, n in ((1, 9), (2, 301)))
    assert_nearest(knn(q, x, 20, metric=metric, backend=backend), q, x, 20, metric)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", METRICS)
def test_masks(metric, backend):
    q, x = RNG(0).standard_normal((11, 24), "f4"), RNG(1).standard_normal((203, 24), "f4")
    for share in (0.0, 0.03, 0.5, 1.0):
        for allowed in (RNG(2).random(203) < share, RNG(3).random((11, 203)) < share):
            result = knn(q, x, 9, metric=metric, mask=allowed, backend=backend)
            assert_nearest(result, q, x, 9, metric, np.broadcast_to(allowed, (11, 203)))
    fortran = np.asfortranarray(allowed)
    np.testing.assert_array_equal(
        knn(q, x, 9, mask=fortran, backend=backend)[1], knn(q, x, 9, mask=allowed, backend=backend)[1]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_duplicates_and_equal_scores_everywhere(backend):
    x = np.repeat(RNG(0).standard_normal((5, 30), "f4"), 40, 0)
    x = x[RNG(1).permutation(200)]
    for metric in METRICS:
        scores, ids = knn(x[:20], x, 40, metric=metric, backend=backend)
        same = (x[:20, None] == x).all(-1)
        for row in range(20):
            np.testing.assert_array_equal(ids[row], np.flatnonzero(same[row]))
        assert (scores == scores[:, :1]).all()
    np.testing.assert_array_equal(knn(x[:3], np.ones((100, 30), "f4"), 50, backend=backend)[1], [np.arange(50)] * 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset", [0, 1e2, 1e4, -3e5])
def test_l2_far_from_the_origin(offset, backend):
    """The nearest rows are found, equal vectors at distance 0, where |x|^2 alone has no digits left."""
    x = (RNG(0).standard_normal((400, 40)) + offset).astype(np.float32)
    scores, ids = knn(x[:50], x, 3, metric="l2", backend=backend)
    np.testing.assert_array_equal(ids[:, 0], np.arange(50))
    assert (scores[:, 0] == 0).all() and (scores[:, 1:] > 0).all()
    if abs(offset) <= 1e4:
        assert_nearest((scores, ids), x[:50], x, 3, "l2")


@pytest.mark.parametrize("backend", BACKENDS)
def test_l2_of_integers_far_from_the_origin_keeps_its_ties(backend):
    q, x = integers((9, 20), "float32", 1) + 5000, integers((150, 20), "float32", 2) + 5000
    expected, best = brute_force(q, x, 12, "l2")
    scores, ids = knn(q, x, 12, metric="l2", backend=backend)
    np.testing.assert_array_equal(ids, best)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cosine_of_zero_tiny_and_huge_vectors(backend):
    x = RNG(0).standard_normal((60, 16), "f4")
    x[5:8] = 0
    for size_q, size_x in ((1, 1), (1e-30, 1e30), (1e30, 1e-30), (1e18, 1e18), (1e-25, 1e-25)):
        q = RNG(1).standard_normal((4, 16), "f4") * np.float32(size_q)
        scaled = x * np.float32(size_x)
        assert_nearest(knn(q, scaled, 60, metric="cosine", backend=backend), q, scaled, 60, "cosine")
    scores, ids = knn(np.zeros((1, 16), "f4"), x, 4, metric="cosine", backend=backend)
    np.testing.assert_array_equal(scores, np.zeros((1, 4)))
    np.testing.assert_array_equal(ids, [[0, 1, 2, 3]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "e4m3fn"])
def test_rows_with_nan_are_never_found(dtype, backend):
    values = RNG(0).standard_normal((50, 8))
    values[[0, 17, 49], [0, 3, 7]] = np.nan
    q, x = RNG(1).standard_normal((5, 8)).astype(DTYPES[dtype]), values.astype(DTYPES[dtype])
    q[2, 4] = np.nan
    for metric in METRICS:
        scores, ids = knn(q, x, 50, metric=metric, backend=backend)
        assert (ids[2] == -1).all() and not np.isnan(scores).any()
        sound = np.delete(np.arange(5), 2)
        assert (ids[sound, 47:] == -1).all()
        assert_nearest((scores[sound], ids[sound]), q[sound], x, 50, metric)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("error")
def test_infinite_values(backend):
    x = np.float32([[1, 1], [np.inf, 1], [-np.inf, 1], [2, 0]])
    q = np.float32([[1, 1]])
    np.testing.assert_array_equal(knn(q, x, 4, backend=backend)[1], [[1, 0, 3, -1]])
    np.testing.assert_array_equal(knn(q, x, 4, metric="l2", backend=backend)[1], [[0, 3, -1, -1]])
    np.testing.assert_array_equal(knn(q, x, 4, metric="cosine", backend=backend)[1], [[0, 3, -1, -1]])
    assert (knn(x[1:2], x, 4, metric="cosine", backend=backend)[1] == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_leading_dimensions_strides_and_out(backend):
    whole = RNG(0).standard_normal((3, 40, 4, 10), np.float32)
    q, x = whole[:, 0], RNG(1).standard_normal((20, 70), np.float32)[::-2, :].T[:, ::1]
    assert q.shape == (3, 4, 10) and x.shape == (70, 10) and not x.flags.c_contiguous
    flat, dense = np.ascontiguousarray(q).reshape(12, 10), np.ascontiguousarray(x)
    for metric in METRICS:
        expected = knn(flat, dense, 5, metric=metric, backend=backend)
        out = np.full((4, 3, 5), np.nan, "f4").swapaxes(0, 1), np.full((3, 4, 5), -77)
        assert knn(q, x, 5, metric=metric, out=out, backend=backend) is out
        for ours, theirs in zip(out, expected, strict=True):
            np.testing.assert_array_equal(ours.reshape(12, 5), theirs)
        one = knn(flat[3], x, 5, metric=metric, mask=np.arange(70) > 9, backend=backend)
        assert one[0].shape == one[1].shape == (5,) and one[1].min() > 9
    per_query = RNG(2).random((3, 4, 70)) < 0.5
    ids = knn(q, x, 5, mask=per_query, backend=backend)[1]
    assert np.take_along_axis(per_query, ids, 2).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    q, x = np.ones((3, 4), "f4"), np.ones((5, 4), "f4")
    for count, rows, k in ((3, 5, 0), (0, 5, 2), (3, 0, 0), (0, 0, 0)):
        for metric in METRICS:
            scores, ids = knn(q[:count], x[:rows], k, metric=metric, backend=backend)
            assert scores.shape == ids.shape == (count, k)
    scores, ids = knn(q, x, 2, metric="l2", mask=np.zeros(5, bool), backend=backend)
    assert (scores == np.inf).all() and (ids == -1).all()


@pytest.mark.parametrize("target", [0.1, 0.95, 1.0, np.float32(0.5)])
def test_every_recall_target_is_met(target):
    q, x = RNG(0).standard_normal((6, 16), "f4"), RNG(1).standard_normal((3000, 16), "f4")
    np.testing.assert_array_equal(knn(q, x, 100, recall_target=target)[1], brute_force(q, x, 100, "ip")[1])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_permuting_rows_permutes_ids(data):
    rows, dim = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 20))
    metric = data.draw(st.sampled_from(METRICS))
    seed = data.draw(st.integers(0, 1000))
    q, x = RNG(seed).standard_normal((3, dim), "f4"), RNG(seed + 1).standard_normal((rows, dim), "f4")
    order = RNG(seed + 2).permutation(rows)
    scores = knn(q, x, rows, metric=metric)[0]
    moved, names = knn(q, x[order], rows, metric=metric)
    if metric == "ip":
        np.testing.assert_array_equal(np.sort(moved), np.sort(scores))
    np.testing.assert_allclose(moved, scores, rtol=1e-5, atol=1e-5)
    assert all(sorted(order[row]) == list(range(rows)) for row in names)
