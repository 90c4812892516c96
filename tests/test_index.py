"""`Index` against brute force in float64 and against a dict; threads, files and bad input."""

from __future__ import annotations

import doctest
import json
import re
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TORCH
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pykernels import quant
from pykernels.search import Index, _index, knn

if HAS_TORCH:
    import torch

safetensors = pytest.importorskip("safetensors.numpy")

METRICS = ("ip", "l2", "cosine")
DTYPES = ("float32", "float16", "bfloat16", "int8", "e4m3fn")
RNG = np.random.default_rng(3)


def integers(*shape):
    """Float32 values whose products and sums are exact in every dtype that keeps them."""
    return RNG.integers(-7, 8, shape).astype(np.float32)


def as_kept(x, dtype):
    """The values of rows kept in a dtype, in float64."""
    x = np.asarray(x, np.float64)
    if dtype in ("float32", "float16", "bfloat16"):
        return x.astype(np.dtype(getattr(ml_dtypes, dtype, dtype))).astype(np.float64)
    largest = 127 if dtype == "int8" else 448
    scale = (np.abs(x).max(1, keepdims=True).astype(np.float32) / np.float32(largest)).astype(np.float64)
    scale[scale == 0] = 1
    codes = np.float32(x) / np.float32(scale)
    codes = np.rint(codes) if dtype == "int8" else codes.astype(ml_dtypes.float8_e4m3fn)
    return codes.astype(np.float64) * scale


def scores_of(q, x, metric):
    """All scores in float64, the larger the better but for "l2"."""
    q, x = np.asarray(q, np.float64), np.asarray(x, np.float64)
    if metric == "l2":
        return ((q[:, None] - x) ** 2).sum(-1)
    if metric == "cosine":
        q, x = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (q, x))
    return q @ x.T


def brute(q, x, ids, metric, k, allowed=None):
    """Scores and ids of the k best rows, equal scores in the order of the rows, filled up with -1."""
    scores = scores_of(q, x, metric)
    keys = np.round(scores if metric == "l2" else -scores, 9)
    if allowed is not None:
        keys = np.where(allowed, keys, np.inf)
    order = np.argsort(keys, axis=1, kind="stable")[:, :k]
    none = ~np.isfinite(np.take_along_axis(keys, order, 1))
    found = np.where(none, -1, np.asarray(ids)[order])
    best = np.where(none, np.inf if metric == "l2" else -np.inf, np.take_along_axis(scores, order, 1))
    missing = ((0, 0), (0, k - order.shape[1]))
    worst = np.inf if metric == "l2" else -np.inf
    return np.pad(best, missing, constant_values=worst), np.pad(found, missing, constant_values=-1)


def where(backend):
    """The device of an index whose searches run on a backend."""
    return None if backend == "cpu" else "cuda" if torch.cuda.is_available() else "cpu"


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


