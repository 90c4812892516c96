"""exp of the kernels against exact values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

from pykernels.kernels._exp import exp
from pykernels.kernels._numba import cpu_features, jit

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@jit
def exp_of_all(x, out):
    for i in range(x.size):
        out[i] = exp(x[i])


def exp_of(x):
    out = np.full(x.shape, np.nan, x.dtype)
    exp_of_all(x, out)
    return out


def units_off(x, y):
    """Distance of y from exp(x) in units in the last place of the result."""
    if x.dtype == np.float32:
        exact = np.exp(x.astype(np.float64))
    else:
        exact = np.exp(x.astype(np.longdouble))
    unit = np.spacing(np.abs(exact).astype(x.dtype))
    return np.abs(y.astype(exact.dtype) - exact) / unit


@DTYPES
def test_within_the_stated_error(dtype):
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    lowest, highest = math.log(float(info.smallest_subnormal)), math.log(float(info.max))
    x = np.concatenate([rng.uniform(lowest, highest, 300_000), rng.uniform(-1, 1, 100_000)]).astype(dtype)
    tiny = np.outer([1, -1], 0.5 ** np.arange(60)).reshape(-1).astype(dtype)
    for each in (x, tiny):
        each = each[(each < highest) & (each > lowest)]
        assert units_off(each, exp_of(each)).max() < 1.1


@DTYPES
def test_ends(dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, -np.inf, np.inf, np.nan, -info.max, info.max, -1e4, 1e4], dtype)
    np.testing.assert_array_equal(exp_of(x), np.array([1, 1, 0, np.inf, np.nan, 0, np.inf, 0, np.inf], dtype))
    last = np.nextafter(dtype(np.log(info.max)), dtype(0))
    assert np.isfinite(exp_of(np.array([last], dtype)))[0]
    first = np.array([np.log(info.tiny) - 1], dtype)
    np.testing.assert_allclose(exp_of(first), np.exp(first), rtol=1e-5)


@DTYPES
def test_neighbours_are_in_order(dtype):
    x = np.linspace(-80, 80, 200_001).astype(dtype)
    assert np.all(np.diff(exp_of(x)) >= 0)


def test_needs_jitted_code_and_floats():
    with pytest.raises(NotImplementedError, match="jitted"):
        exp(1.0)
    with pytest.raises(Exception, match="exp"):
        njit(lambda x: exp(x))(1)


@DTYPES
def test_vectorises(dtype):
    fresh = njit(exp_of_all.py_func, error_model="numpy")
    fresh(np.zeros(64, dtype), np.zeros(64, dtype))
    (assembly,) = fresh.inspect_asm().values()
    assert not any(call in assembly for call in ("expf", "@exp", "ldexp"))
    if "avx2" in cpu_features():
        assert f"vmulp{'s' if dtype == np.float32 else 'd'}" in assembly


LARGE = np.float64(3 << 51)


@jit
def rounded(x):
    return (x + LARGE) - LARGE


@njit(error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def rounded_by_another(x):
    return rounded(x)


def test_callers_that_reassociate_leave_exp_as_it_is():
    """Numba would compile a callee that says nothing about floating point by the rules of its caller."""
    assert rounded_by_another(2.3) == 2.0
