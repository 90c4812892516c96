"""Exact top-k against Python's stable sort, in every dtype, order, shape and layout."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TRITON, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_house import run

from pykernels._checking import on
from pykernels.kernels.topk import cases
from pykernels.topk import topk
from pykernels.topk.checks import checks

INTERPRETED = pytest.mark.skipif(not HAS_TRITON, reason="torch and triton are not installed")


def ranking(row, largest):
    """All positions from best to worst, by Python's stable sort of Python's numbers."""
    numbers = [float(value) if row.dtype.name in cases.FLOATS else int(value) for value in row]
    if largest:
        return sorted(range(len(numbers)), key=lambda i: (numbers[i] == numbers[i], -numbers[i]))
    return sorted(range(len(numbers)), key=lambda i: (numbers[i] != numbers[i], numbers[i]))


def along(x, indices, axis):
    return np.take_along_axis(x, indices, axis)


@pytest.mark.parametrize("order", cases.ORDERS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_agrees_with_a_stable_sort(dtype, order):
    """Every k of interest of rows on both sides of what the kernels treat as short; NaN and ties count."""
    for n in (1, 2, 7, 32, 63, 64, 100, 257, 1025, 2500):
        x = cases.rows((3, n), dtype, order, seed=n)
        for largest in (True, False):
            expected = np.array([ranking(row, largest) for row in x])
            for k in sorted({0, 1, 2, 5, 17, n // 2, n - 1, n} & set(range(n + 1))):
                values, indices = topk(x, k, largest=largest)
                assert indices.dtype == np.int64
                np.testing.assert_array_equal(indices, expected[:, :k])
                same_bits(values, along(x, indices, 1))
                values, indices = topk(x, k, largest=largest, sorted=False)
                np.testing.assert_array_equal(indices, np.sort(expected[:, :k], axis=1))
                same_bits(values, along(x, indices, 1))


@pytest.mark.parametrize("order", cases.ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "uint8"])
def test_long_rows(dtype, order):
    """Rows that threads share, of lengths that no block divides."""
    for shape in ((1, 140_003), (5, 70_001)):
        x = cases.rows(shape, dtype, order)
        with np.errstate(invalid="ignore"):  # signalling NaN
            numbers = x.astype(np.float64) if dtype in cases.FLOATS else x
        unordered = np.isnan(numbers) if dtype in cases.FLOATS else np.zeros(shape, bool)
        rank = np.unique(np.where(unordered, numbers.max(where=~unordered, initial=0), numbers), return_inverse=True)[1]
        rank = np.where(unordered, rank.max() + 1, rank.reshape(shape))
        for largest in (True, False):
            expected = np.argsort(-rank if largest else rank, axis=1, kind="stable")
            for k in (1, 10, 300, 5000, shape[1] // 2, shape[1]):
                values, indices = topk(x, k, largest=largest)
                np.testing.assert_array_equal(indices, expected[:, :k])
                same_bits(values, along(x, indices, 1))


def test_policy_of_nan_zero_and_ties():
    nan = np.float32("nan")
    x = np.array([1, -nan, np.inf, nan, 0.0, -0.0, -np.inf], np.float32)
    assert topk(x, 7)[1].tolist() == [1, 3, 2, 0, 4, 5, 6]
    assert topk(x, 7, largest=False)[1].tolist() == [6, 4, 5, 0, 2, 1, 3]
    values, indices = topk(np.array([-0.0, 0.0, -0.0]), 2)
    assert np.signbit(values).tolist() == [True, False] and indices.tolist() == [0, 1]
    assert topk([3, 1, 3, 2, 3], 4, sorted=False)[1].tolist() == [0, 2, 3, 4]


def layouts():
    x = cases.rows((6, 5, 40), "float32", "ties")
    big = cases.rows((12, 10, 80), "float32", "ties")
    yield from (x, x.T, x.transpose(1, 2, 0), np.asfortranarray(x), x[::-1, :, ::-1], big[::2, 1::2, ::-2])
    yield from (x[0, 0], x[:, 0, 3], x[None, :, None], np.broadcast_to(x[0], (4, 5, 40)), x.astype(">f4"))
    yield from (
        np.broadcast_to(np.float32(2), (3, 9)),
        np.frombuffer(b"\0" + x.tobytes(), "f4", 1200, 1).reshape(30, 40),
    )


@pytest.mark.parametrize("x", list(layouts()), ids=lambda x: f"{x.shape} {x.strides}")
def test_any_axis_and_strides(x):
    for axis in range(-x.ndim, x.ndim):
        k = min(x.shape[axis], 5)
        expected = np.argsort(-x, axis=axis, kind="stable").take(range(k), axis)
        values, indices = topk(x, k, axis=axis)
        np.testing.assert_array_equal(indices, expected)
        same_bits(values, along(x.astype("=f4"), expected, axis))
        spare = [np.full((*values.shape, 2), np.nan), np.full((*values.shape, 2), -7)]
        strided = spare[0].astype(np.float32)[..., 0], spare[1][..., 0]
        poisoned = np.full(values.shape, np.nan, np.float32), np.full(values.shape, -7)
        for out in (strided, poisoned, list(poisoned), (strided[0], poisoned[1])):
            result = topk(x, k, axis=axis, out=out)
            assert result[0] is out[0] and result[1] is out[1]
            np.testing.assert_array_equal(out[0], values)
            np.testing.assert_array_equal(out[1], expected)
        assert (spare[1][..., 1] == -7).all()


def test_empty_batches_and_k():
    for shape, axis, k in (
        ((0, 5), 1, 3),
        ((0, 5), 0, 0),
        ((3, 0, 4), 1, 0),
        ((3, 0, 4), 2, 4),
        ((4, 3), 1, 0),
        ((0,), 0, 0),
    ):
        values, indices = topk(np.empty(shape, np.float16), k, axis=axis)
        expected = (*shape[:axis], k, *shape[axis + 1 :])
        assert values.shape == indices.shape == expected
        assert values.dtype == np.float16 and indices.dtype == np.int64


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=300), st.data())
def test_merging_parts_gives_the_whole(numbers, data):
    """The k best of a concatenation are the k best of the parts' k best, ties included."""
    x = np.array(numbers, np.int32)
    k = data.draw(st.integers(1, x.size))
    cut = data.draw(st.integers(0, x.size))
    largest = data.draw(st.booleans())
    found = [topk(part, min(k, part.size), largest=largest) for part in (x[:cut], x[cut:])]
    candidates = np.concatenate([found[0][0], found[1][0]])
    ids = np.concatenate([found[0][1], found[1][1] + cut])
    merged = topk(candidates, k, largest=largest)[1]
    np.testing.assert_array_equal(ids[merged], topk(x, k, largest=largest)[1])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=2000, unique_by=lambda f: f + 0.0), st.data()
)
def test_a_permutation_moves_the_indices_alone(numbers, data):
    x = np.array(numbers, np.float32)
    k = data.draw(st.integers(1, x.size))
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(x.size)
    values, indices = topk(x, k)
    moved, places = topk(x[order], k)
    same_bits(moved, values)
    np.testing.assert_array_equal(order[places], indices)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_values_agree_with_torch(dtype):
    torch = pytest.importorskip("torch")
    x = cases.rows((7, 3001), dtype, "random")
    t = torch.from_numpy(x.astype(np.float64)) if dtype == "bfloat16" else torch.from_numpy(x)
    for largest in (True, False):
        expected = torch.topk(t, 50, largest=largest)[0].numpy()
        np.testing.assert_array_equal(topk(x, 50, largest=largest)[0], expected.astype(x.dtype))


