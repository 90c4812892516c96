"""Sums of the kernels, whose order is written and not the compiler's."""

from __future__ import annotations

import numpy as np
import pytest

from pykernels.kernels._numba import jit, sum_of_lanes, sums


@jit
def sum_in_lanes(x):
    total = sums(x, 2, 16)
    for i in range(x.size):
        total[1, i % 16] += x[i]
    return sum_of_lanes(total, 1, 16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_are_summed_in_the_order_that_is_written(dtype):
    rng = np.random.default_rng(0)
    for count in (0, 1, 15, 16, 1000):
        x = (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 4, count)).astype(dtype)
        lanes = np.zeros(16, dtype)
        for i in range(count):
            lanes[i % 16] += x[i]
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        assert dtype(sum_in_lanes(x)) == lanes[0]