class Model(RuleBasedStateMachine):
    """An index beside a dict of its vectors, in the order of additions and updates."""

    def __init__(self):
        super().__init__()
        self.vectors: dict[int, np.ndarray] = {}
        self.unused = 0

    @initialize(metric=st.sampled_from(("ip", "l2")), dtype=st.sampled_from(("float32", "float16")))
    def create(self, metric, dtype):
        self.index = Index(3, metric=metric, dtype=dtype)

    def some(self, data, unique=True):
        return data.draw(st.lists(st.sampled_from(sorted(self.vectors)), unique=unique, max_size=20))

    def rows(self, data, count):
        row = st.lists(st.integers(-3, 3), min_size=3, max_size=3)
        return np.array(data.draw(st.lists(row, min_size=count, max_size=count)), np.float32).reshape(count, 3)

    @rule(data=st.data(), count=st.integers(0, 12))
    def add(self, data, count):
        rows = self.rows(data, count)
        ids = self.index.add(rows).tolist()
        assert ids == list(range(self.unused, self.unused + count))
        self.unused += count
        self.vectors |= zip(ids, rows, strict=True)

    @rule(data=st.data(), ids=st.lists(st.integers(0, 60), unique=True, max_size=6))
    def add_named(self, data, ids):
        rows = self.rows(data, len(ids))
        if self.vectors.keys() & ids:
            with pytest.raises(ValueError, match="which is in the index"):
                self.index.add(rows, ids)
        else:
            assert self.index.add(rows, ids).tolist() == ids
            self.vectors |= zip(ids, rows, strict=True)
            self.unused = max(self.unused, *ids, -1, -1 if not ids else max(ids) + 1)

    @rule(data=st.data())
    def remove(self, data):
        if self.vectors:
            ids = self.some(data)
            self.index.remove(ids)
            for id in ids:
                del self.vectors[id]

    @rule(data=st.data())
    def update(self, data):
        if self.vectors:
            ids = self.some(data)
            rows = self.rows(data, len(ids))
            self.index.update(ids, rows)
            for id, row in zip(ids, rows, strict=True):
                del self.vectors[id]
                self.vectors[id] = row

    @rule(data=st.data(), operation=st.sampled_from(("remove", "update")))
    def refuse(self, data, operation):
        bad = data.draw(st.sampled_from(([self.unused + 1], [-1])))
        if self.vectors:
            bad = [min(self.vectors), *bad]
        with pytest.raises(ValueError, match="ids has"):
            self.index.remove(bad) if operation == "remove" else self.index.update(bad, self.rows(data, len(bad)))

    @rule(data=st.data(), k=st.integers(0, 20), masked=st.booleans())
    def search(self, data, k, masked):
        q = self.rows(data, 2)
        ids = list(self.vectors)
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))), bool)
        x = np.array([*self.vectors.values()], np.float32).reshape(len(ids), 3)
        scores, found = self.index.search(q, k, mask=mask if masked else None)
        allowed = np.broadcast_to(mask, (2, len(ids))) if masked else None
        expected, numbers = brute(q, x, np.array(ids, np.int64), self.index.metric, k, allowed)
        np.testing.assert_array_equal(scores, expected)
        np.testing.assert_array_equal(found, numbers)

    @invariant()
    def holds_the_same(self):
        if hasattr(self, "index"):
            assert self.index.ids.tolist() == list(self.vectors) and len(self.index) == len(self.vectors)
            rows = np.array([*self.vectors.values()], np.float32).reshape(-1, 3)
            np.testing.assert_array_equal(self.index.reconstruct(list(self.vectors)), rows)
            assert len(self.index._table._alive) <= max(4 * len(self.vectors), 64)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_searches_see_whole_changes_of_other_threads(metric):
    """Every vector is (version, version), all of one version; rows 0..n-1 are always there, others come in pairs."""
    n, versions, failures = 50, 300, []
    index = Index(2, metric=metric)
    index.add(np.ones((n, 2)))
    stop = threading.Event()

    def write():
        try:
            for version in range(2, versions):
                index.update(np.arange(n), np.full((n, 2), float(version)))
                pair = [2 * version + 1000, 2 * version + 1001]
                index.add(np.full((2, 2), -1.0), pair)
                index.remove(pair)
        except Exception as error:
            failures.append(error)
        finally:
            stop.set()

    def read():
        try:
            seen = 1.0
            while not stop.is_set():
                scores, ids = index.search(np.ones((1, 2)), n + 2)
                found = scores[0] / 2 if metric == "ip" else 1 + np.sqrt(scores[0] / 2)
                main, extra = (ids[0] >= 0) & (ids[0] < n), ids[0] >= 1000
                assert main.sum() == n and len(set(ids[0][main])) == n, ids
                assert extra.sum() in (0, 2), ids
                version = found[main]
                assert (version == version[0]).all() and version[0] >= seen, version
                seen = version[0]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=target) for target in (write, read, read)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert index.ids.tolist() == list(range(n))


def test_a_view_is_never_written_again():
    index = Index(4, metric="l2")
    index.add(integers(100, 4))
    view = index._table.view()
    before = {name: column.copy() for name, column in view.columns.items()}
    for _ in range(5):
        index.update(np.arange(100), integers(100, 4))
        index.add(integers(30, 4))
    index.remove(index.ids[10:])
    for name, column in view.columns.items():
        np.testing.assert_array_equal(column, before[name])
    assert len(view) == 100


