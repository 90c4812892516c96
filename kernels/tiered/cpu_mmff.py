"""MMFF94 of one conformation. Numbers are those of `x`; energies add up in float64."""

from __future__ import annotations

import math

from .._numba import jit
from .cpu_bonded import series
from .cpu_geometry import add, angle, combined, cross, difference, dot, inverse_distance, part_of, scaled
from .problem import SHORTEST, TERMS

_MMFF = TERMS.index("mmff")


@jit
def mmff_part(x, terms, part, parts, energies, gradient):
    """Add part number `part` of `parts` of every class of `terms`.

    `x` (N, 3); energies (len(TERMS),) float64; dE/dx is added to `gradient` (N, 3), of x's dtype.
    """
    first, last = part_of(terms.bond, part, parts)
    total = _bonds(x, terms.bond_atoms, terms.bond, first, last, gradient)
    first, last = part_of(terms.angle, part, parts)
    total += _angles(x, terms.angle_atoms, terms.angle, first, last, gradient)
    first, last = part_of(terms.plane, part, parts)
    total += _planes(x, terms.plane_atoms, terms.plane, first, last, gradient)
    first, last = part_of(terms.series, part, parts)
    total += series(x, terms.series_atoms, terms.series, 1.0, first, last, gradient)
    first, last = part_of(terms.pair, part, parts)
    total += _pairs(x, terms.pair_atoms, terms.pair, first, last, gradient)
    energies[_MMFF] += total


@jit
def _bonds(x, atoms, table, first, last, gradient):
    real = x.dtype.type
    one, two, six, cubic, quartic = real(1), real(2), real(6), real(7 / 3), real(28 / 3)
    total = 0.0
    for row in range(first, last):
        i, j, k = atoms[row, 0], atoms[row, 1], table[row, 0]
        v = difference(x, i, j)
        inverse = inverse_distance(x, v)
        d = one / inverse - table[row, 1]
        total += k * d * d * (one - d * (two - cubic * d))
        slope = k * d * (two - d * (six - quartic * d)) * inverse
        add(gradient, i, slope, v)
        add(gradient, j, -slope, v)
    return total


@jit
def _angles(x, atoms, table, first, last, gradient):
    """Bends and, where the angle is not linear, stretch-bends."""
    real = x.dtype.type
    zero, one, two, cubic, cubic_slope = real(0), real(1), real(2), real(0.4), real(1.2)
    total = 0.0
    for row in range(first, last):
        i, j, k = atoms[row, 0], atoms[row, 1], atoms[row, 2]
        stiffness = table[row, 0]
        c, s, at_i, at_k = angle(x, i, j, k)
        if table[row, 2] != zero:
            total += stiffness * (one + c)
            slope = stiffness
        else:
            off = math.atan2(s, c) - table[row, 1]
            a, b = difference(x, i, j), difference(x, k, j)
            inverse_a, inverse_b = inverse_distance(x, a), inverse_distance(x, b)
            k_a, k_b = table[row, 3], table[row, 4]
            stretch = k_a * (one / inverse_a - table[row, 5]) + k_b * (one / inverse_b - table[row, 6])
            total += off * (stiffness * off * (one - cubic * off) + stretch)
            slope = stiffness * off * (two - cubic_slope * off) + stretch
            slope = -slope / s if s > zero else zero
            add(gradient, i, k_a * off * inverse_a, a)
            add(gradient, j, -k_a * off * inverse_a, a)
            add(gradient, k, k_b * off * inverse_b, b)
            add(gradient, j, -k_b * off * inverse_b, b)
        add(gradient, i, slope, at_i)
        add(gradient, k, slope, at_k)
        add(gradient, j, -slope, (at_i[0] + at_k[0], at_i[1] + at_k[1], at_i[2] + at_k[2]))
    return total


@jit
def _planes(x, atoms, table, first, last, gradient):
    real = x.dtype.type
    zero, one, two, shortest = real(0), real(1), real(2), real(SHORTEST)
    total = 0.0
    for row in range(first, last):
        i, j, k, l = atoms[row, 0], atoms[row, 1], atoms[row, 2], atoms[row, 3]  # noqa: E741
        a, b, w = difference(x, i, j), difference(x, k, j), difference(x, l, j)
        n, inverse_w = cross(a, b), inverse_distance(x, w)
        inverse_n = inverse_distance(x, n)
        n, w = scaled(inverse_n, n), scaled(inverse_w, w)
        s = dot(n, w)
        square = one - s * s
        c = math.sqrt(square if square > zero else zero)
        chi = math.atan2(s, c)
        total += table[row, 0] * chi * chi
        slope = two * table[row, 0] * chi / (shortest if c < shortest else c)
        at_n, at_l = combined(slope * inverse_n, w, -slope * inverse_n * s, n), combined(one, n, -s, w)
        at_i, at_k = cross(b, at_n), cross(at_n, a)
        add(gradient, i, one, at_i)
        add(gradient, j, -one, at_i)
        add(gradient, k, one, at_k)
        add(gradient, j, -one, at_k)
        add(gradient, l, slope * inverse_w, at_l)
        add(gradient, j, -slope * inverse_w, at_l)
    return total


@jit
def _pairs(x, atoms, table, first, last, gradient):
    """Buffered 14-7 and buffered Coulomb."""
    real = x.dtype.type
    one, two, seven, buffer = real(1), real(2), real(7), real(0.05)
    near_buffer, near_scale, far_buffer, far_scale = real(0.07), real(1.07), real(0.12), real(1.12)
    total = 0.0
    for row in range(first, last):
        i, j = atoms[row, 0], atoms[row, 1]
        v = difference(x, i, j)
        inverse = inverse_distance(x, v)
        r, per_star = one / inverse, one / table[row, 0]
        q = r * per_star
        q2 = q * q
        q6 = q2 * q2 * q2
        per_near, per_far = one / (q + near_buffer), one / (q6 * q + far_buffer)
        near = near_scale * per_near
        near2 = near * near
        depth, far = table[row, 1] * near2 * near2 * near2 * near, far_scale * per_far
        value, over = depth * (far - two), one / (r + buffer)
        charges = table[row, 2] * over
        total += value + charges
        slope = -seven * per_star * (value * per_near + depth * far * q6 * per_far) - charges * over
        add(gradient, i, slope * inverse, v)
        add(gradient, j, -slope * inverse, v)
    return total
