"""quantize, its way back, its layouts, and what is composed of it."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import as_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels import quant
from pykernels.kernels.fp8 import cases
from pykernels.kernels.fp8.formats import FORMATS, SCALED_FORMATS
from pykernels.quant.checks import checks

GRANULARITIES = ("tensor", "row", "column", "mx", (1, 128), (128, 128), (2, 3))


def test_every_backend_agrees_with_the_reference(backend):
    failed = []
    compared = 0
    for index, check in enumerate(c for c in checks(False, [backend]) if c.operation == "quantize"):
        if backend == "gpu" and index % 4:  # the interpreter is slow; `pykernels check` runs them all
            continue
        n, mismatches = check.run()
        compared += n
        failed += [(check.case, mismatches)] * bool(mismatches)
    assert not failed
    assert compared > 1_000_000


def blocks_of(shape, granularity):
    """Index tuples of the blocks of a 2-D array, in the order of the scales, by plain loops."""
    m, n = shape
    bm, bn = {"tensor": (m, n), "row": (1, n), "column": (m, 1), "mx": (1, 32)}.get(granularity, granularity)
    for top in range(0, m, bm):
        for left in range(0, n, bn):
            yield slice(top, top + bm), slice(left, left + bn)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("format", ["e4m3fn", "e5m2"])
def test_scales_and_codes_by_brute_force(format, granularity):
    """fp32 scales are the float32 nearest to amax / fmax; codes are ml_dtypes' of the float32 quotient."""
    x = cases.mixed((130, 67), "float32")
    x = np.where(np.isfinite(x), x, 1)
    q = quant.quantize(x, format, granularity=granularity, scale_format=None)
    scales = np.atleast_1d(q.scale.astype(np.float64)).ravel()
    fmax = FORMATS[format].max
    for block, scale in zip(blocks_of(x.shape, granularity), scales, strict=True):
        amax = float(np.abs(x[block]).max())
        if granularity == "mx":
            expected = 2.0 ** (math.floor(math.log2(amax)) - FORMATS[format].emax) if amax else 1.0
        else:
            expected = float(np.float32(Fraction(amax) / Fraction(fmax))) if amax else 1.0
        assert scale == expected
        quotient = np.clip(x[block] / np.float32(scale), -fmax, fmax)
        np.testing.assert_array_equal(
            as_bytes(q.codes[block]), as_bytes(quotient.astype(getattr(ml_dtypes, f"float8_{format}")))
        )


