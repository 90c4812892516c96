"""Approximate top-k: the expected recall is exact, plans meet their targets, and measured recall agrees."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from math import comb, prod

import numpy as np
import pytest
from conftest import same_bits

from pykernels import _arrays
from pykernels.kernels.topk import cases, reference
from pykernels.topk import _plan, approx_max_k, approx_min_k, expected_recall, plan, topk
from pykernels.topk._approx import Request, by_plan
from pykernels.topk._plan import RecallPlan
from pykernels.topk._recall import expected_overflow

FEWEST = (
    (1_000_000, 10, 0.95, (88, 32, 24, 32)),
    (1_000_000, 10, 0.99, (448, 80, 48, 32)),
    (1_000_000, 10, 0.999, (4480, 224, 96, 64)),
    (1_000_000, 100, 0.95, (960, 320, 216, 192)),
    (1_000_000, 100, 0.99, (4896, 768, 432, 320)),
    (262_144, 1024, 0.95, (9544, 3184, 2232, 1856)),
    (131_072, 64, 0.99, (3064, 480, 264, 224)),
)
"""n, k, target, and the fewest survivors, bins * m, of multiples of 8 bins that meet it for m = 1 to 4."""


def survivors(x, bins, per_bin, largest=True):
    request = Request(1, 1, x.shape[1], 0.0, False, largest)
    return by_plan(_arrays, x, request, RecallPlan(bins, per_bin, 0.0, bins * per_bin), "cpu")


def bin_of(i, bins):
    """The definition, in NumPy's 32-bit integers."""
    step, place = divmod(i, bins)
    h = np.array([step], np.uint32) * np.uint32(0x9E3779B1)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x85EBCA77)
    h ^= h >> np.uint32(13)
    return (place + (int(h[0]) * bins >> 32)) % bins


def enumerated(n, k, bins, per_bin):
    """The mean over all placements of the k best, counted one by one."""
    kept = 0
    for places in itertools.combinations(range(n), k):
        kept += sum(min(per_bin, sum(bin_of(place, bins) == b for place in places)) for b in range(bins))
    return Fraction(kept, k * comb(n, k))


def falling(n, count):
    return prod(range(n - count + 1, n + 1))


