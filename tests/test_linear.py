"""Products with quantized weights against float64 sums of numbers that ml_dtypes decodes."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from conftest import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from test_house import run

from pykernels.kernels.linear import cases
from pykernels.kernels.linear.cases import Shape
from pykernels.quant import QuantizedTensor, linear

BACKENDS = ("reference", "cpu")
E8M0 = ml_dtypes.float8_e8m0fnu
GRANULARITIES = (
    *(("tensor", -1), ("row", -1), ("column", -1), ("mx", -1), ((16, 1), -1), ((16, 48), -1)),
    *(("row", 0), ("column", 0), ("mx", 0), ((16, 48), 0), ((1, 64), -1)),
)
BLOCKS = {"mx": (1, 32), "row": (1, 1 << 20), "column": (1 << 20, 1), "tensor": (1 << 20, 1 << 20)}


def made(shape: Shape, format: str, granularity="row", axis: int = -1) -> tuple[QuantizedTensor, np.ndarray]:
    """Random codes and scales as a weight, and the float64 numbers that they stand for."""
    rows, columns = BLOCKS.get(granularity, granularity)
    if axis == 0:
        rows, columns = columns, rows
    rows, columns = min(rows, max(shape.n, 1)), min(columns, max(shape.k, 1))
    codes, scale = cases.codes(shape, format), cases.scales(shape, format, (rows, columns))
    if granularity == "mx":
        scale = scale.astype(E8M0)
    numbers = scale.astype(np.float64).repeat(rows, 0)[: shape.n].repeat(columns, 1)[:, : shape.k]
    if granularity == "tensor":
        scale = scale.reshape(()) if scale.size else np.ones((), np.float32)
    weight = QuantizedTensor(codes, scale, granularity, axis)
    return weight, numbers * codes.astype(np.float64)


def activated(z: np.ndarray, name: str | None) -> np.ndarray:
    """The textbook formulas, number by number."""
    formulas = {
        None: lambda v: v,
        "relu": lambda v: max(v, 0.0),
        "silu": lambda v: v / 2 * (1 + math.tanh(v / 2)),
        "gelu": lambda v: v * math.erfc(-v / math.sqrt(2)) / 2,
        "gelu_tanh": lambda v: v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    }
    return np.array([formulas[name](v) for v in z.flat]).reshape(z.shape)


def check(got, x, dense, bias=None, activation=None, dtype="float32"):
    """That a product is within its tolerance of what float64 gives."""
    x = x.astype(np.float64)
    added = None if bias is None else bias.astype(np.float64)
    expected = activated(x @ dense.T + (0 if bias is None else added), activation)
    assert got.dtype == cases.FLOATS[dtype] and got.shape == expected.shape
    allowed = cases.tolerance(x, dense, added, expected, dtype)
    assert (np.abs(got.astype(np.float64) - expected) <= allowed).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", cases.FORMATS)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_every_shape(dtype, format, backend):
    for i, shape in enumerate(cases.SHAPES):
        x, bias = cases.activations(shape, dtype), cases.bias(shape) if i % 2 else None
        for granularity in ("row", ("tensor", (1, 32))[i % 2]):
            weight, dense = made(shape, format, granularity)
            check(linear(x, weight, bias, out_dtype="float32", backend=backend), x, dense, bias)
            if format == "int8":
                check(linear(x, weight, bias, backend=backend), x, dense, bias, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_every_granularity(granularity, backend):
    for format, dtype in (("int8", "bfloat16"), ("e4m3fn", "float32")):
        for shape in (Shape(2, 63, 257), Shape(33, 100, 100), Shape(3, 40, 1), Shape(2, 1, 130)):
            x = cases.activations(shape, dtype)
            weight, dense = made(shape, format, *granularity)
            check(linear(x, weight, out_dtype="float32", backend=backend), x, dense)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_in_full_width(backend):
    for kind in cases.FLOATS:
        for dtype in cases.FLOATS:
            for shape in (Shape(1, 257, 100), Shape(3, 7, 63), Shape(33, 100, 257)):
                x, weight, bias = cases.activations(shape, dtype), cases.codes(shape, kind), cases.bias(shape, dtype)
                got = linear(x, weight, bias, out_dtype="float32", backend=backend)
                check(got, x, weight.astype(np.float64), bias)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("format", cases.FORMATS)
def test_dynamic_products_are_those_of_rounded_rows(format, backend):
    largest = 127 if format == "int8" else float(ml_dtypes.finfo(cases.FP8[format]).max)
    for dtype in ("float32", "float16"):
        for shape, granularity in (
            (Shape(1, 63, 257), "row"),
            (Shape(33, 100, 100), "row"),
            (Shape(4, 7, 63), (2, 16)),
        ):
            x = cases.activations(shape, dtype)
            wide = x.astype(np.float32)
            scale = np.abs(wide).max(1, keepdims=True) / np.float32(largest)
            codes = np.rint(wide / scale) if format == "int8" else (wide / scale).astype(cases.FP8[format])
            weight, dense = made(shape, format, granularity)
            rounded = codes.astype(np.float64) * scale
            got = linear(x, weight, input_format=format, out_dtype="float32", backend=backend)
            check(got, rounded, dense)
            check(linear(x, weight, input_format=format, backend=backend), rounded, dense, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "gelu_tanh"])
def test_activations(activation, backend):
    for shape in (Shape(1, 257, 63), Shape(5, 100, 63), Shape(33, 7, 63)):
        x = cases.activations(shape, "float32")
        weight, dense = made(shape, "int8", "tensor")
        for size in (1e-2, 1):
            small = QuantizedTensor(weight.codes, np.float32(weight.scale * size), "tensor")
            bias = cases.bias(shape) / 10
            got = linear(x, small, bias, activation=activation, backend=backend)
            check(got, x, dense * (small.scale / np.float64(weight.scale)), bias, activation)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("m", [1, 3, 33])
def test_nan_and_inf_go_where_the_formula_takes_them(m, backend):
    shape = Shape(m, 40, 100)
    for format, dtype in (("e5m2", "float32"), ("int8", "bfloat16"), ("e4m3fn", "float16"), ("bfloat16", "bfloat16")):
        x, codes = cases.activations(shape, dtype), cases.codes(shape, format)
        codes[5] = 1
        codes[6, 7] = 0
        if m > 1:
            x[0, 7], x[1, 50] = np.inf, np.nan
        scale = np.ones((shape.n, 1), np.float32)
        if format != "int8":
            codes[11, 3] = np.nan
        if format == "e5m2":
            codes[12, 4] = -np.inf
        scale[13] = np.inf
        bias = cases.bias(shape)
        bias[14], bias[15] = np.nan, -np.inf
        with np.errstate(invalid="ignore"):
            dense = codes.astype(np.float64) * (1 if format == "bfloat16" else scale)
            expected = x.astype(np.float64) @ dense.T + bias
            weight = codes if format == "bfloat16" else QuantizedTensor(codes, scale, "row")
            got = linear(x, weight, bias, out_dtype="float32", backend=backend)
        assert np.isnan(expected).any() and np.isinf(expected).any() and np.isfinite(expected).any()
        rows = [n for n in range(shape.n) if n != 13]  # Inf times a sum is not the sum of Inf times its terms
        finite = np.isfinite(expected[:, rows])
        np.testing.assert_array_equal(np.where(finite, 0, expected[:, rows]), np.where(finite, 0, got[:, rows]))
        assert np.isfinite(got[:, rows][finite]).all()
        if format != "bfloat16":
            assert not np.isfinite(got[:, 13]).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_leading_axes_and_out(backend):
    shape = Shape(30, 63, 100)
    x = cases.activations(shape, "float32")
    weight, _ = made(shape, "int8", (16, 32))
    bias = cases.bias(shape)
    expected = linear(x, weight, bias, backend=backend)
    views = [x.reshape(2, 15, 100), x.reshape(5, 2, 3, 100), np.asfortranarray(x), np.repeat(x, 2, 0)[::2]]
    views += [x[::-1].copy()[::-1], np.repeat(x, 2, 1)[:, ::2], x.astype(">f4"), np.pad(x, ((0, 0), (3, 4)))[:, 3:-4]]
    views += [np.pad(x, ((0, 0), (0, 4)))[:, :-4].reshape(3, 10, 100)]
    for view in views:
        same_bits(linear(view, weight, bias, backend=backend).reshape(expected.shape), expected)
    wide = np.pad(weight.codes, ((0, 0), (5, 3)))
    for codes in (wide[:, 5:-3], np.asfortranarray(weight.codes), weight.codes[::-1].copy()[::-1]):
        other = QuantizedTensor(codes, np.asfortranarray(weight.scale), (16, 32))
        same_bits(linear(x, other, np.repeat(bias, 2)[::2], backend=backend), expected)
    one = linear(x[3], weight, bias, backend=backend)
    assert one.shape == (63,)
    for memory in (np.full((30, 63), np.nan, np.float32), np.full((63, 90), np.nan, np.float32).T[::3]):
        assert linear(x, weight, bias, out=memory, backend=backend) is memory
        same_bits(np.ascontiguousarray(memory), expected)
    half = np.full((2, 15, 63), np.nan, np.float16)
    linear(views[0], weight, bias, out_dtype=np.float16, out=half, backend=backend)
    same_bits(half, linear(views[0], weight, bias, out_dtype="float16", backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", cases.EMPTY, ids=str)
def test_empty(shape, backend):
    x, bias = cases.activations(shape, "float32"), cases.bias(shape)
    for format in ("int8", "e4m3fn"):
        for granularity in ("tensor", "row", "column", (16, 48)):
            for options in ({}, {"input_format": format}):
                weight, _ = made(shape, format, granularity)
                got = linear(x, weight, bias, activation="relu", **options, backend=backend)
                np.testing.assert_array_equal(got, np.broadcast_to(np.maximum(bias, 0), (shape.m, shape.n)))
    assert linear(np.ones((2, 0, shape.k), np.float32), weight, backend=backend).shape == (2, 0, shape.n)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 70), st.integers(1, 150), st.sampled_from(sorted(cases.FORMATS)), st.data())
def test_twice_the_scale_is_twice_the_product_and_rows_of_a_few_do_not_mix(m, n, k, format, data):
    shape = Shape(m, n, k)
    granularity = data.draw(st.sampled_from(["tensor", "row", (1, 32), (16, 48)]))
    x = cases.activations(shape, "float32")
    weight, _ = made(shape, format, granularity)
    got = linear(x, weight)
    twice = QuantizedTensor(weight.codes, np.float32(2) * weight.scale, granularity)
    same_bits(linear(x, twice), 2 * got)
    order = np.random.default_rng(k).permutation(m)
    if m <= 4:
        same_bits(linear(x[order], weight), got[order])
        same_bits(linear(x[:1], weight), got[:1])


def test_threads():
    """Neither how many there are, nor who else is at work."""
    code = """
        import hashlib, numpy as np
        from pykernels.kernels.linear import cases
        from pykernels.quant import QuantizedTensor, linear
        digest = hashlib.sha256()
        work = [(m, dtype, None) for m in (1, 2, 70) for dtype in ("float32", "bfloat16")]
        for m, dtype, asked in (*work, (70, "float32", "int8")):
            shape = cases.Shape(m, 700, 1037)
            weight = QuantizedTensor(cases.codes(shape, "int8"), cases.scales(shape, "int8", (1, 1037)), "row")
            y = linear(cases.activations(shape, dtype), weight, cases.bias(shape), input_format=asked)
            digest.update(y.tobytes())
        print(digest.hexdigest())
    """
    assert run(code, NUMBA_NUM_THREADS="1") == run(code, NUMBA_NUM_THREADS="2")
    shape = Shape(3, 257, 1025)
    weight, _ = made(shape, "e4m3fn")
    inputs = [cases.activations(shape, "float32", seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for together, x in zip(pool.map(lambda x: linear(x, weight), inputs), inputs, strict=True):
            same_bits(together, linear(x, weight))
