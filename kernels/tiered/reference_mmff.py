"""MMFF94 (Halgren 1996, doi:10.1002/(SICI)1096-987X(199604)17:5/6<490::AID-JCC1>3.0.CO;2-P) in NumPy float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import SHORTEST, Mmff

Array = np.ndarray[Any, Any]


def mmff(x: Array, terms: Mmff, g: Array) -> float:
    """The energy at `x` (N, 3); dE/dx is added to `g`."""
    return (
        _bonds(x, terms.bond_atoms, terms.bond.astype(np.float64), g)
        + _angles(x, terms.angle_atoms, terms.angle.astype(np.float64), g)
        + _planes(x, terms.plane_atoms, terms.plane.astype(np.float64), g)
        + _torsions(x, terms.series_atoms, terms.series.astype(np.float64), g)
        + _pairs(x, terms.pair_atoms, terms.pair.astype(np.float64), g)
    )


def _bonds(x: Array, atoms: Array, table: Array, g: Array) -> float:
    k, r0 = table.T
    r, u = _unit(x[atoms[:, 0]] - x[atoms[:, 1]])
    d = r - r0
    _add(g, atoms, (k * d * (2 - 6 * d + 28 / 3 * d**2))[:, None] * u, (0, 1))
    return float(np.sum(k * d**2 * (1 - 2 * d + 7 / 3 * d**2)))


def _angles(x: Array, atoms: Array, table: Array, g: Array) -> float:
    """Bends and, where the angle is not linear, stretch-bends."""
    k, theta0, linear, k_ij, k_kj, r_ij, r_kj = table.T
    ra, a = _unit(x[atoms[:, 0]] - x[atoms[:, 1]])
    rb, b = _unit(x[atoms[:, 2]] - x[atoms[:, 1]])
    c = np.clip(np.sum(a * b, 1), -1, 1)
    s = np.sqrt(np.sum(np.cross(a, b) ** 2, 1))
    off = np.arctan2(s, c) - theta0
    stretch = k_ij * (ra - r_ij) + k_kj * (rb - r_kj)
    bend = k * off**2 * (1 - 0.4 * off) + stretch * off
    slope = k * off * (2 - 1.2 * off) + stretch
    at_c = np.where(linear > 0, k, -slope / np.where(s > 0, s, np.inf))[:, None]
    couples = (linear == 0) * off
    _add(g, atoms, at_c * (b - c[:, None] * a) / ra[:, None] + (couples * k_ij)[:, None] * a, (0, 1))
    _add(g, atoms, at_c * (a - c[:, None] * b) / rb[:, None] + (couples * k_kj)[:, None] * b, (2, 1))
    return float(np.sum(np.where(linear > 0, k * (1 + c), bend)))


def _planes(x: Array, atoms: Array, table: Array, g: Array) -> float:
    a, b = x[atoms[:, 0]] - x[atoms[:, 1]], x[atoms[:, 2]] - x[atoms[:, 1]]
    rl, w = _unit(x[atoms[:, 3]] - x[atoms[:, 1]])
    rn, n = _unit(np.cross(a, b))
    s = np.clip(np.sum(n * w, 1), -1, 1)
    c = np.maximum(np.sqrt(1 - s * s), SHORTEST)
    chi = np.arcsin(s)
    at_s = (2 * table[:, 0] * chi / c)[:, None]
    at_n = at_s * (w - s[:, None] * n) / rn[:, None]
    _add(g, atoms, np.cross(b, at_n), (0, 1))
    _add(g, atoms, np.cross(at_n, a), (2, 1))
    _add(g, atoms, at_s * (n - s[:, None] * w) / rl[:, None], (3, 1))
    return float(np.sum(table[:, 0] * chi**2))


def _torsions(x: Array, atoms: Array, table: Array, g: Array) -> float:
    a, b, d = (x[atoms[:, p + 1]] - x[atoms[:, p]] for p in range(3))
    r1, n1 = _unit(np.cross(a, b))
    r2, n2 = _unit(np.cross(b, d))
    c = np.clip(np.sum(n1 * n2, 1), -1, 1)
    powers = c[:, None] ** np.arange(6)
    slope = np.sum(table[:, 1:] * np.arange(1, 6) * powers[:, :5], 1)[:, None]
    at_1, at_2 = slope * (n2 - c[:, None] * n1) / r1[:, None], slope * (n1 - c[:, None] * n2) / r2[:, None]
    _add(g, atoms, np.cross(b, at_1), (1, 0))
    _add(g, atoms, np.cross(at_1, a) + np.cross(d, at_2), (2, 1))
    _add(g, atoms, np.cross(at_2, b), (3, 2))
    return float(np.sum(table * powers))


def _pairs(x: Array, atoms: Array, table: Array, g: Array) -> float:
    """Buffered 14-7 and buffered Coulomb."""
    star, eps, charges = table.T
    r, u = _unit(x[atoms[:, 0]] - x[atoms[:, 1]])
    near, far = 1.07 * star / (r + 0.07 * star), 1.12 * star**7 / (r**7 + 0.12 * star**7)
    value = eps * near**7 * (far - 2)
    slope = -7 * value / (r + 0.07 * star) - eps * near**7 * far * 7 * r**6 / (r**7 + 0.12 * star**7)
    slope -= charges / (r + 0.05) ** 2
    _add(g, atoms, slope[:, None] * u, (0, 1))
    return float(np.sum(value + charges / (r + 0.05)))


def _unit(v: Array) -> tuple[Array, Array]:
    """Lengths, at least SHORTEST, and v divided by them."""
    r = np.maximum(np.sqrt(np.sum(v * v, 1)), SHORTEST)
    return r, v / r[:, None]


def _add(g: Array, atoms: Array, part: Array, ends: tuple[int, int]) -> None:
    """Add a derivative with respect to the vector to the first of two atoms from the second."""
    np.add.at(g, atoms[:, ends[0]], part)
    np.add.at(g, atoms[:, ends[1]], -part)
