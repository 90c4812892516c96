"""`Index` against brute force in float64."""

from __future__ import annotations

import doctest

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TORCH

from pykernels.search import Index, _index, knn

if HAS_TORCH:
    import torch

from index_oracle import DTYPES, METRICS, RNG, as_kept, brute, integers, scores_of, where


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_finds_what_brute_force_finds(metric, dtype, backend):
    x, q = integers(63, 17), integers(7, 17)
    index = Index(17, metric=metric, dtype=dtype, device=where(backend))
    index.add(x[:20])
    index.add(x[20:], ids=range(100, 143))
    scores, ids = index.search(q, 9, backend=backend)
    kept = as_kept(x, dtype)
    expected, numbers = brute(q, kept, index.ids, metric, 9)
    assert scores.dtype == np.float32 and ids.dtype == np.int64
    np.testing.assert_allclose(scores, expected, rtol=2e-6, atol=1e-6)
    true = scores_of(q, kept, metric)[np.arange(7)[:, None], np.searchsorted(index.ids, ids)]
    np.testing.assert_allclose(true, expected, rtol=2e-6, atol=1e-6)  # rows that differ are as good
    if dtype not in ("int8", "e4m3fn") and metric != "cosine":
        np.testing.assert_array_equal(ids, numbers)
    np.testing.assert_allclose(np.asarray(index.reconstruct([120, 3])), kept[[40, 3]], rtol=1e-6)
    assert index.reconstruct(3).shape == (17,)