def in_rationals(n, k, bins, per_bin):
    """Theorem 1 of arXiv 2506.04165 in integers."""
    lost = 0
    for size, count in ((n // bins, bins - n % bins), (n // bins + 1, n % bins)):
        for r in range(per_bin + 1, min(k, size) + 1):
            lost += count * (r - per_bin) * comb(k, r) * falling(size, r) * falling(n - size, k - r)
    return 1 - Fraction(lost, falling(n, k) * k)


def test_expected_recall_is_the_mean_of_all_placements():
    for n in range(1, 10):
        for k, bins, per_bin in itertools.product(range(1, n + 1), range(1, n + 1), (1, 2, 3)):
            assert abs(expected_recall(n, k, bins, per_bin) - enumerated(n, k, bins, per_bin)) < 1e-14


def test_expected_recall_is_accurate_at_any_size():
    rng = np.random.default_rng(0)
    for _ in range(400):
        n = int(rng.choice([50, 1000, 12_345, 1_000_000, 1_000_000_000]))
        k = int(rng.integers(1, min(n, 80) + 1))
        bins = int(min(n, np.exp(rng.uniform(0, np.log(n)))))
        per_bin = int(rng.integers(1, 8))
        assert abs(expected_recall(n, k, bins, per_bin) - in_rationals(n, k, bins, per_bin)) < 1e-13


@pytest.mark.parametrize(("n", "k", "target", "columns"), FEWEST)
def test_keeping_more_of_a_bin_takes_fewer_survivors(n, k, target, columns):
    """The gain of arXiv 2506.04165 over one per bin, by its theorem in rationals."""
    for per_bin, total in enumerate(columns, 1):
        bins = total // per_bin
        assert expected_recall(n, k, bins, per_bin) >= target
        assert bins == 8 or expected_recall(n, k, bins - 8, per_bin) < target
        assert abs(expected_recall(n, k, bins, per_bin) - in_rationals(n, k, bins, per_bin)) < 1e-13


GRID = (
    (1000, 10, 128, 1),
    (1001, 10, 64, 1),
    (3000, 64, 100, 1),
    (3000, 64, 100, 2),
    (2999, 64, 37, 3),
    (2500, 200, 128, 4),
    (2048, 32, 32, 1),
    (130, 13, 128, 1),
    (1999, 500, 640, 1),
)


@pytest.mark.parametrize(("n", "k", "bins", "per_bin"), GRID)
def test_measured_recall_is_the_expected(n, k, bins, per_bin):
    """The mean over random placements lies within 4.5 standard errors of the expectation."""
    x = np.random.default_rng(n + k).permuted(np.tile(np.arange(n, dtype=np.float32), (1500, 1)), axis=1)
    share = (survivors(x, bins, per_bin)[0] >= n - k).sum(1) / k
    error = share.std() / np.sqrt(len(share))
    assert abs(share.mean() - expected_recall(n, k, bins, per_bin)) < 4.5 * error
    smallest = (survivors(x, bins, per_bin, largest=False)[0] < k).sum(1) / k
    assert abs(smallest.mean() - expected_recall(n, k, bins, per_bin)) < 4.5 * error


def test_plans_meet_their_target_with_the_fewest_bins(cheap_bins):
    for n, k, target in itertools.product((2000, 65_536, 1_000_003), (1, 10, 64, 1000), (0.5, 0.9, 0.99, 0.9999)):
        found = plan(n, k, target)
        if found.bins == n:
            assert found == RecallPlan(n, 1, 1.0, n)
            continue
        assert found.expected_recall == expected_recall(n, k, found.bins, found.per_bin) >= target
        assert found.survivors == found.bins * found.per_bin >= k
        assert found.bins % 128 == 0 and n // found.bins >= found.per_bin
        fewer = found.bins - 128
        assert fewer * found.per_bin < k or expected_recall(n, k, fewer, found.per_bin) < target
        assert plan(n, k, 1.0) == RecallPlan(n, 1, 1.0, n)


def test_plans_are_quick():
    for n, k in ((1_000_000_000, 10), (1_000_000_000, 100_000)):
        start = time.perf_counter()
        _plan._plan.__wrapped__(n, k, 0.95, "cpu")
        assert time.perf_counter() - start < 0.5


def test_the_plan_is_exact_where_nothing_else_pays():
    assert plan(100, 10, 0.5).bins == 100
    assert plan(1_000_000, 900_000, 0.95).bins == 1_000_000
    assert plan(1, 1, 0.1) == RecallPlan(1, 1, 1.0, 1)


@pytest.mark.parametrize("order", cases.ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_survivors_and_their_best_follow_the_definition(dtype, order):
    """Slots rank by rank, ties to the lowest index, NaN largest, and the k best of the survivors in order."""
    x = cases.rows((3, 1003), dtype, order)
    for bins, per_bin, largest in itertools.product((7, 128, 251), (1, 2, 3), (True, False)):
        values, indices = survivors(x, bins, per_bin, largest)
        bins_of = np.array([bin_of(i, bins) for i in range(x.shape[1])])
        for row, chosen in zip(x, indices, strict=True):
            for b in range(bins):
                members = np.flatnonzero(bins_of == b)
                best = members[topk(row[members], per_bin, largest=largest, backend="reference")[1]]
                assert chosen[b::bins].tolist() == best.tolist()
        same_bits(np.take_along_axis(x, indices, 1), values)
        k = min(10, bins * per_bin)
        request = Request(k, 1, x.shape[1], 0.0, True, largest)
        found = by_plan(_arrays, x, request, RecallPlan(bins, per_bin, 0.0, bins * per_bin), "cpu")
        for row, ids, chosen in zip(x, np.sort(indices, axis=1), found[1], strict=True):
            assert chosen.tolist() == ids[reference.ranking(row[ids], ids, largest)[:k]].tolist()


def planted(places, n):
    """Random numbers below 1, those at `places` above 2."""
    x = np.random.default_rng(0).random(n).astype(np.float32)
    x[places] += 2
    return x


def test_neighbours_and_periods_keep_the_promise(cheap_bins):
    """Side by side, with any period, and as neighbours in two dimensions, whatever the bins divide."""
    n, k, target = 200_000, 100, 0.95
    chosen = plan(n, k, target)
    assert chosen.per_bin < k / 10 and k <= chosen.bins
    assert set(approx_max_k(planted(range(12_345, 12_345 + k), n), k, recall_target=target)[1]) == set(
        range(12_345, 12_345 + k)
    )
    for period in (64, 128, 1000, 1024, chosen.bins - 7, chosen.bins, chosen.bins + 1, 2 * chosen.bins):
        shares = []
        for first in range(7, n - period * k, max(1, (n - period * k) // 40)):
            places = first + period * np.arange(k)
            found = approx_max_k(planted(places, n), k, recall_target=target)[1]
            shares.append(np.isin(found, places).mean())
        assert np.mean(shares) > target - 0.02, period
    for width in (633, 640, chosen.bins - 7):
        shares = []
        for first in range(0, n - 10 * width, (n - 10 * width) // 40):
            places = (first + width * np.arange(10)[:, None] + np.arange(10)).ravel()
            found = approx_max_k(planted(places, n), k, recall_target=target)[1]
            shares.append(np.isin(found, places).mean())
        assert np.mean(shares) > target - 0.02, width


def test_who_knows_the_hash_breaks_the_promise_but_not_the_exact_dial(cheap_bins):
    n, k, target = 200_000, 100, 0.95
    chosen = plan(n, k, target)
    places = [step * chosen.bins + -bin_of(step * chosen.bins, chosen.bins) % chosen.bins for step in range(k)]
    assert {bin_of(place, chosen.bins) for place in places} == {0}
    x = planted(places, n)
    found = approx_max_k(x, k, recall_target=target)[1]
    assert len(set(found) & set(places)) == chosen.per_bin
    assert set(approx_max_k(x, k, recall_target=1.0)[1]) == set(places)


def test_the_dial(cheap_bins):
    """Recall grows with the target, an exact target is `topk`, and `approx_min_k` mirrors `approx_max_k`."""
    x = np.random.default_rng(1).standard_normal((40, 20_000)).astype(np.float32)
    exact = topk(x, 50)[1]
    measured = []
    for target in (0.6, 0.9, 0.99, 1.0):
        values, indices = approx_max_k(x, 50, recall_target=target)
        np.testing.assert_array_equal(np.take_along_axis(x, indices, 1), values)
        assert (np.diff(values) <= 0).all()
        measured.append(np.mean([len(set(a) & set(b)) / 50 for a, b in zip(indices, exact, strict=True)]))
        assert measured[-1] > target - 0.03
        mirrored = approx_min_k(-x, 50, recall_target=target)
        np.testing.assert_array_equal(mirrored[0], -values)
        np.testing.assert_array_equal(mirrored[1], indices)
    assert measured == sorted(measured) and measured[-1] == 1
    np.testing.assert_array_equal(approx_max_k(x, 50, recall_target=1.0)[1], exact)


def test_any_dimension_is_reduced(cheap_bins):
    x = np.random.default_rng(2).standard_normal((3, 5000, 4)).astype(np.float16)
    for aggregate in (True, False):
        options = {"recall_target": 0.8, "aggregate_to_topk": aggregate}
        values, indices = approx_max_k(x, 7, reduction_dimension=1, **options)
        assert values.shape[1] == (7 if aggregate else plan(5000, 7, 0.8).survivors) and values.dtype == np.float16
        for i, j in itertools.product(range(3), range(4)):
            alone = approx_max_k(x[i, :, j], 7, **options)
            np.testing.assert_array_equal(values[i, :, j], alone[0])
            np.testing.assert_array_equal(indices[i, :, j], alone[1])
    whole = approx_max_k(x, 7, reduction_dimension=1, recall_target=1.0, aggregate_to_topk=False)[1]
    assert whole.shape == (3, 7, 4) and (np.diff(whole, axis=1) > 0).all()


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("sizes", [(12_000,) * 4, (5_000, 30_001, 200, 12_799)])
def test_shards_have_the_recall_of_the_whole(cheap_bins, sizes, aggregate):
    n, k, target = sum(sizes), 64, 0.9
    x = np.random.default_rng(3).permuted(np.tile(np.arange(n, dtype=np.float32), (60, 1)), axis=1)
    ends = np.cumsum(sizes)
    found = [
        approx_max_k(
            x[:, end - size : end],
            k,
            recall_target=target,
            reduction_input_size_override=n,
            aggregate_to_topk=aggregate,
        )[0]
        for size, end in zip(sizes, ends, strict=True)
    ]
    assert all(values.shape[1] >= k for values in found)
    merged = topk(np.concatenate(found, axis=1), k)[0]
    share = (merged >= n - k).mean(1)
    assert share.mean() > plan(n, k, target).expected_recall - 4.5 * share.std() / np.sqrt(len(share))
    assert sum(map(np.size, found)) < x.size / 4


def test_shard_plans_lose_no_more_than_the_whole(cheap_bins):
    """The expected loss, summed over the bins of all shards."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        shards = rng.integers(1000, 200_000, rng.integers(1, 9)).tolist()
        n, k = sum(shards), int(rng.integers(1, 200))
        lost = 0.0
        for shard in shards:
            chosen = _plan.shard_plan(shard, n, k, 0.9, "cpu")
            size, larger = divmod(shard, chosen.bins)
            lost += (chosen.bins - larger) * expected_overflow(n, k, size, chosen.per_bin)
            lost += larger * expected_overflow(n, k, size + 1, chosen.per_bin) if larger else 0
        assert 1 - lost / k >= plan(n, k, 0.9).expected_recall - 1e-12
