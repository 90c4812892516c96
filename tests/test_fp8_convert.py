"""encode, decode and amax against oracles that share no code with them."""

from __future__ import annotations

from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import as_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels import quant
from pykernels.kernels.fp8 import cases, reference
from pykernels.kernels.fp8.formats import FORMATS
from pykernels.quant.checks import checks

ORACLE = {name: np.dtype(getattr(ml_dtypes, f"float8_{name}")) for name in FORMATS}
MAX = {"e4m3fn": 448.0, "e5m2": 57344.0, "e4m3fnuz": 240.0, "e5m2fnuz": 57344.0}
ignore_casts = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def oracle(x, format, overflow):
    """Codes by ml_dtypes, which does not saturate, with the policy applied by hand; NaN is 255 here."""
    values = x.astype(np.float64)
    kind = x.dtype.type
    if overflow == "sat":
        values = np.clip(values, -MAX[format], MAX[format])
    elif overflow == "paper":
        values = np.where(np.isinf(values), values, np.clip(values, -MAX[format], MAX[format]))
    return nan_as_255(values.astype(kind).astype(ORACLE[format]))


def nan_as_255(codes):
    """Bytes with one code for all NaN: their payloads are each library's own choice."""
    return np.where(np.isnan(codes.astype(np.float32)), 255, codes.view(np.uint8))


