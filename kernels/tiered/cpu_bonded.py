"""Terms of named atoms of one conformation, in the precision of `x`; energies add up in float64."""

from __future__ import annotations

import math

import numpy as np

from .._numba import jit
from .cpu_cmap import cmap_part
from .cpu_geometry import (
    add,
    add_dihedral,
    angle,
    clamped,
    cos_dihedral,
    difference,
    dihedral,
    inverse_distance,
    part_of,
    scaled,
)
from .problem import TERMS

_BOND, _ANGLE, _DIHEDRAL, _IMPROPER, _LJ, _COULOMB = (
    TERMS.index(name) for name in ("bond", "angle", "dihedral", "improper", "lj", "coulomb")
)


@jit
def bonded_part(x, terms, part, parts, energies, gradient):
    """Add part number `part` of `parts` of every class of `terms`, cmap included.

    `x` (N, 3); energies (len(TERMS),) float64; dE/dx is added to `gradient` (N, 3), of x's dtype.
    """
    limit, signed = terms.cos_limit, terms.signed
    first, last = part_of(terms.bond, part, parts)
    energies[_BOND] += _bonds(x, terms.bond_atoms, terms.bond, first, last, gradient)
    first, last = part_of(terms.angle, part, parts)
    energies[_ANGLE] += _angles(x, terms.angle_atoms, terms.angle, limit, first, last, gradient)
    first, last = part_of(terms.series, part, parts)
    energies[_DIHEDRAL] += series(x, terms.series_atoms, terms.series, limit, first, last, gradient)
    first, last = part_of(terms.periodic, part, parts)
    energies[_DIHEDRAL] += _periodic(x, terms.periodic_atoms, terms.periodic, limit, signed, first, last, gradient)
    first, last = part_of(terms.improper, part, parts)
    energies[_IMPROPER] += _impropers(x, terms.improper_atoms, terms.improper, limit, signed, first, last, gradient)
    first, last = part_of(terms.pair, part, parts)
    lj, coulomb = _pairs(x, terms.pair_atoms, terms.pair, first, last, gradient)
    energies[_LJ] += lj
    energies[_COULOMB] += coulomb
    cmap_part(x, terms, part, parts, energies, gradient)


@jit
def _bonds(x, atoms, table, first, last, gradient):
    total = 0.0
    for row in range(first, last):
        total += _spring(x, atoms[row, 0], atoms[row, 1], table[row, 0], table[row, 1], gradient)
    return total


@jit
def _spring(x, i, j, k, r0, gradient):
    """k (r - r0)^2"""
    v = difference(x, i, j)
    inverse = inverse_distance(x, v)
    off = x.dtype.type(1) / inverse - r0
    slope = (k + k) * off * inverse
    add(gradient, i, slope, v)
    add(gradient, j, -slope, v)
    return k * off * off


@jit
def _angles(x, atoms, table, limit, first, last, gradient):
    real = x.dtype.type
    least = real(math.acos(limit))
    total = 0.0
    for row in range(first, last):
        i, j, k = atoms[row, 0], atoms[row, 1], atoms[row, 2]
        stiffness, theta0, stiffness_ub, r_ub = table[row, 0], table[row, 1], table[row, 2], table[row, 3]
        c, s, at_i, at_k = angle(x, i, j, k)
        theta, inside = clamped(x, c, s, least)
        off = theta - theta0
        total += stiffness * off * off
        if inside:
            slope = -(stiffness + stiffness) * off / s
            add(gradient, i, slope, at_i)
            add(gradient, k, slope, at_k)
            add(gradient, j, -slope, (at_i[0] + at_k[0], at_i[1] + at_k[1], at_i[2] + at_k[2]))
        if stiffness_ub != 0:
            total += _spring(x, i, k, stiffness_ub, r_ub, gradient)
    return total


@jit
def series(x, atoms, table, limit, first, last, gradient):
    """The energy of rows of sum A_n cos^n(phi)."""
    real = x.dtype.type
    top, least = real(limit), real(math.sqrt(1 - limit * limit))
    total = 0.0
    for row in range(first, last):
        i, j, k, l = atoms[row, 0], atoms[row, 1], atoms[row, 2], atoms[row, 3]  # noqa: E741
        c, s, at_12, at_32, at_43 = cos_dihedral(x, i, j, k, l)
        c = top if c > top else -top if c < -top else c  # NaN stays
        value, slope = table[row, 5], real(0)
        for n in range(4, -1, -1):
            slope = value + c * slope
            value = table[row, n] + c * value
        total += value
        if s > least:
            add_dihedral(gradient, i, j, k, l, slope, at_12, at_32, at_43)
    return total


@jit
def _periodic(x, atoms, table, limit, signed, first, last, gradient):
    least = x.dtype.type(math.acos(limit))
    total = 0.0
    for row in range(first, last):
        i, j, k, l = atoms[row, 0], atoms[row, 1], atoms[row, 2], atoms[row, 3]  # noqa: E741
        phi, at_12, at_32, at_43 = _phi(x, i, j, k, l, least, signed)
        stiffness, n = table[row, 0], table[row, 1]
        argument = n * phi - table[row, 2]
        total += stiffness + stiffness * math.cos(argument)
        add_dihedral(gradient, i, j, k, l, -stiffness * n * math.sin(argument), at_12, at_32, at_43)
    return total


@jit
def _impropers(x, atoms, table, limit, signed, first, last, gradient):
    real = x.dtype.type
    least, turn = real(math.acos(limit)), real(2 * math.pi)
    total = 0.0
    for row in range(first, last):
        i, j, k, l = atoms[row, 0], atoms[row, 1], atoms[row, 2], atoms[row, 3]  # noqa: E741
        phi, at_12, at_32, at_43 = _phi(x, i, j, k, l, least, signed)
        stiffness, off = table[row, 0], phi - table[row, 1]
        if signed:
            off -= turn * np.rint(off / turn)
        total += stiffness * off * off
        add_dihedral(gradient, i, j, k, l, (stiffness + stiffness) * off, at_12, at_32, at_43)
    return total


@jit
def _phi(x, i, j, k, l, least, signed):  # noqa: E741
    """phi, and dphi/d(v12, v32, v43)."""
    if signed:
        return dihedral(x, i, j, k, l)
    real = x.dtype.type
    c, s, at_12, at_32, at_43 = cos_dihedral(x, i, j, k, l)
    phi, inside = clamped(x, c, s, least)
    factor = real(-1) / s if inside else real(0)
    return phi, scaled(factor, at_12), scaled(factor, at_32), scaled(factor, at_43)


@jit
def _pairs(x, atoms, table, first, last, gradient):
    lj, coulomb = 0.0, 0.0
    twelve, six = x.dtype.type(12), x.dtype.type(6)
    for row in range(first, last):
        i, j = atoms[row, 0], atoms[row, 1]
        v = difference(x, i, j)
        inverse = inverse_distance(x, v)
        square = inverse * inverse
        r_6 = square * square * square
        repulsion, dispersion, charges = table[row, 0] * r_6 * r_6, table[row, 1] * r_6, table[row, 2] * inverse
        lj += repulsion - dispersion
        coulomb += charges
        slope = (six * dispersion - twelve * repulsion - charges) * square
        add(gradient, i, slope, v)
        add(gradient, j, -slope, v)
    return lj, coulomb