def test_thread_count_does_not_change_the_result():
    code = """
        import hashlib, numpy as np
        from pykernels import _arrays
        from pykernels.topk import RecallPlan, topk
        from pykernels.topk._approx import Request, by_plan
        digest = hashlib.sha256()
        for rows in (1, 3):
            x = np.random.default_rng(0).integers(0, 500, (rows, 200_000)).astype(np.float32)
            request = Request(300, 1, 200_000, 0.9, True, True)
            approximate = by_plan(_arrays, x, request, RecallPlan(640, 2, 0.9, 1280), "cpu")
            for found in (topk(x, 100), topk(x, 9000, sorted=False), approximate):
                digest.update(found[0].tobytes() + found[1].tobytes())
        print(digest.hexdigest())
    """
    assert run(code, NUMBA_NUM_THREADS="1") == run(code, NUMBA_NUM_THREADS="2")


def test_threads_of_python_share_the_kernels():
    inputs = [cases.rows((4, 80_000), "float32", order) for order in ("random", "ties")] * 4
    expected = [topk(x, 64)[1] for x in inputs]
    with ThreadPoolExecutor(2) as pool:
        for found, known in zip(pool.map(lambda x: topk(x, 64)[1], inputs), expected, strict=True):
            np.testing.assert_array_equal(found, known)


@INTERPRETED
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_gpu_kernels_agree_with_a_stable_sort(dtype):
    from pykernels import _arrays_torch

    x = cases.rows((2, 130), dtype, "special")
    for largest in (True, False):
        expected = np.array([ranking(row, largest) for row in x])
        for k in (1, 9, 130):
            values, indices = map(_arrays_torch.to_numpy, topk(on("gpu", x), k, largest=largest, backend="gpu"))
            np.testing.assert_array_equal(indices, expected[:, :k])
            same_bits(values, along(x, indices, 1))


def test_checks_of_the_reference_pass(backend):
    chosen = list(checks(False, [backend]))[:: 1 if backend == "cpu" else 7]
    assert len(chosen) > 10
    for check in chosen:
        compared, mismatches = check.run()
        assert mismatches == 0, (check.operation, check.case, compared)


def test_the_smallest_of_unsigned_and_of_extreme_integers():
    lowest = np.iinfo(np.int64).min
    assert topk(np.array([5, lowest, -1]), 2, largest=False)[0].tolist() == [lowest, -1]
    assert topk(np.uint8([0, 255, 128, 127]), 2)[0].tolist() == [255, 128]
    assert topk(np.array([1, 3, 2], ml_dtypes.bfloat16), 1)[0].dtype == ml_dtypes.bfloat16