@pytest.mark.parametrize("rounding", ["floor", "ceil", "even"])
@pytest.mark.parametrize("format", SCALED_FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_power_of_two_scales_at_and_just_below_every_power(dtype, format, rounding):
    """The trap of computing log2 in floating point: amax = 2**k and its neighbours, in exact rationals."""
    fmt, kind = SCALED_FORMATS[format], cases.DTYPES[dtype]
    powers = (2.0 ** np.arange(-140, 120)).astype(kind)
    tops = np.concatenate([powers, np.nextafter(powers, kind.type(0)), (powers.astype(np.float64) * 1.75).astype(kind)])
    tops = np.concatenate([tops, np.nextafter(tops, kind.type(1e38))])
    tops = tops[tops != 0]
    x = np.zeros((tops.size, 32), kind)
    x[:, 5] = -tops
    q = quant.quantize(x, format, granularity="mx", scale_rounding=rounding)
    for top, scale in zip(tops.astype(np.float64), q.scale.astype(np.float64)[:, 0], strict=True):
        exact = Fraction(top)
        exponent = math.frexp(top)[1] - 1
        if rounding == "ceil":
            k = next(k for k in range(exponent - 20, exponent + 2) if Fraction(2) ** k * Fraction(fmt.max) >= exact)
        else:
            units = exact / Fraction(2) ** (exponent - fmt.mantissa_bits)
            k = exponent - fmt.emax + (rounding == "even" and round(units) == 2 ** (fmt.mantissa_bits + 1))
        assert scale == 2.0 ** max(k, -127)


def test_blocks_without_finite_values_and_zero_blocks():
    x = np.zeros((5, 64), np.float32)
    x[1] = np.nan
    x[2] = np.inf
    x[3, :3] = np.nan, -np.inf, 0.5
    x[4] = 1e-44
    for scale_format in ("fp32", "e8m0"):
        q = quant.quantize(x, "e4m3fn", granularity="row", scale_format=scale_format)
        back = q.dequantize()
        scale = q.scale.astype(np.float32).ravel()
        assert scale[0] == scale[1] == scale[2] == 1
        assert (back[0] == 0).all() and np.isnan(back[1]).all() and (back[2] == 448).all()
        assert np.isnan(back[3, 0]) and back[3, 2] == 0.5 and back[3, 1] == -448 * scale[3]
        assert scale[4] == (2.0**-126 if scale_format == "fp32" else 2.0**-127)
        assert (back[4] <= 1e-44).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_fused_equals_separate_and_given_equals_computed(dtype, granularity):
    x = cases.mixed((131, 260), dtype)
    q = quant.quantize(x, "e5m2", granularity=granularity)
    fused = quant.quantize_dequantize(x, "e5m2", granularity=granularity)
    assert fused.dtype == x.dtype
    np.testing.assert_array_equal(fused.astype(np.float64), q.dequantize(dtype).astype(np.float64))
    options = {"granularity": granularity, "scale": q.scale}
    again = quant.quantize(x, "e5m2", **options)
    np.testing.assert_array_equal(as_bytes(again.codes), as_bytes(q.codes))
    np.testing.assert_array_equal(
        quant.quantize_dequantize(x, "e5m2", **options).astype(np.float64), fused.astype(np.float64)
    )


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["row", "column", "mx", (1, 5), (4, 1), (16, 16)]),
    st.integers(0, 1 << 32),
)
def test_error_is_at_most_half_a_step(m, n, granularity, seed):
    """|x - dequantized| <= half the spacing at x, or half the smallest step, times the scale."""
    x = np.random.default_rng(seed).standard_normal((m, n)).astype(np.float32)
    q = quant.quantize(x, "e4m3fn", granularity=granularity, scale_rounding="ceil")
    ones = quant.QuantizedTensor(np.full(x.shape, 0x38, np.uint8).view(q.codes.dtype), q.scale, granularity, -1)
    scale = ones.dequantize("float64")
    bound = np.maximum(np.abs(x.astype(np.float64)) * 2.0**-4, scale * 2.0**-10)
    assert (np.abs(q.dequantize("float64") - x) <= bound * (1 + 2.0**-22)).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_axis_is_a_transposition(granularity):
    x = cases.mixed((70, 130), "float32")
    a = quant.quantize(x, "e4m3fn", granularity=granularity, axis=0)
    b = quant.quantize(x.T, "e4m3fn", granularity=granularity, axis=1)
    np.testing.assert_array_equal(as_bytes(a.codes), as_bytes(b.codes).T)
    np.testing.assert_array_equal(a.scale.astype(np.float32), b.scale.astype(np.float32).T)


@pytest.mark.parametrize(
    ("granularity", "axis", "shape"),
    [
        ("tensor", -1, ()),
        ("row", -1, (2, 5, 70, 1)),
        ("row", 1, (2, 1, 70, 130)),
        ("column", -1, (2, 5, 1, 130)),
        ("column", -2, (2, 5, 70, 1)),
        ("mx", -1, (2, 5, 70, 5)),
        ("mx", 0, (1, 5, 70, 130)),
        ((1, 128), -2, (2, 5, 1, 130)),
        ((128, 32), -1, (2, 5, 1, 5)),
        ((32, 64), -2, (2, 5, 2, 5)),
    ],
)
def test_scale_shapes(granularity, axis, shape):
    x = cases.mixed((2, 5, 70, 130), "bfloat16")
    q = quant.quantize(x, "e4m3fn", granularity=granularity, axis=axis)
    assert q.scale.shape == shape and q.shape == x.shape
    merged = quant.quantize(x[1, 3], "e4m3fn", granularity=granularity, axis=axis) if axis in (-1, -2) else None
    if merged is not None and shape:
        np.testing.assert_array_equal(as_bytes(q.codes[1, 3]), as_bytes(merged.codes))


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [
        ((1500, 1100), "column"),
        ((2500, 700), (1500, 3)),
        ((2, 1300, 1024), (1300, 64)),
        ((400, 1500), (128, 128)),
        ((3, (1 << 20) + 1), "row"),
        ((1 << 20, 2), "tensor"),
        ((1, 700_001), (1, 100_000)),
    ],
)
def test_large_blocks_and_tall_stripes(shape, granularity):
    """The launch strategies that only large arrays reach."""
    x = cases.mixed(shape, "float32")
    options = {"granularity": granularity}
    q, expected = (quant.quantize(x, "e4m3fn", **options, backend=b) for b in ("cpu", "reference"))
    np.testing.assert_array_equal(q.scale, expected.scale)
    np.testing.assert_array_equal(as_bytes(q.codes), as_bytes(expected.codes))
    given = quant.quantize(x, "e4m3fn", **options, scale=q.scale)
    np.testing.assert_array_equal(as_bytes(given.codes), as_bytes(expected.codes))
    np.testing.assert_array_equal(q.dequantize(), expected.dequantize(backend="reference"))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_empty(shape):
    for granularity in ("tensor", "row", "mx", (1, 4)):
        q = quant.quantize(np.empty(shape, np.float32), "e4m3fn", granularity=granularity)
        assert q.shape == shape and q.dequantize().shape == shape
        assert (q.scale.astype(np.float32) == 1).all()


