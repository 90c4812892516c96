"""int8 as a format of quantize: against its formula in plain NumPy, torch's own quantizer, and cases by hand."""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from conftest import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels import quant
from pykernels.kernels.fp8 import cases
from pykernels.kernels.fp8.reference import philox

GRANULARITIES = ("tensor", "row", "column", (1, 64), (3, 50))


def blocks(shape, granularity):
    """Index tuples of the blocks of a matrix, in the order of their scales."""
    m, n = shape
    bm, bn = {"tensor": (m, n), "row": (1, n), "column": (m, 1), "mx": (1, 32)}.get(granularity, granularity)
    for top, left in itertools.product(range(0, m, bm), range(0, n, bn)):
        yield slice(top, top + bm), slice(left, left + bn)


def formula(x, granularity):
    """Codes and float32 scales of a finite matrix."""
    wide = np.float64 if x.dtype == np.float64 else np.float32
    codes, scales = np.empty(x.shape, np.int8), []
    for block in blocks(x.shape, granularity):
        amax = np.abs(x[block].astype(np.float64)).max()
        scales.append(np.float32(np.clip(amax / 127, 2.0**-126, 3.4e38)) if amax else np.float32(1))
        codes[block] = np.clip(np.rint(x[block].astype(wide) / wide(scales[-1])), -127, 127)
    return codes, np.array(scales)


def on(backend, x):
    return pytest.importorskip("torch").from_numpy(x) if backend == "gpu" else x


BACKENDS = [*((dtype, "reference") for dtype in cases.DTYPES), ("float32", "cpu")]
"""The checks of `pykernels check`, of which tests/test_fp8_quantize.py runs all, compare the others."""


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("dtype", "backend"), BACKENDS)
def test_codes_and_scales_are_those_of_the_formula(dtype, backend, granularity):
    x = cases.mixed((130, 130), dtype)
    x = np.where(np.isfinite(x), x, 1).astype(x.dtype)
    codes, scales = formula(x, granularity)
    q = quant.quantize(x, "int8", granularity=granularity, backend=backend)
    assert (q.format, q.codes.dtype, q.scale.dtype) == ("int8", np.int8, np.float32)
    np.testing.assert_array_equal(q.scale.ravel(), scales)
    np.testing.assert_array_equal(q.codes, codes)
    back = np.empty(x.shape)
    for block, scale in zip(blocks(x.shape, granularity), scales, strict=True):
        back[block] = codes[block] * np.float64(scale)
    np.testing.assert_array_equal(q.dequantize("float64", backend=backend), back)
    fused = quant.quantize_dequantize(x, "int8", granularity=granularity, backend=backend)
    np.testing.assert_array_equal(fused, (back if dtype == "float64" else back.astype(np.float32)).astype(x.dtype))
    assert not np.signbit(fused[codes == 0]).any()


@pytest.mark.parametrize("granularity", ["row", (3, 50)])
def test_every_backend(backend, granularity):
    x = np.nan_to_num(cases.mixed((7, 130), "float32"), nan=1, posinf=1, neginf=1)
    codes, scales = formula(x, granularity)
    q = quant.quantize(on(backend, x), "int8", granularity=granularity, backend=backend)
    np.testing.assert_array_equal(np.asarray(q.codes), codes)
    np.testing.assert_array_equal(np.asarray(q.scale).ravel(), scales)
    extreme = np.array([[-128, -127, -1, 0, 127]], np.int8)
    full = quant.QuantizedTensor(on(backend, extreme), on(backend, np.float32([[0.5]])), "row")
    np.testing.assert_array_equal(np.asarray(full.dequantize(backend=backend)), [[-64, -63.5, -0.5, 0, 63.5]])


@pytest.mark.parametrize(("dtype", "backend"), BACKENDS)
def test_ties_go_to_even_and_the_ends_saturate(dtype, backend):
    kind = cases.DTYPES[dtype]
    ties = np.arange(-130.5, 131).astype(kind)
    ties = ties[np.abs(ties.astype(np.float64)) % 1 == 0.5]  # bfloat16 has no halves past 64
    x = np.concatenate([ties, np.nextafter(ties, kind.type(0)), np.nextafter(ties, kind.type(np.inf))])
    expected = np.clip([round(float(value)) for value in x], -127, 127)
    for scale in (1.0, 2.0**-10, 2.0**8):
        q = quant.quantize((x.astype(np.float64) * scale).astype(kind), "int8", scale=scale, backend=backend)
        np.testing.assert_array_equal(q.codes, expected)


