"""What a quantized cache keeps, against another way of rounding and stated bounds; numbers that are not finite."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from kv_cache_model import KINDS, build, of_kind

DTYPES = ("int8", "float8_e4m3fn")


def kept(x, dtype, kind="numpy"):
    """What a cache gives back of `x` (n, Hkv, T, D)."""
    cache = build(kind, "paged", 100, 4, x.shape[1], x.shape[3], dtype=dtype)
    sequences = [cache.new() for _ in x]
    cache.append(sequences, of_kind(kind, x), of_kind(kind, -x))
    keys, values = (np.stack([np.asarray(cache.gather(s)[i]) for s in sequences]) for i in (0, 1))
    np.testing.assert_array_equal(keys, -values)
    return keys


def rounded(x, dtype):
    """Codes times scales by other means: float64 quotients, and the conversion of ml_dtypes."""
    scale = (np.abs(x).max(-1, keepdims=True) / np.float32({"int8": 127}.get(dtype, 448))).clip(2.0**-126)
    codes = x.astype(np.float64) / scale
    codes = np.rint(codes) if dtype == "int8" else codes.astype(ml_dtypes.float8_e4m3fn)
    return codes.astype(np.float32) * scale


def numbers(*shape):
    """Rows of magnitudes from subnormal to almost the largest, some of them zero."""
    random = np.random.default_rng(5)
    x = random.standard_normal(shape) * np.exp2(random.integers(-148, 125, (*shape[:-1], 1)))
    x[:, 0, 0] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_within_the_stated_bounds(dtype, kind):
    x = numbers(3, 2, 19, 33)
    got, expected = kept(x, dtype, kind), rounded(x, dtype)
    assert got.dtype == np.float32
    largest = np.abs(x).max(-1, keepdims=True).astype(np.float64)
    near = np.abs(got - expected) <= 1e-6 * largest + 2.0**-149  # quotients that are ties may round either way
    assert near.mean() > 0.999
    scale = np.maximum(largest / (127 if dtype == "int8" else 448), 2.0**-126)
    bound = scale / 2 if dtype == "int8" else np.maximum(np.abs(x.astype(np.float64)) / 16, scale * 2.0**-10)
    assert (np.abs(got.astype(np.float64) - x) <= bound * (1 + 1e-5)).all()
    assert (got[:, 0, 0] == 0).all()


@pytest.mark.parametrize("source", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_codes_say_exactly_stays_exact(dtype, source):
    codes = np.arange(-127, 128).astype(np.float32) if dtype == "int8" else np.arange(127, dtype=np.uint8)
    values = codes if dtype == "int8" else codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    x = np.float32([0.25, 8])[:, None] * values
    x = x.reshape(1, 1, *x.shape).astype(getattr(ml_dtypes, source, source))
    np.testing.assert_array_equal(kept(x, dtype), x.astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_token_and_head(dtype, kind):
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 8)).astype(np.float32)
    spoilt = x.copy()
    spoilt[0, 1, 4, 2], spoilt[1, 0, 8, 7], spoilt[1, 2, 0, 0] = np.nan, np.inf, -np.inf
    bad = ~np.isfinite(spoilt).all(-1)
    got = kept(spoilt, dtype, kind)
    assert np.isnan(got[bad]).all()
    np.testing.assert_array_equal(got[~bad], kept(x, dtype, kind)[~bad])


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_do_not_change_what_is_kept(dtype):
    x = np.random.default_rng(2).standard_normal((1, 2, 300, 64)).astype(np.float32)
    together = kept(x, dtype)  # of more numbers than are quantized at a time
    np.testing.assert_array_equal(together[:, :, 100:110], kept(x[:, :, 100:110], dtype))
    many = np.ascontiguousarray(x.transpose(2, 1, 0, 3))[:90]
    np.testing.assert_array_equal(kept(many, dtype), together.transpose(2, 1, 0, 3)[:90])
