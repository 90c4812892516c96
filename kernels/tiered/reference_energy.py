"""Energies and gradients of the definition, in NumPy float64, all pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import SHORTEST, TERMS, Bonded, Pairs, System
from .reference_cmap import cmap
from .reference_geometry import add, cos_angle, cos_dihedral, dihedral, interacting, sine
from .reference_mmff import mmff
from .reference_vina import vina

Array = np.ndarray[Any, Any]


def energy(positions: Array, system: System, everywhere: bool, terms: Array, gradient: Array) -> None:
    """Write the terms (B, len(TERMS)), float64, and dE/dx (B, N, 3) of `positions` (B, N, 3).

    Unless `everywhere`, pairs leave out the gradient of atoms in fixed places.
    """
    for b, positions_b in enumerate(positions):
        x, g, e = positions_b.astype(np.float64), np.zeros(positions_b.shape), np.zeros(len(TERMS))
        for part in (bonded(x, system.bonded, g), pairs(x, system.pairs, everywhere, g)):
            for name, value in part.items():
                e[TERMS.index(name)] += value
        e[TERMS.index("cmap")] += cmap(x, system.bonded, g)
        e[TERMS.index("vina")] += vina(x, system.vina, everywhere, g)
        e[TERMS.index("mmff")] += mmff(x, system.mmff, g)
        terms[b], gradient[b] = e, g


def bonded(x: Array, terms: Bonded, g: Array) -> dict[str, float]:
    """The terms of named atoms, cmap left out; dE/dx is added to `g`."""
    found = dict.fromkeys(("bond", "angle", "dihedral", "improper", "lj", "coulomb"), 0.0)

    k, r0 = terms.bond.astype(np.float64).T
    found["bond"] += _distances(x, terms.bond_atoms, lambda r: (k * (r - r0) ** 2, 2 * k * (r - r0)), g)

    k, theta0, k_ub, r_ub = terms.angle.astype(np.float64).T
    c, d_c = cos_angle(x, terms.angle_atoms, terms.cos_limit)
    theta = np.arccos(c)
    found["angle"] += np.sum(k * (theta - theta0) ** 2)
    add(g, terms.angle_atoms, d_c * (-2 * k * (theta - theta0) / sine(c))[:, None, None])
    ends = terms.angle_atoms[:, ::2]
    found["angle"] += _distances(x, ends, lambda r: (k_ub * (r - r_ub) ** 2, 2 * k_ub * (r - r_ub)), g)

    a = terms.series.astype(np.float64)
    c, d_c = cos_dihedral(x, terms.series_atoms, terms.cos_limit)
    powers = c[:, None] ** np.arange(6)
    found["dihedral"] += np.sum(a * powers)
    add(g, terms.series_atoms, d_c * np.sum(a[:, 1:] * np.arange(1, 6) * powers[:, :5], 1)[:, None, None])

    k, n, d = terms.periodic.astype(np.float64).T
    phi, d_phi = dihedral(x, terms.periodic_atoms, terms.cos_limit, terms.signed)
    found["dihedral"] += np.sum(k * (1 + np.cos(n * phi - d)))
    add(g, terms.periodic_atoms, d_phi * (-k * n * np.sin(n * phi - d))[:, None, None])

    k, ref = terms.improper.astype(np.float64).T
    phi, d_phi = dihedral(x, terms.improper_atoms, terms.cos_limit, terms.signed)
    off = phi - ref
    if terms.signed:
        off -= 2 * np.pi * np.round(off / (2 * np.pi))
    found["improper"] += np.sum(k * off**2)
    add(g, terms.improper_atoms, d_phi * (2 * k * off)[:, None, None])

    a, b, c = terms.pair.astype(np.float64).T
    found["lj"] += _distances(x, terms.pair_atoms, lambda r: (a / r**12 - b / r**6, 6 * b / r**7 - 12 * a / r**13), g)
    found["coulomb"] += _distances(x, terms.pair_atoms, lambda r: (c / r, -c / r**2), g)
    return found


def pairs(x: Array, terms: Pairs, everywhere: bool, g: Array) -> dict[str, float]:
    """Lennard-Jones and Coulomb; dE/dx is added to `g`."""
    i, j, v, r = interacting(x, terms)
    repulsion, dispersion = (each[terms.kind[i], j].astype(np.float64) for each in (terms.repulsion, terms.dispersion))
    near = r < terms.lj_cutoff
    lj = np.where(near, repulsion / r**12 - dispersion / r**6, 0)
    slope = np.where(near, 6 * dispersion / r**8 - 12 * repulsion / r**14, 0)
    near = r < terms.coulomb_cutoff
    qq = (terms.charge[i].astype(np.float64) * terms.charge[j]) * near
    coulomb = qq * (1 / r + terms.k_rf * r * r - terms.c_rf)
    slope += qq * (2 * terms.k_rf - 1 / r**3)
    ours = i < len(terms.atoms) if everywhere else i < terms.movable
    np.add.at(g, terms.atoms[i[ours]], (slope[:, None] * v)[ours])
    return {"lj": lj.sum() / 2, "coulomb": coulomb.sum() / 2}


def _distances(x: Array, atoms: Array, function: Any, g: Array) -> float:
    """The sum of a function of distances, which gives value and derivative."""
    v = x[atoms[:, 0]] - x[atoms[:, 1]]
    true_r = np.sqrt(np.sum(v * v, 1))
    r = np.maximum(true_r, SHORTEST)
    value, slope = function(r)
    part = (slope / r)[:, None] * v
    add(g, atoms, np.stack([part, -part], 1))
    return float(np.sum(value))