def test_failing_allocation_changes_nothing(monkeypatch):
    from pykernels.search import _table

    index = Index(2)
    index.add(np.ones((5, 2)))
    before = state(index)

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(_table, "_grown", fail)
        for change in (lambda: index.add(np.zeros((9, 2))), lambda: index.update([1, 2], np.zeros((2, 2)))):
            with pytest.raises(MemoryError):
                change()
    same(state(index), before)
    with monkeypatch.context() as patch:
        patch.setattr(_table.Table, "_own", fail)
        with pytest.raises(MemoryError):
            index.remove([0, 1, 2, 3])
    same(state(index), before)


def state(index):
    """All that a user can see of an index."""
    q = np.eye(index.dim, dtype=np.float32)
    return (index.ids, *index.search(q, 40), np.asarray(index.reconstruct(index.ids)), index._table.view().next_id)


def same(a, b):
    for mine, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_files_hold_the_whole_index(tmp_path, metric, dtype):
    path = tmp_path / "index.safetensors"
    index = Index(5, metric=metric, dtype=dtype)
    index.add(RNG.standard_normal((20, 5)) + 30, ids=RNG.permutation(100)[:20])
    index.remove(index.ids[3:7])
    index.save(path)
    index.update(index.ids[:2], RNG.standard_normal((2, 5)))
    index.save(path)
    for device in (None, "cpu") if HAS_TORCH else (None,):
        loaded = Index.load(path, device=device)
        assert (loaded.dim, loaded.metric, loaded.dtype) == (5, metric, dtype)
        same(state(loaded), state(index))
        loaded.add(np.ones((3, 5)))
    index.add(np.ones((3, 5)))
    same(state(loaded), state(index))
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.safetensors"]


def saved(path, dtype="float32", metric="l2"):
    index = Index(3, metric=metric, dtype=dtype)
    index.add(integers(6, 3) + 0.5)
    index.save(path)
    return safetensors.load_file(path)


def rewrite(path, parts, **described):
    about = {"dim": 3, "metric": "l2", "dtype": "float32", "next_id": 6, **described}
    metadata = {"kind": "pykernels.search.Index/1", "index": json.dumps(about)}
    safetensors.save_file(parts, path, metadata=metadata)


