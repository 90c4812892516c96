"""Bicubic maps of two consecutive dihedrals of one conformation, in the precision of `x`."""

from __future__ import annotations

import math

import numpy as np

from .._numba import jit
from .cpu_geometry import add_dihedral, dihedral, part_of
from .problem import TERMS

_CMAP = TERMS.index("cmap")


@jit
def cmap_part(x, terms, part, parts, energies, gradient):
    """Add part number `part` of `parts` of the maps of a `Bonded` to `energies` and to `gradient`."""
    first, last = part_of(terms.cmap_map, part, parts)
    energies[_CMAP] += _maps(x, terms.cmap_atoms, terms.cmap_map, terms.cmap, first, last, gradient)


@jit
def _maps(x, atoms, map_of, patches, first, last, gradient):
    size = patches.shape[1]
    cells_per_radian = x.dtype.type(size / (2 * math.pi))
    total = 0.0
    for row in range(first, last):
        i, j, k, l, m = atoms[row, 0], atoms[row, 1], atoms[row, 2], atoms[row, 3], atoms[row, 4]  # noqa: E741
        phi, phi_12, phi_32, phi_43 = dihedral(x, i, j, k, l)
        psi, psi_12, psi_32, psi_43 = dihedral(x, j, k, l, m)
        at, u = _cell(phi * cells_per_radian, size)
        to, w = _cell(psi * cells_per_radian, size)
        value, du, dw = _patch(patches[map_of[row], at, to], u, w)
        total += value
        add_dihedral(gradient, i, j, k, l, du * cells_per_radian, phi_12, phi_32, phi_43)
        add_dihedral(gradient, j, k, l, m, dw * cells_per_radian, psi_12, psi_32, psi_43)
    return total


@jit
def _cell(place, size):
    """The number of the cell of a place on a circle of `size` cells, and the way through it, 0 to 1."""
    start = np.floor(place)
    return int(start) % size, place - start


@jit
def _patch(c, u, w):
    """sum c[i, j] u^i w^j, and its derivatives by u and by w."""
    value = du = dw = u - u
    for i in range(3, -1, -1):
        inner = c[i, 2] + w * c[i, 3]
        slope = inner + w * c[i, 3]
        inner = c[i, 1] + w * inner
        slope = inner + w * slope
        du = value + u * du
        value = c[i, 0] + w * inner + u * value
        dw = slope + u * dw
    return value, du, dw
