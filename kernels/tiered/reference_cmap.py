"""Energy of maps of two consecutive dihedrals, in NumPy float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import Bonded
from .reference_geometry import add, dihedral

Array = np.ndarray[Any, Any]


def cmap(x: Array, terms: Bonded, g: Array) -> float:
    """The sum of the maps of `terms`; dE/dx is added to `g`."""
    size = terms.cmap.shape[1]
    first, last = terms.cmap_atoms[:, :4], terms.cmap_atoms[:, 1:]
    (phi, d_phi), (psi, d_psi) = (dihedral(x, atoms, 1.0, True) for atoms in (first, last))
    (at, u), (to, w) = (_cells(angle * size / (2 * np.pi), size) for angle in (phi, psi))
    c = terms.cmap.astype(np.float64)[terms.cmap_map, at, to]
    powers_u, powers_w = (each[:, None] ** np.arange(4) for each in (u, w))
    slopes_u, slopes_w = (np.arange(4) * each[:, None] ** np.array([0, 0, 1, 2]) for each in (u, w))
    for atoms, d_angle, p, q in ((first, d_phi, slopes_u, powers_w), (last, d_psi, powers_u, slopes_w)):
        slope = np.einsum("nij,ni,nj->n", c, p, q) * size / (2 * np.pi)
        add(g, atoms, d_angle * slope[:, None, None])
    return float(np.einsum("nij,ni,nj->", c, powers_u, powers_w))


def _cells(place: Array, size: int) -> tuple[Array, Array]:
    start = np.floor(place)
    return start.astype(np.int64) % size, place - start