def test_float64_is_rounded_once():
    """A quotient that float32 would round to a tie."""
    x = np.array([2.5 + 1e-12, 2.5 - 1e-12, -3.5 + 1e-12, 1e300, -1e-300])
    assert quant.quantize(x, "int8", scale=1.0).codes.tolist() == [3, 2, -3, 127, 0]


def test_agrees_with_torch_per_channel():
    torch = pytest.importorskip("torch")
    x = torch.randn(20, 70, generator=torch.Generator().manual_seed(0)) * 40
    scale = 2.0 ** torch.arange(-3, 17)[:, None] / 64
    zeros = torch.zeros(20, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(x, scale[:, 0], zeros, 0, -127, 127)
    q = quant.quantize(x, "int8", granularity="row", scale=scale)
    assert torch.equal(q.codes, (theirs / scale).to(torch.int8))
    assert torch.equal(q.dequantize(), theirs)
    assert torch.equal(quant.quantize_dequantize(x, "int8", granularity="row", scale=scale), theirs)


@pytest.mark.parametrize("scale_format", ["fp32", "e8m0"])
def test_special_values(backend, scale_format):
    """A row each of zeros, NaN, Inf, both, Inf beside numbers, NaN beside numbers, subnormal numbers."""
    x = np.zeros((7, 64), np.float32)
    x[1], x[2], x[3, 3:5] = np.nan, -np.inf, (np.nan, np.inf)
    x[4, :3] = np.inf, -np.inf, 127
    x[5, 0], x[5, 5] = 127, -np.nan
    x[6, ::2] = 1e-44
    options = {"granularity": "row", "scale_format": scale_format, "backend": backend}
    q = quant.quantize(on(backend, x), "int8", **options)
    codes, back = np.asarray(q.codes), np.asarray(q.dequantize())
    scale = np.asarray(q.scale.float() if backend == "gpu" else q.scale.astype(np.float32)).ravel()
    tiny = 2.0**-126 if scale_format == "fp32" else 2.0**-127
    np.testing.assert_array_equal(scale, [1, np.nan, 1, np.nan, 1, np.nan, tiny])
    expected = np.zeros(x.shape)
    expected[2], expected[4, :3] = -127, (127, -127, 127)
    np.testing.assert_array_equal(codes, expected)
    expected[[1, 3, 5]] = np.nan
    np.testing.assert_array_equal(back, expected)
    fused = quant.quantize_dequantize(on(backend, x), "int8", **options)
    np.testing.assert_array_equal(np.asarray(fused), expected)
    given = quant.quantize(on(backend, x), "int8", scale=0.5, backend=backend)
    assert np.asarray(given.codes)[[1, 3, 4, 5], [0, 4, 1, 0]].tolist() == [0, 127, -127, 127]


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [
        ((40, 70), "column"),
        ((40, 96), (5, 32)),
        pytest.param((1500, 700), "column", marks=pytest.mark.exhaustive),
        ((1, 1_100_001), (1, 600_000)),
        ((3, 5), "tensor"),
    ],
)
def test_nan_reaches_its_own_block_alone_and_inf_none(shape, granularity):
    """Through every way of the CPU kernels to a maximum: by columns, by stripes, by blocks, by all threads."""
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    _, scales = formula(x, granularity)
    x[0, 0], x[-1, -1] = np.nan, -np.inf
    finite = np.where(np.isfinite(x), x, 0)
    _, without = formula(finite, granularity)
    q = quant.quantize(x, "int8", granularity=granularity)
    without[0] = np.nan
    np.testing.assert_array_equal(q.scale.ravel(), without)
    first = next(blocks(shape, granularity))
    assert (q.codes[first] == 0).all() and np.isnan(q.dequantize()[first]).all()
    assert np.isnan(q.scale).sum() == 1 and (q.codes[-1, -1] == -127 or len(scales) == 1)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["tensor", "row", "column", "mx", (1, 5), (16, 16)]),
    st.integers(0, 1 << 32),
)
def test_error_is_at_most_half_a_scale(m, n, granularity, seed):
    """But for the rounding of the quotient to float32, of at most half a unit of 127."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((m, n)) * 2.0 ** rng.integers(-100, 100)).astype(np.float32)
    q = quant.quantize(x, "int8", granularity=granularity, scale_rounding="ceil")
    ones = quant.QuantizedTensor(np.ones((m, n), np.int8), q.scale, granularity)
    bound = ones.dequantize("float64") * (0.5 + 127 * 2.0**-24)
    assert (np.abs(q.dequantize("float64") - x) <= bound).all()
    assert q.codes.min() >= -127


def test_toward_zero_and_stochastic():
    x = np.random.default_rng(0).uniform(-130, 130, (9, 31)).astype(np.float32)
    x[0, :4] = np.nan, np.inf, -0.25, 5
    finite = np.clip(np.nan_to_num(x, nan=0, posinf=200), -127, 127).astype(np.float64)
    q = quant.quantize(x, "int8", scale=1.0, rounding="toward_zero")
    np.testing.assert_array_equal(q.codes, np.trunc(finite))
    q = quant.quantize(x, "int8", scale=1.0, rounding="stochastic", seed=3)
    for i, value in enumerate(finite.flat):
        low = math.floor(abs(value))
        up = math.floor((abs(value) - low) * 2**31) + (philox(3, i) >> 1) >= 2**31
        assert q.codes.flat[i] == math.copysign(low + up, value)


@pytest.mark.parametrize("view", ["T", "reversed", "strided", "swapped"])
def test_any_strides_and_out(view):
    x = cases.mixed((60, 35), "float32")
    x = {"T": x.T, "reversed": x[::-1, ::-1], "strided": x[::2, 1::3], "swapped": x.astype(">f4")}[view]
    q = quant.quantize(x, "int8", granularity="row", axis=0)
    expected = quant.quantize(np.ascontiguousarray(x.T, np.float32), "int8", granularity="row")
    np.testing.assert_array_equal(q.codes, expected.codes.T)
    wide = np.full((x.shape[0], 2 * x.shape[1]), 99, np.int8)[:, ::2]
    out = quant.QuantizedTensor(wide, np.full_like(q.scale, np.nan), "row", 0)
    assert quant.quantize(x, "int8", granularity="row", axis=0, out=out) is out
    np.testing.assert_array_equal(out.codes, q.codes)
    np.testing.assert_array_equal(out.scale, q.scale)
    values = np.full(x.shape, 7, ml_dtypes.bfloat16)
    assert q.dequantize(out=values) is values
    np.testing.assert_array_equal(values.astype("f4"), q.dequantize("bfloat16").astype("f4"))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_empty(shape):
    for granularity in ("tensor", "row", "mx", (1, 4)):
        q = quant.quantize(np.empty(shape, np.float32), "int8", granularity=granularity)
        assert q.codes.shape == shape and q.dequantize().shape == shape and (q.scale.astype(np.float32) == 1).all()


def test_scaled_matmul_of_integers_is_exact():
    a, b = np.random.default_rng(0).integers(-127, 128, (2, 40, 40))
    qa, qb = (quant.quantize(m.astype(np.float32), "int8", scale=1.0) for m in (a, b))
    np.testing.assert_array_equal(quant.scaled_matmul(qa, qb), a @ b)


X = np.ones((4, 6), np.float32)
BAD = {
    "nonsat": (
        ValueError,
        "overflow='nonsat' with format='int8'",
        lambda: quant.quantize(X, "int8", overflow="nonsat"),
    ),
    "paper": (ValueError, "expected 'sat'", lambda: quant.quantize_dequantize(X, "int8", overflow="paper")),
    "format": (ValueError, "e5m2fnuz, int8", lambda: quant.quantize(X, "int4")),
    "encode": (ValueError, "format='int8': expected one of e4m3fn", lambda: quant.encode(X, "int8")),
    "decode": (TypeError, "codes has dtype int8", lambda: quant.decode(X.astype(np.int8))),
    "axis": (
        ValueError,
        "axis=1.0",
        lambda: [quant.quantize(X, "int8", granularity="row", axis=axis) for axis in (1, 1.0)],
    ),
    "scale": (ValueError, "scale contains nan", lambda: quant.quantize(X, "int8", scale=np.nan)),
    "out": (TypeError, "out.codes has dtype", lambda: quant.quantize(X, "int8", out=quant.quantize(X, "e4m3fn"))),
    "input": (TypeError, "x has dtype int8", lambda: quant.quantize(X.astype(np.int8), "int8")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    refused(*BAD[name])
