"""Sharded search against one process that has all rows: the same bits. Processes are spawned, with Gloo."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from process_group import joined
from torch import distributed

from pykernels import quant
from pykernels.search import knn, sharded, sharded_knn
from pykernels.search.sharded import sharded_approx_max_k
from pykernels.topk import topk

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch was built without distributed")

N, D, Q = 403, 20, 6
METRICS = ("ip", "l2", "cosine")
EDGES = {
    2: ([0, N, N], [0, 1, N], [0, 0, N]),
    4: ([0, 200, 200, 202, N], [0, 1, 3, 5, N], [0, 100, 200, 300, N]),
}
"""Where shards begin and end: some are empty, some have fewer rows than are asked for."""


def data():
    rng = np.random.default_rng(5)
    smooth = rng.standard_normal((N, D)).astype(np.float32)
    ties = rng.integers(-2, 3, (N, D)).astype(np.float32)
    return {"smooth": smooth, "far": smooth + 300, "ties": ties}, rng.random(N) < 0.2, rng.random((Q, N)) < 0.3


def cases():
    """Name, database, queries, k, options: what is searched in one process and in several."""
    databases, one, each = data()
    for name, x in databases.items():
        for metric in METRICS:
            for k in (1, 10, 150, N):
                yield f"{name} {metric} {k}", x, x[:Q] + np.float32(0.25), k, {"metric": metric}
            yield f"{name} {metric} mask", x, x[:Q] * 2, 100, {"metric": metric, "mask": one}
            yield f"{name} {metric} masks", x, x[:Q] * 2, 20, {"metric": metric, "mask": each}
    x = databases["smooth"]
    for metric in METRICS:
        half = x.astype(np.float16)
        yield f"half {metric}", half, half[:Q], 9, {"metric": metric}
        rows = quant.quantize(x, "e4m3fn", granularity="row")
        yield f"e4m3fn {metric}", rows, x[:Q], 9, {"metric": metric, "recall_target": 0.9}
    yield "one query", x, x[7], 5, {}
    yield "no query", x, x[:0], 5, {}
    yield "nothing", x, x[:Q], 0, {}


def part(value, rows):
    """The rows of one process."""
    if isinstance(value, quant.QuantizedTensor):
        return quant.QuantizedTensor(value.codes[rows], value.scale[rows], "row")
    return value[..., rows] if value.dtype == bool else value[rows]


def same(a, b, name):
    for mine, theirs in zip(a, b, strict=True):
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype, name
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs), err_msg=name)


def check(rank, size, expected):
    """All checks of one process."""
    for edges in EDGES[size]:
        rows = slice(edges[rank], edges[rank + 1])
        for name, x, q, k, options in cases():
            own = {key: part(value, rows) if key == "mask" else value for key, value in options.items()}
            same(sharded_knn(q, part(x, rows), k, **own), expected[name], f"{name}, {edges}")
        databases = data()[0]
        for name in ("smooth", "ties"):
            x = torch.from_numpy(databases[name])
            found = sharded_knn(x[:Q].requires_grad_() + 0.25, x[rows], 10, metric="l2")
            assert all(isinstance(each, torch.Tensor) for each in found)
            same((each.numpy() for each in found), expected[f"{name} l2 10"], name)
            for dimension in (0, 1):
                y = np.ascontiguousarray(np.moveaxis(databases[name], 0, dimension))
                for k in (1, 30, N):
                    mine = y[rows] if dimension == 0 else y[:, rows]
                    got = sharded_approx_max_k(mine, k, reduction_dimension=dimension, recall_target=1.0)
                    same(got, expected[f"topk {name} {dimension} {k}"], name)
    refusals(rank, size)


def refusals(rank, size):
    """Every process raises an error where one of them must, and the group works on."""
    x = np.ones((5, 3), np.float32)
    for error, others, message, call in (
        (ValueError, RuntimeError, "shape", lambda bad: sharded_knn(x[:, :2] if bad else x, x, 2)),
        (TypeError, RuntimeError, "dtype int64", lambda bad: sharded_knn(x, x.astype(int) if bad else x, 2)),
        (ValueError, RuntimeError, "metric='dot'", lambda bad: sharded_knn(x, x, 2, metric="dot" if bad else "ip")),
        (ValueError, RuntimeError, "mask has shape", lambda bad: sharded_knn(x, x, 2, mask=[True] * (5 - bad))),
        (ValueError, RuntimeError, "recall_target=2", lambda bad: sharded_approx_max_k(x, 2, recall_target=1 + bad)),
        (ValueError, ValueError, "k differs between processes", lambda bad: sharded_knn(x, x, 2 + bad)),
        (ValueError, ValueError, "number of queries differs", lambda bad: sharded_knn(x[bad:], x, 2)),
        (ValueError, ValueError, "metric differs", lambda bad: sharded_knn(x, x, 2, metric="l2" if bad else "ip")),
        (ValueError, ValueError, f"to {5 * size}", lambda bad: sharded_knn(x, x, 5 * size + 1)),
        (ValueError, ValueError, "k differs", lambda bad: sharded_approx_max_k(x, 2 + bad)),
    ):
        bad = rank == 1
        with pytest.raises(error if bad else others) as caught:
            call(bad)
        expected = "process 1 of the group refused" if others is RuntimeError and not bad else message
        assert expected in str(caught.value), caught.value


def work(rank, size, folder):
    with joined(rank, size, folder):
        with np.load(f"{folder}/expected.npz") as file:
            check(rank, size, {name[2:]: (file[name], file[f"1 {name[2:]}"]) for name in file if name[0] == "0"})
        # recall of the merged result: bins of a shard are those of a plan for the whole
        y = np.random.default_rng(size).standard_normal((200, 20_000)).astype(np.float32)
        rows = np.array_split(np.arange(20_000), size)[rank]
        values, indices = sharded_approx_max_k(np.ascontiguousarray(y[:, rows]), 50, recall_target=0.9)
        np.testing.assert_array_equal(values, np.take_along_axis(y, indices, 1))
        true = np.argsort(-y, 1)[:, :50]
        assert np.mean([len(set(a) & set(b)) for a, b in zip(indices, true, strict=True)]) / 50 >= 0.9


@pytest.mark.parametrize("size", [2, 4])
def test_every_process_has_the_result_of_one(size, tmp_path, monkeypatch):
    expected = {name: knn(q, x, k, **options) for name, x, q, k, options in cases()}
    for name in ("smooth", "ties"):
        for dimension in (0, 1):
            y = np.ascontiguousarray(np.moveaxis(data()[0][name], 0, dimension))
            expected |= {f"topk {name} {dimension} {k}": topk(y, k, axis=dimension) for k in (1, 30, N)}
    parts = {f"{part} {name}": value for name, pair in expected.items() for part, value in enumerate(pair)}
    np.savez(tmp_path / "expected.npz", **parts)
    for library in ("NUMBA", "OMP"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")  # threads that wait for work would slow the other processes
    torch.multiprocessing.spawn(work, (size, str(tmp_path)), nprocs=size)


def test_without_a_process_group():
    x = np.ones((2, 2), np.float32)
    for call in (lambda: sharded_knn(x, x, 1), lambda: sharded_approx_max_k(x, 1)):
        with pytest.raises(ValueError, match="init_process_group"):
            call()


def test_doctests():
    assert doctest.testmod(sharded).failed == 0