@ignore_casts
@pytest.mark.parametrize("overflow", ["sat", "nonsat", "paper"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_encode_agrees_with_ml_dtypes(dtype, format, overflow):
    x = cases.every_pattern(dtype)
    np.testing.assert_array_equal(nan_as_255(quant.encode(x, format, overflow=overflow)), oracle(x, format, overflow))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rounding", ["nearest", "toward_zero"])
def test_encode_float64_agrees_with_exact_rationals(format, rounding):
    x = cases.boundaries(FORMATS[format])
    x = x[np.isfinite(x)]
    fmt = FORMATS[format]
    table = [Fraction(fmt.magnitude(code)) for code in range(fmt.max_code + 1)]

    def code(value):
        magnitude = min(abs(Fraction(value)), table[-1])
        above = bisect_left(table, magnitude)
        if table[above] != magnitude:
            below = above - 1
            twice = 2 * magnitude - table[below] - table[above]
            up = rounding == "nearest" and (twice > 0 or (twice == 0 and below % 2))
            above = below + bool(up)
        negative = np.signbit(value) and (above or fmt.negative_zero)
        return above | (0x80 if negative else 0)

    expected = np.array([code(float(value)) for value in x], np.uint8)
    np.testing.assert_array_equal(as_bytes(quant.encode(x, format, rounding=rounding)), expected)


@pytest.mark.parametrize(
    ("value", "format", "sat", "nonsat", "paper"),
    [
        (464.0, "e4m3fn", 0x7E, 0x7E, 0x7E),
        (np.nextafter(np.float32(464), np.float32(500)), "e4m3fn", 0x7E, 0x7F, 0x7E),
        (np.inf, "e4m3fn", 0x7E, 0x7F, 0x7F),
        (-np.inf, "e4m3fn", 0xFE, 0xFF, 0xFF),
        (61440.0, "e5m2", 0x7B, 0x7C, 0x7B),
        (np.nextafter(np.float32(61440), np.float32(0)), "e5m2", 0x7B, 0x7B, 0x7B),
        (-np.inf, "e5m2", 0xFB, 0xFC, 0xFC),
        (np.inf, "e4m3fnuz", 0x7F, 0x80, 0x80),
        (-1e9, "e5m2fnuz", 0xFF, 0x80, 0xFF),
        (np.nan, "e4m3fn", 0x7F, 0x7F, 0x7F),
        (np.nan, "e5m2fnuz", 0x80, 0x80, 0x80),
        (-0.0, "e4m3fn", 0x80, 0x80, 0x80),
        (-0.0, "e4m3fnuz", 0x00, 0x00, 0x00),
        (2.0**-10, "e4m3fn", 0x00, 0x00, 0x00),
        (np.nextafter(np.float32(2.0**-10), np.float32(1)), "e4m3fn", 0x01, 0x01, 0x01),
        (3 * 2.0**-10, "e4m3fn", 0x02, 0x02, 0x02),
        (-1e-40, "e5m2", 0x80, 0x80, 0x80),
    ],
)
def test_encode_boundary(value, format, sat, nonsat, paper):
    x = np.float32([value])
    for overflow, expected in (("sat", sat), ("nonsat", nonsat), ("paper", paper)):
        assert as_bytes(quant.encode(x, format, overflow=overflow))[0] == expected, overflow


def test_table_1_of_the_paper():
    """Maxima, minima and the seven magnitudes that E4M3 gains over an IEEE layout (section 3.1)."""
    e4m3, e5m2 = (quant.decode(np.arange(256, dtype=np.uint8), format=f) for f in ("e4m3fn", "e5m2"))
    assert np.nanmax(e4m3) == 448 and e4m3[0x08] == 2.0**-6 and e4m3[0x07] == 0.875 * 2.0**-6
    assert e5m2[0x7B] == 57344 and e5m2[0x04] == 2.0**-14 and e5m2[0x03] == 0.75 * 2.0**-14
    assert list(e4m3[0x78:0x7F]) == [256, 288, 320, 352, 384, 416, 448]
    assert np.isnan(e4m3[[0x7F, 0xFF]]).all() and np.isinf(e5m2[[0x7C, 0xFC]]).all()
    assert np.isnan(e5m2[[0x7D, 0x7E, 0x7F]]).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_decode_agrees_with_ml_dtypes(format, dtype):
    codes = np.arange(256, dtype=np.uint8)
    expected = codes.view(ORACLE[format]).astype(np.float64)
    decoded = quant.decode(codes.view(ORACLE[format]), dtype)
    assert decoded.dtype == cases.DTYPES[dtype]
    np.testing.assert_array_equal(decoded.astype(np.float64), expected)
    np.testing.assert_array_equal(
        np.signbit(decoded.astype(np.float64))[expected == 0], np.signbit(expected[expected == 0])
    )


def test_e5m2_is_the_upper_byte_of_float16():
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        quant.decode(codes, "float16", format="e5m2"), (codes.astype(np.uint16) << 8).view(np.float16)
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rounding", ["nearest", "toward_zero", "stochastic"])
def test_codes_survive_a_round_trip(format, rounding):
    """Exact values stay exact under every rounding, and codes order as their magnitudes do."""
    codes = np.arange(256, dtype=np.uint8)
    values = quant.decode(codes, format=format)
    kept = ~np.isnan(values)
    seed = {"seed": 3} if rounding == "stochastic" else {}
    again = quant.encode(values, format, overflow="nonsat", rounding=rounding, **seed)
    np.testing.assert_array_equal(as_bytes(again)[kept], codes[kept])
    assert (np.diff(values[: FORMATS[format].max_code + 1]) > 0).all()


def test_every_backend_agrees_with_the_reference(backend):
    failed = []
    compared = 0
    for check in checks(False, [backend]):
        if check.operation != "quantize":
            n, mismatches = check.run()
            compared += n
            failed += [(check.case, mismatches)] * bool(mismatches)
    assert not failed
    assert compared > 10_000_000


@pytest.mark.exhaustive
def test_every_float32(backend):
    failed = [c.case for c in checks(True, [backend]) if c.case.startswith("all 2**32") and c.run()[1]]
    assert not failed


def test_philox_known_answers():
    """Random123's published vectors for Philox4x32-10."""
    assert [reference.philox(0, i) for i in range(4)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("format", FORMATS)
def test_stochastic_rounding_is_unbiased(format):
    """The mean of many draws lies within five standard errors of the value, in normals and subnormals."""
    fmt = FORMATS[format]
    rng = np.random.default_rng(0)
    values = np.float32(np.concatenate([rng.uniform(0, fmt.max, 20), rng.uniform(0, 2.0 ** (1 - fmt.bias), 20)]))
    draws = 4096
    x = np.repeat(values, draws).reshape(len(values), draws)
    rounded = quant.decode(quant.encode(x, format, rounding="stochastic", seed=11), "float64")
    table = np.array([fmt.magnitude(code) for code in range(fmt.max_code + 1)])
    gap = table[np.searchsorted(table, values)] - table[np.searchsorted(table, values, side="right") - 1]
    assert (np.abs(rounded.mean(1) - values) <= 5 * gap / 2 / np.sqrt(draws) + 1e-12).all()
    assert (np.abs(rounded - values[:, None]) <= gap[:, None]).all()


def test_stochastic_rounding_depends_on_seed_and_position_alone():
    x = np.random.default_rng(0).standard_normal((100, 1003)).astype(np.float32)

    def codes(x, seed=7):
        return as_bytes(quant.encode(x, "e4m3fn", rounding="stochastic", seed=seed))

    whole = codes(x)
    np.testing.assert_array_equal(whole.ravel()[:777], codes(x.ravel()[:777]))
    np.testing.assert_array_equal(whole, codes(np.asfortranarray(x)))
    assert (whole != codes(x, 8)).any() and (whole != codes(x, 7 + (1 << 32))).any()


def test_stochastic_rounding_cuts_float64_to_24_bits(backend):
    """Values a quarter of a float32 step below the one that this element's word would round up."""
    words = np.array([reference.philox(5, i) for i in range(2000)])
    steps = 2**20 - (words >> 12)
    x = 1 + (steps - 0.25) * 2.0**-23
    if backend == "gpu":
        torch = pytest.importorskip("torch")
        codes = quant.encode(torch.from_numpy(x), "e4m3fn", rounding="stochastic", seed=5, backend="gpu")
    else:
        codes = quant.encode(x, "e4m3fn", rounding="stochastic", seed=5)
    assert (as_bytes(codes) == 0x38).all()
    assert (as_bytes(quant.encode(1 + steps * 2.0**-23, "e4m3fn", rounding="stochastic", seed=5)) == 0x39).all()


@pytest.mark.parametrize("overflow", ["sat", "paper"])
def test_stochastic_rounding_never_makes_nan_of_a_finite_value(overflow):
    x = np.float32([448, np.nextafter(np.float32(448), np.float32(1e9)), 470, 3e38]).repeat(1000)
    assert (as_bytes(quant.encode(x, "e4m3fn", overflow=overflow, rounding="stochastic", seed=1)) == 0x7E).all()


VIEWS = {
    "transposed": lambda x: x.T,
    "reversed": lambda x: x[::-1, ::-1],
    "strided": lambda x: x[::2, 1::3],
    "permuted": lambda x: x.reshape(4, -1, 5).transpose(2, 0, 1),
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "scalar": lambda x: x[0, 0],
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("view", VIEWS)
def test_any_strides(view):
    x = VIEWS[view](cases.mixed((60, 35), "float32"))
    codes = quant.encode(x, "e4m3fn")
    assert codes.shape == x.shape
    np.testing.assert_array_equal(
        as_bytes(codes), as_bytes(quant.encode(np.ascontiguousarray(x), "e4m3fn")).reshape(x.shape)
    )
    np.testing.assert_array_equal(quant.decode(codes), codes.astype(np.float32))
    for axis in (None, *range(np.ndim(x))):
        expected = np.max(np.abs(np.asarray(x)), axis, initial=0)
        np.testing.assert_array_equal(quant.amax(x, axis), expected)


@pytest.mark.parametrize("shape", cases.SHAPES)
def test_out_is_filled_whole(shape):
    x = cases.mixed(shape, "bfloat16")
    out = np.full(shape, 0x7F, np.uint8).view(ORACLE["e4m3fn"])
    assert quant.encode(x, "e4m3fn", out=out) is out
    np.testing.assert_array_equal(as_bytes(out), as_bytes(quant.encode(x, "e4m3fn")))
    values = np.full(shape, np.nan, np.float32)
    assert quant.decode(out, out=values) is values
    np.testing.assert_array_equal(values, quant.decode(out))
    wide = np.full((*shape[:-1], 2 * shape[-1]), np.nan, np.float64)[..., ::2] if shape else np.empty((), np.float64)
    np.testing.assert_array_equal(quant.decode(out, out=wide), quant.decode(out, "float64"))


def test_other_byte_order_and_lists():
    x = cases.mixed((5, 7), "float32")
    swapped = x.astype(x.dtype.newbyteorder())
    np.testing.assert_array_equal(as_bytes(quant.encode(swapped, "e5m2")), as_bytes(quant.encode(x, "e5m2")))
    assert as_bytes(quant.encode([1.0, -2.0], "e4m3fn")).tolist() == [0x38, 0xC0]


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_amax_propagates_inf_and_nan(dtype):
    x = np.ones((3, 1025), cases.DTYPES[dtype])
    x[0, 7], x[1, 8], x[1, 9] = -np.inf, np.inf, np.nan
    np.testing.assert_array_equal(quant.amax(x, 1).astype(np.float64), [np.inf, np.nan, 1])
    assert quant.amax(x, 1, keepdims=True).shape == (3, 1) and quant.amax(x, keepdims=True).shape == (1, 1)
    assert np.isnan(float(quant.amax(x))) and quant.amax(x).dtype == x.dtype
    assert float(quant.amax(x[:0])) == 0 and quant.amax(x[:, :0], 1).tolist() == [0, 0, 0]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(width=32), min_size=1, max_size=70), st.sampled_from(list(FORMATS)))
def test_encode_is_monotonic_and_odd(values, format):
    x = np.sort(np.float32([v for v in values if v == v] or [0.0]))
    decoded = quant.decode(quant.encode(x, format))
    assert (np.diff(decoded) >= 0).all()
    np.testing.assert_array_equal(quant.decode(quant.encode(-x, format)), -decoded)


def test_threads_may_call_at_once():
    x = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    alone = as_bytes(quant.encode(x, "e4m3fn"))
    with ThreadPoolExecutor(4) as pool:
        for codes in pool.map(lambda _: as_bytes(quant.encode(x, "e4m3fn")), range(32)):
            np.testing.assert_array_equal(codes, alone)
