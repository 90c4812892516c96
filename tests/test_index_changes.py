"""`Index` against a dict; other threads, failing allocations, and bad input, which change nothing."""

from __future__ import annotations

import re
import threading

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TORCH, run_threads
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pykernels.search import Index

if HAS_TORCH:
    pass

from index_oracle import brute, integers, same, state


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
    n, versions = 50, 300
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
        finally:
            stop.set()

    def read():
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

    run_threads(write, read, read)
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