TAMPERED = {
    "next id": (lambda p: None, {"next_id": 5}, "next_id is 5"),
    "next id type": (lambda p: None, {"next_id": 7.0}, "next_id is 7.0"),
    "dim": (lambda p: None, {"dim": 4}, "centre has shape (3,), expected (4,)"),
    "dim type": (lambda p: None, {"dim": "3"}, "dim='3'"),
    "dim size": (lambda p: None, {"dim": 10**30}, "dim="),
    "metric": (lambda p: None, {"metric": "dot"}, "metric='dot'"),
    "dtype": (lambda p: None, {"dtype": "float16"}, "it holds"),
    "dtype list": (lambda p: None, {"dtype": ["float32"]}, "dtype="),
    "no ids": (lambda p: p.pop("ids"), {}, "'ids'"),
    "no centre": (lambda p: p.pop("centre"), {}, "it holds"),
    "extra": (lambda p: p.update(more=np.ones(3)), {}, "it holds"),
    "repeated ids": (lambda p: p["ids"].fill(1), {}, "more than once"),
    "negative ids": (lambda p: p["ids"].__setitem__(2, -5), {}, "-5"),
    "few ids": (lambda p: p.update(ids=p["ids"][:5].copy()), {}, "vectors has shape"),
    "id matrix": (lambda p: p.update(ids=p["ids"].reshape(2, 3)), {}, "ids has shape"),
    "id dtype": (lambda p: p.update(ids=p["ids"].astype(np.int32)), {}, "it holds"),
    "nan": (lambda p: p["vectors"].__setitem__((4, 1), np.nan), {}, "in row 4"),
    "inf centre": (lambda p: p["centre"].fill(np.inf), {}, "centre is not finite"),
    "vector shape": (lambda p: p.update(vectors=p["vectors"][0].copy()), {}, "vectors has shape"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_files_are_refused(tmp_path, case):
    path = tmp_path / "index"
    change, described, message = TAMPERED[case]
    parts = saved(path)
    change(parts)
    rewrite(path, parts, **described)
    with pytest.raises(ValueError, match=f"(?s)path='.*index' does not hold an Index: .*{re.escape(message)}"):
        Index.load(path)


@pytest.mark.parametrize(
    ("dtype", "name", "value", "message"),
    [
        ("int8", "vectors", -128, "the code -128"),
        ("e4m3fn", "vectors", 0xFF, "the code of a NaN"),
        ("int8", "factor", 0, "a scale that is not positive"),
        ("e4m3fn", "factor", np.inf, "a scale that is not positive"),
        ("bfloat16", "vectors", 0x7F80, "NaN, Inf or too large"),
    ],
)
def test_tampered_codes_are_refused(tmp_path, dtype, name, value, message):
    path = tmp_path / "index"
    parts = saved(path, dtype)
    parts[name][3] = value
    rewrite(path, parts, dtype=dtype)
    with pytest.raises(ValueError, match=f"in row 3, .*{message}"):
        Index.load(path)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "index"
    saved(path)
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="path="):
            Index.load(path)
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(400))
        with pytest.raises(ValueError, match="path="):
            Index.load(path)
    quant.quantize(integers(4, 4), "e4m3fn", granularity="row").save(path)
    with pytest.raises(ValueError, match=re.escape("kind 'pykernels.QuantizedTensor/1'")):
        Index.load(path)
    safetensors.save_file({"x": np.ones(3)}, path)
    with pytest.raises(ValueError, match="kind None"):
        Index.load(path)
    for described in ("", "[]", "3", "{}", "[" * 100_000):
        safetensors.save_file({"ids": np.ones(3)}, path, metadata={"kind": _kind(), "index": described})
        with pytest.raises(ValueError, match="does not hold an Index"):
            Index.load(path)
    with pytest.raises(FileNotFoundError):
        Index.load(tmp_path / "nothing")
    with pytest.raises(OSError, match="directory"):
        Index.load(tmp_path)


def _kind():
    from pykernels.search._index_files import KIND

    return KIND


