"""The benchmarks of top-k and search: every peer is verified, wrong ones are caught; and the study on real data."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("matplotlib")

from pykernels.bench import harness, search_limits, search_memory, search_peers, search_recall, search_workloads
from pykernels.bench.bench_search import PEERS
from pykernels.bench.bench_search import groups as search_groups
from pykernels.bench.bench_topk import groups as topk_groups
from pykernels.bench.harness import Disagreement
from pykernels.bench.topk_workloads import approximating, selecting


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(search_workloads, "N", 3001)
    monkeypatch.setattr(search_workloads, "DOCUMENTS", 37)
    monkeypatch.setattr(search_peers, "SCORES", 1 << 16)
    search_workloads._lengths.cache_clear()
    yield
    search_workloads._lengths.cache_clear()


@pytest.mark.parametrize("groups", [topk_groups, search_groups])
def test_every_group_has_a_name_of_its_own_and_quick_is_a_part(groups):
    quick, full = ([group.name for group in groups(choice)] for choice in (True, False))
    assert len(set(full)) == len(full) and set(quick) < set(full)


@pytest.mark.parametrize("metric", list(PEERS))
@pytest.mark.parametrize(("queries", "k"), [(1, 10), (7, 100)])
def test_searches_agree(small, metric, queries, k):
    assert not harness.untimed(search_workloads.searching(metric, queries, k, PEERS[metric])).seconds["pykernels"][0]


@pytest.mark.parametrize("per_query", [False, True])
def test_masked_searches_agree(small, per_query):
    peers = ("torch",) if per_query else ("FAISS", "torch")
    harness.untimed(search_workloads.masking(7, 10, 0.9, per_query, peers))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_searches_of_fewer_bits_agree(small, dtype):
    harness.untimed(search_workloads.narrow(dtype, 7, 10))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_scorers_agree(small, dtype):
    harness.untimed(search_workloads.scoring(dtype))


def test_selections_agree():
    for order in ("random", "ascending", "all equal", "8 values"):
        harness.untimed(selecting(11, 1025, 100, ("torch.topk", "np.argpartition"), order))
    harness.untimed(approximating(11, 4096, 10))


def test_a_wrong_search_is_caught(small, monkeypatch):
    right = search_peers.sklearn_brute

    def wrong(*arguments):
        run = right(*arguments)
        return lambda: (run()[0], np.roll(run()[1], 1, axis=1))

    pytest.importorskip("sklearn")
    monkeypatch.setattr(search_peers, "sklearn_brute", wrong)
    with pytest.raises(Disagreement, match=r"knn l2 Q=7, k=10: scikit-learn: .*float64"):
        harness.untimed(search_workloads.searching("l2", 7, 10, ("scikit-learn",)))


def test_a_wrong_selection_is_caught(monkeypatch):
    from pykernels.bench import topk_peers

    right = topk_peers.argpartition

    def wrong(x, k, values, indices):
        run = right(x, k, values, indices)
        return lambda: (run(), indices.__setitem__((0, 0), indices[0, 1]))

    monkeypatch.setattr(topk_peers, "argpartition", wrong)
    with pytest.raises(Disagreement, match=r"np\.argpartition"):
        harness.untimed(selecting(3, 1025, 10, ("np.argpartition",)))


@pytest.mark.parametrize("queries", [1, 7])
def test_product_alone_is_the_whole_product(queries, monkeypatch):
    monkeypatch.setattr(search_peers, "PRODUCT_ROWS", 256)
    multiplied = []
    real = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b, out: multiplied.append(real(a, b, out=out).size))
    x, q = np.ones((1000, 8), np.float32), np.ones((queries, 8), np.float32)
    calls = search_peers.product_alone(x, q)
    calls["numpy"]()
    calls["numpy transposed"]()
    assert sum(multiplied) == 2 * 1000 * queries


def test_recall_counts_ties_as_found():
    x = np.float32([[0], [1], [1], [3]])
    q = np.float32([[0]])
    worst = search_recall.distances(x, q, "l2", np.array([[0, 1]]))[:, -1:]
    assert worst.tolist() == [[1.0]]
    assert search_recall.recall(x, q, "l2", worst, np.array([[0, 2]])) == 1.0
    assert search_recall.recall(x, q, "l2", worst, np.array([[0, 3]])) == 0.5


def test_patches_are_all_and_in_natural_order():
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    from pykernels.bench import search_data

    patches = search_data.patches()
    photograph = search_data.photographs()[1] / np.float32(255)
    assert patches.shape == (2 * 420 * 633, 192)
    expected = np.moveaxis(photograph[3:11, 5:13], 2, 0).ravel()
    np.testing.assert_array_equal(patches[420 * 633 + 3 * 633 + 5], expected)
    queries = search_data.patch_queries(64)
    assert queries.shape == (64, 192)
    expected = np.moveaxis(search_data.photographs()[0][:8, ::-1][:, :8], 2, 0).ravel() / np.float32(255)
    np.testing.assert_array_equal(queries[0], expected)


def test_approximate_rows_report_the_share_found():
    draw = np.random.default_rng(0)
    rows = list(search_recall._approximate("x", iter([draw.random((16, 20_000), np.float32)]), 16))
    assert len(rows) == len(search_recall.NEIGHBOURS) * len(search_recall.TARGETS)
    for row in rows:
        named = dict(zip(search_recall.APPROXIMATE_COLUMNS, row, strict=True))
        assert named["expected"] >= named["target"] and named["recall"] >= named["target"] - 0.05
        assert named["by value"] >= named["expected"] - 0.05 and named["by index"] <= named["by value"]
    assert any(row[7] != "exact" for row in rows)
    json.dumps(rows)


def test_selection_rate_is_that_of_a_computer():
    assert 1e8 < search_limits.selection_rate() < 1e14


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_of_a_search_is_bounded_by_its_workspace():
    added, _ = search_memory.measure(2000, 50_000, 16 << 20, "l2")
    assert added < 1.25 * (16 << 20)  # its scores would be 400 MB