def test_out_is_overwritten():
    x = cases.mixed((40, 70), "float32")
    q = quant.quantize(np.ones_like(x), "e4m3fn", granularity=(1, 32))
    assert quant.quantize(x, "e4m3fn", granularity=(1, 32), out=q) is q
    fresh = quant.quantize(x, "e4m3fn", granularity=(1, 32))
    np.testing.assert_array_equal(as_bytes(q.codes), as_bytes(fresh.codes))
    np.testing.assert_array_equal(q.scale, fresh.scale)
    out = np.full(x.shape, np.nan, np.float32)
    assert q.dequantize(out=out) is out
    np.testing.assert_array_equal(out, fresh.dequantize())
    strided = np.full((40, 140), np.nan, np.float32)[:, ::2]
    quant.quantize_dequantize(x, "e4m3fn", granularity=(1, 32), out=strided)
    np.testing.assert_array_equal(strided, out)


def test_stochastic_quantization_counts_in_c_order():
    x = np.random.default_rng(0).standard_normal((50, 90)).astype(np.float32)
    q = quant.quantize(x, "e4m3fn", granularity="row", rounding="stochastic", seed=9)
    direct = quant.encode(x / q.scale, "e4m3fn", rounding="stochastic", seed=9)
    np.testing.assert_array_equal(as_bytes(q.codes), as_bytes(direct))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_scaled_matmul(granularity):
    rng = np.random.default_rng(0)
    a = quant.quantize(rng.standard_normal((3, 33, 140)).astype(np.float32), "e4m3fn", granularity=granularity)
    b = quant.quantize(rng.standard_normal((140, 50)).astype(np.float32), "e5m2", granularity="column")
    exact = a.dequantize("float64") @ b.dequantize("float64")
    bound = 140 * 2.0**-24 * (np.abs(a.dequantize("float64")) @ np.abs(b.dequantize("float64")))
    product = quant.scaled_matmul(a, b)
    assert product.dtype == np.float32 and (np.abs(product - exact) <= 4 * bound).all()
    np.testing.assert_allclose(quant.scaled_matmul(a, b, "float64"), exact, rtol=1e-12, atol=1e-12)
    assert quant.scaled_matmul(a, b, "bfloat16").dtype == ml_dtypes.bfloat16


def test_scaled_matmul_of_small_integers_is_exact():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-8, 9, (17, 90)), rng.integers(-8, 9, (90, 21))
    qa, qb = (quant.quantize(np.float32(m), "e4m3fn", scale=1.0) for m in (a, b))
    np.testing.assert_array_equal(quant.scaled_matmul(qa, qb), a @ b)


def test_delayed_scaling_by_hand():
    """Transformer Engine's rules: scale from the history before it turns; slot 0 is staging and is cleared."""
    scaling = quant.DelayedScaling(history=3, margin=1, format="e4m3fn")
    assert scaling.scale == 1
    scaling.record(np.float32([448.0]))
    scaling.record(np.float32([-896.0, 3]))
    scaling.update()
    assert scaling.scale == 4 and scaling.history.tolist() == [0, 0, 896]
    scaling.quantize(np.float32([224.0]))
    scaling.update()
    assert scaling.scale == 4 and scaling.history.tolist() == [0, 896, 224]
    scaling.update()
    assert scaling.scale == 4 and scaling.history.tolist() == [0, 224, 0]
    scaling.update()
    assert scaling.scale == 1 and scaling.history.tolist() == [0, 0, 0]
    scaling.update()
    assert scaling.scale == 1
    for bad in (np.inf, np.nan):
        scaling.record(np.float32([bad]))
        scaling.update()
        assert scaling.scale == 1
    recent = quant.DelayedScaling(4, format="e5m2", algorithm="most_recent")
    for amax, expected in ((57344 * 2, 2), (57344, 1)):
        recent.record(np.float64([amax]))
        recent.update()
        assert recent.scale == expected
    other = quant.DelayedScaling(1)
    other.load_state_dict(scaling.state_dict())
    assert other.history.shape == (3,) and np.isnan(other.history).sum() == np.isnan(scaling.history).sum()
