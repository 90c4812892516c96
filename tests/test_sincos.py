"""Sines and cosines against exact rationals and NumPy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pykernels.kernels._sincos import LARGEST, sincos

PI = Fraction(31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679821)
PI /= 10**103


def exact(angle):
    """Sine and cosine of a float, by their series, to 2^-150."""
    x = Fraction(angle)
    x -= round(x / (2 * PI)) * 2 * PI
    sums, term = [Fraction(0), Fraction(0)], Fraction(1)
    for n in range(60):
        sums[n % 2] += term * (-1) ** (n // 2)
        term = Fraction(round(term * x / (n + 1) * 2**160), 2**160)
    return sums[1], sums[0]


def results(x):
    sines, cosines = np.empty_like(x), np.empty_like(x)
    sincos(x, sines, cosines)
    return sines, cosines


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 0.501), (np.float64, 2.1)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4, LARGEST])
def test_ulps(dtype, ulps, scale):
    x = np.random.default_rng(0).uniform(-scale, scale, 300)
    x[:100] = np.round(x[:100] / (np.pi / 2)) * (np.pi / 2)
    x = x.astype(dtype)
    for angle, *found in zip(x, *results(x), strict=True):
        for value, target in zip(found, exact(float(angle)), strict=True):
            ulp = Fraction(float(np.spacing(abs(dtype(float(target))))))
            assert abs(Fraction(float(value)) - target) <= Fraction(ulps) * ulp


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_beyond_the_vector_loop(dtype):
    x = np.array([1.0, 2 * LARGEST, np.nan, -3e9, np.inf, -np.inf, 1e30], dtype)
    with np.errstate(invalid="ignore"):
        expected = np.sin(x.astype(np.float64)), np.cos(x.astype(np.float64))
    for found, target in zip(results(x), expected, strict=True):
        np.testing.assert_allclose(found, target, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_place_in_the_array_changes_no_bit(dtype):
    x = np.random.default_rng(1).normal(0, 10, 67).astype(dtype)
    for n in (0, 1, 7, 33, 66):
        for part, whole in zip(results(x[n:]), results(x), strict=True):
            np.testing.assert_array_equal(part, whole[n:])


def test_zero_is_exact():
    sines, cosines = results(np.zeros(3))
    assert (sines == 0).all() and (cosines == 1).all()