@pytest.mark.parametrize("dtype", DTYPES[:3])
@pytest.mark.parametrize("metric", METRICS)
def test_gives_what_knn_gives(metric, dtype):
    x, q = (RNG.standard_normal((n, 33)).astype(getattr(ml_dtypes, dtype, dtype)) for n in (301, 5))
    index = Index(33, metric=metric, dtype=dtype)
    index.add(x)
    for mine, theirs in zip(index.search(q, 20), knn(q, x, 20, metric=metric), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_far_from_the_origin_l2_stays_exact():
    x = (1000 + RNG.standard_normal((500, 24))).astype(np.float32)
    q = (1000 + RNG.standard_normal((9, 24))).astype(np.float32)
    index = Index(24, metric="l2")
    for part in np.array_split(x, 7):
        index.add(part)
    distances, ids = index.search(q, 5)
    expected, numbers = brute(q, x, np.arange(500), "l2", 5)
    np.testing.assert_array_equal(ids, numbers)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_equal_scores_are_in_the_order_of_additions_and_updates():
    index = Index(2)
    index.add(np.ones((4, 2)), ids=[9, 3, 7, 5])
    assert index.search(np.ones((1, 2)), 4)[1].tolist() == [[9, 3, 7, 5]]
    index.update([3], np.ones((1, 2)))
    index.remove([7])
    index.add(np.ones((1, 2)), ids=[7])
    assert index.ids.tolist() == index.search(np.ones((1, 2)), 4)[1].tolist()[0] == [9, 5, 3, 7]


def test_default_ids_are_never_used_twice(tmp_path):
    index = Index(1)
    assert index.add(np.ones((3, 1))).tolist() == [0, 1, 2]
    index.remove([2])
    assert index.add(np.ones((1, 1))).tolist() == [3]
    index.add(np.ones((2, 1)), ids=[50, 10])
    index.remove(index.ids)
    index.save(tmp_path / "index")
    assert len(index) == 0 and Index.load(tmp_path / "index").add(np.ones((2, 1))).tolist() == [51, 52]
    index.add(np.ones((1, 1)), ids=[2**63 - 1])
    with pytest.raises(ValueError, match="do not fit int64"):
        index.add(np.ones((1, 1)))
    assert 2**63 - 1 in index and index.search(np.ones((1, 1)), 1)[1] == 2**63 - 1


@pytest.mark.parametrize("metric", METRICS)
def test_few_rows_and_empty_input(metric):
    index = Index(3, metric=metric)
    worst = np.inf if metric == "l2" else -np.inf
    for k in (0, 2):
        scores, ids = index.search(integers(4, 3), k)
        assert scores.shape == ids.shape == (4, k) and (scores == worst).all() and (ids == -1).all()
    assert index.add(np.zeros((0, 3), np.float32)).shape == (0,)
    index.add(integers(2, 3) + 1)
    scores, ids = index.search(integers(4, 3), 5)
    assert (ids[:, 2:] == -1).all() and (scores[:, 2:] == worst).all() and (np.sort(ids[:, :2]) == [0, 1]).all()
    assert index.search(np.zeros((0, 3)), 5)[1].shape == (0, 5)
    index.remove([])
    index.update([], np.zeros((0, 3)))
    assert len(index) == index.ntotal == 2 and index.d == 3
    assert index.search([[0.0, np.nan, 1.0]], 2)[1].tolist() == [[-1, -1]]


@pytest.mark.parametrize("retire", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_masks_and_allowed_ids(metric, retire, backend):
    x, q = integers(40, 5), integers(6, 5)
    index = Index(5, metric=metric, device=where(backend))
    index.add(x, ids=np.arange(40)[::-1])
    rows = np.arange(40)
    if retire:
        index.remove([39, 20, 21])
        rows = np.delete(rows, [0, 19, 18])
    ids = index.ids
    one, each = RNG.random(len(rows)) < 0.5, RNG.random((6, len(rows))) < 0.3
    some = np.concatenate([ids[:20], [1000, 39]])
    for options, allowed in (
        ({"mask": one}, one),
        ({"mask": each}, each),
        ({"allowed_ids": some}, np.isin(ids, some)),
        ({"allowed_ids": some, "mask": one}, one & np.isin(ids, some)),
        ({"allowed_ids": some, "mask": each}, each & np.isin(ids, some)),
        ({"allowed_ids": []}, np.zeros(len(ids), bool)),
        ({"mask": ~np.ones(len(rows), bool)}, np.zeros(len(ids), bool)),
    ):
        scores, found = index.search(q, 8, backend=backend, **options)
        expected, numbers = brute(q, x[rows], ids, metric, 8, np.broadcast_to(allowed, (6, len(ids))))
        np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found == -1, numbers == -1)
        if metric != "cosine":
            np.testing.assert_array_equal(found, numbers)


def test_input_of_any_kind_and_layout():
    x = integers(30, 6)
    index, same = Index(6, metric="l2"), Index(6, metric="l2")
    index.add(x)
    for part in (x[:10].astype(np.float64), np.asfortranarray(x[10:20]), x[20:][::-1][::-1].astype(">f4")):
        same.add(part)
    expected = index.search(x[:4], 3)
    for queries in (x[:4].tolist(), x[:4].astype(np.float16), x[3::-1][::-1], x[:4].astype(ml_dtypes.bfloat16)):
        for a, b in zip(same.search(queries, 3), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    x[:] = 0
    np.testing.assert_array_equal(index.search(index.reconstruct([5]), 1)[0], [[0]])


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_results_are_of_the_kind_of_the_queries(device, dtype):
    x = integers(30, 6)
    index, other = Index(6, metric="l2", dtype=dtype, device=device), Index(6, metric="l2", dtype=dtype)
    other.add(x)
    index.add(torch.from_numpy(x).requires_grad_())
    index.update(torch.arange(4), torch.from_numpy(x[:4]))
    index.remove([7])
    other.update(np.arange(4), x[:4].astype(np.float64))
    other.remove([7])
    expected = other.search(x[:4], 3)
    for queries in (x[:4], torch.from_numpy(x[:4]).requires_grad_(), torch.from_numpy(x[:4]).double()):
        for a, b in zip(index.search(queries, 3), expected, strict=True):
            assert type(a) is type(queries)
            np.testing.assert_array_equal(a, b)
    kept = index.reconstruct([9, 1])
    assert isinstance(kept, np.ndarray if device is None else torch.Tensor)
    np.testing.assert_array_equal(kept, other.reconstruct([9, 1]))


def test_membership_and_text():
    index = Index(3, dtype="int8")
    index.add(np.ones((2, 3), np.float32), ids=[4, 9])
    assert 4 in index and np.int64(9) in index and 5 not in index and "4" not in index and 4.5 not in index
    assert repr(index) == "Index(3, metric='ip', dtype='int8', device=None) of 2"


def test_doctests():
    assert doctest.testmod(_index).failed == 0