def test_a_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "index"
    saved(path)
    before = path.read_bytes()

    def fail(parts, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        Index(3).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


V = np.ones((2, 3), np.float32)
BAD = {
    "vectors dim": (ValueError, "vectors has shape (2, 4): expected (n, 3)", lambda i: i.add(np.ones((2, 4)))),
    "vectors 1-D": (ValueError, "vectors has shape (3,)", lambda i: i.add(V[0])),
    "vectors integers": (TypeError, "vectors has dtype int64", lambda i: i.add(np.ones((2, 3), np.int64))),
    "vectors complex": (TypeError, "vectors has dtype complex64", lambda i: i.add(V.astype("c8"))),
    "vectors float8": (TypeError, "float8_e4m3fn", lambda i: i.add(V.astype(ml_dtypes.float8_e4m3fn))),
    "nan": (ValueError, "vectors has, in row 1, a value that is NaN", lambda i: i.add([[1.0, 2, 3], [1, np.nan, 3]])),
    "inf": (ValueError, "in row 0", lambda i: i.update([1, 2], V * -np.inf)),
    "too large": (ValueError, "too large for float32", lambda i: i.add(np.full((2, 3), 1e300))),
    "squares": (ValueError, "squares are too large", lambda i: i.add(V * np.float32(1e30))),
    "ids floats": (TypeError, "ids has dtype float64", lambda i: i.add(V, [7.0, 8.0])),
    "ids booleans": (TypeError, "ids has dtype bool", lambda i: i.add(V, [True, False])),
    "ids text": (TypeError, "ids has dtype", lambda i: i.add(V, ["a", "b"])),
    "ids objects": (TypeError, "ids has dtype object", lambda i: i.add(V, [2**70, 1])),
    "ids repeated": (ValueError, "ids has 8 more than once", lambda i: i.add(V, [8, 8])),
    "ids present": (ValueError, "ids has 2, which is in the index", lambda i: i.add(V, [8, 2])),
    "ids negative": (ValueError, "ids has -3: expected integers from 0", lambda i: i.add(V, [8, -3])),
    "ids large": (ValueError, "ids has 9223372036854775808", lambda i: i.add(V, np.array([2**63, 1], np.uint64))),
    "ids count": (ValueError, "ids has shape (3,): expected (2,)", lambda i: i.add(V, [7, 8, 9])),
    "ids matrix": (ValueError, "ids has shape (1, 2)", lambda i: i.add(V, [[7, 8]])),
    "ids scalar": (ValueError, "ids has shape ()", lambda i: i.remove(3)),
    "remove unknown": (ValueError, "ids has 77, which is not in the index", lambda i: i.remove([1, 77])),
    "remove repeated": (ValueError, "ids has 1 more than once", lambda i: i.remove([1, 2, 1])),
    "remove floats": (TypeError, "ids has dtype float32", lambda i: i.remove(np.float32([1]))),
    "update unknown": (ValueError, "ids has 77", lambda i: i.update([1, 77], V)),
    "update repeated": (ValueError, "ids has 1 more than once", lambda i: i.update([1, 1], V)),
    "update count": (ValueError, "ids has shape (1,): expected (2,)", lambda i: i.update([1], V)),
    "update dim": (ValueError, "vectors has shape (2, 2)", lambda i: i.update([1, 2], V[:, :2])),
    "reconstruct": (ValueError, "ids has 77", lambda i: i.reconstruct(77)),
    "queries dim": (ValueError, "queries has shape (2, 2): expected (n, 3)", lambda i: i.search(V[:, :2], 1)),
    "queries 1-D": (ValueError, "queries has shape (3,)", lambda i: i.search(V[0], 1)),
    "queries integers": (TypeError, "queries has dtype int64", lambda i: i.search([[1, 2, 3]], 1)),
    "k negative": (ValueError, "k=-1", lambda i: i.search(V, -1)),
    "k float": (TypeError, "k=2.0", lambda i: i.search(V, 2.0)),
    "recall": (ValueError, "recall_target=0", lambda i: i.search(V, 1, recall_target=0)),
    "workspace": (ValueError, "workspace=10", lambda i: i.search(V, 1, workspace=10)),
    "backend": (ValueError, "backend='tpu'", lambda i: i.search(V, 1, backend="tpu")),
    "backend gpu": (NotImplementedError, "backend='gpu'", lambda i: i.search(V, 1, backend="gpu")),
    "mask shape": (
        ValueError,
        "mask has shape (4,): expected (5,) or (2, 5)",
        lambda i: i.search(V, 1, mask=[True] * 4),
    ),
    "mask queries": (ValueError, "mask has shape (3, 5)", lambda i: i.search(V, 1, mask=np.ones((3, 5), bool))),
    "mask dtype": (TypeError, "mask has dtype int64", lambda i: i.search(V, 1, mask=[1] * 5)),
    "allowed floats": (TypeError, "allowed_ids has dtype float64", lambda i: i.search(V, 1, allowed_ids=[1.0])),
    "dim": (ValueError, "dim=0", lambda i: Index(0)),
    "dim type": (TypeError, "dim=2.0", lambda i: Index(2.0)),
    "metric": (ValueError, "metric='dot'", lambda i: Index(2, metric="dot")),
    "dtype": (ValueError, "dtype='float64'", lambda i: Index(2, dtype="float64")),
    "dtype type": (TypeError, "dtype=<class", lambda i: Index(2, dtype=np.float32)),
}
if HAS_TORCH:
    BAD["device"] = (ValueError, "device='abacus'", lambda i: Index(2, device="abacus"))


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_changes_nothing(case):
    error, message, call = BAD[case]
    index = Index(3, metric="l2")
    index.add(np.arange(18.0).reshape(6, 3))
    index.remove([0])
    before = state(index)
    with pytest.raises(error, match=re.escape(message)):
        call(index)
    same(state(index), before)


def test_membership_and_text():
    index = Index(3, dtype="int8")
    index.add(V, ids=[4, 9])
    assert 4 in index and np.int64(9) in index and 5 not in index and "4" not in index and 4.5 not in index
    assert repr(index) == "Index(3, metric='ip', dtype='int8', device=None) of 2"


def test_doctests():
    assert doctest.testmod(_index).failed == 0
