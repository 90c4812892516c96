"""Smooth periodic surfaces through a grid of energies."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_HERMITE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]])
"""Coefficients of 1, u, u^2, u^3 from the values at 0 and 1 and the slopes there."""


def bicubic_patches(grid: Array) -> Array:
    """Coefficients (size, size, 4, 4) of the patches sum c_ij u^i w^j through a periodic `grid` (size, size).

    Patch (p, q) lies between grid points p and p + 1 along the first axis, q and q + 1 along the second;
    u and w go from 0 to 1. Slopes at the grid points are those of periodic cubic splines along the axes.
    """
    by_u, by_w = _slopes(grid), _slopes(grid.T).T
    both = _slopes(by_w)

    def corners(values: Array) -> Array:
        beyond = np.roll(values, -1, 0)
        return np.stack([values, np.roll(values, -1, 1), beyond, np.roll(beyond, -1, 1)], -1).reshape(*grid.shape, 2, 2)

    blocks = np.block([[corners(grid), corners(by_w)], [corners(by_u), corners(both)]])
    patches: Array = _HERMITE @ blocks @ _HERMITE.T
    return patches


def _slopes(values: Array) -> Array:
    """Slopes along the first axis, at points 1 apart, of the periodic cubic spline through them."""
    one = np.eye(len(values))
    spline = 4 * one + np.roll(one, 1, 0) + np.roll(one, -1, 0)
    slopes: Array = np.linalg.solve(spline, 3 * (np.roll(values, -1, 0) - np.roll(values, 1, 0)))
    return slopes
