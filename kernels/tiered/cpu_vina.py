"""AutoDock Vina's terms, row by row: one atom with blocks of the others, whose types are contiguous.

A block that is beyond the cutoff as a whole is skipped. Excluded places carry an infinite `bias`, which
is added to the squared distance: the loops have no branch, and what is excluded contributes exactly zero.
"""

from __future__ import annotations

import numpy as np

from .._exp import exp
from .._numba import jit, plus, sum_of_lanes, sums
from .problem import SHORTEST

BLOCK = 32
_X, _Y, _Z, _BIAS, _RADIUS, _HYDROPHOBIC, _DONOR, _ACCEPTOR = range(8)


@jit
def vina_rows(lanes, terms, first, last, bias, gradient):
    """The energy, float64, of the places from `first` to `last`; adds their dE/dx to `gradient` (N, 3).

    `lanes` (3, P) are the coordinates in the order of places, `bias` (P,) is zero before and after. A
    movable row meets all places, and counts half of what it has with another movable one. A fixed row
    meets the movable places and has no energy, which its partners' rows have.
    """
    total = 0.0
    if first >= last:
        return total
    movable, count = terms.movable, len(terms.atoms)
    x, y, z = lanes[0], lanes[1], lanes[2]
    radius, hydrophobic, donor, acceptor = terms.radius, terms.hydrophobic, terms.donor, terms.acceptor
    constants = _constants(terms, lanes.dtype.type)
    tails = np.zeros((8, 2 * BLOCK), lanes.dtype)
    _fill(tails, 0, lanes, terms, _tail(0, movable), movable)
    _fill(tails, BLOCK, lanes, terms, _tail(movable, count), count)
    rest_x, rest_y, rest_z, rest_bias = tails[_X], tails[_Y], tails[_Z], tails[_BIAS]
    rest_radius, rest_hydrophobic = tails[_RADIUS], tails[_HYDROPHOBIC]
    rest_donor, rest_acceptor = tails[_DONOR], tails[_ACCEPTOR]
    for row in range(first, last):
        _mark(row, terms, bias, rest_bias, np.inf)
        me = x[row], y[row], z[row], radius[row], hydrophobic[row], donor[row], acceptor[row]
        gx = gy = gz = 0.0
        for fixed in range(2 if row < movable else 1):
            begin, end = (movable, count) if fixed else (0, movable)
            stop, energy = _tail(begin, end), 0.0
            for low in range(begin, stop, BLOCK):
                if _any_near(me, low, x, y, z, bias, constants):
                    e, dx, dy, dz = _meet(
                        me, low, x, y, z, bias, radius, hydrophobic, donor, acceptor, constants
                    )  # fmt: skip
                    energy += e
                    gx += dx
                    gy += dy
                    gz += dz
            if stop < end and _any_near(me, fixed * BLOCK, rest_x, rest_y, rest_z, rest_bias, constants):
                e, dx, dy, dz = _meet(
                    me, fixed * BLOCK, rest_x, rest_y, rest_z, rest_bias, rest_radius, rest_hydrophobic,
                    rest_donor, rest_acceptor, constants,
                )  # fmt: skip
                energy += e
                gx += dx
                gy += dy
                gz += dz
            if row < movable:
                total += energy if fixed else 0.5 * energy
        _mark(row, terms, bias, rest_bias, 0.0)
        atom = terms.atoms[row]
        gradient[atom, 0] += gx
        gradient[atom, 1] += gy
        gradient[atom, 2] += gz
    return total


@jit
def _constants(terms, real):
    """The five weights, and the squared cutoff."""
    w = terms.weights
    return real(w[0]), real(w[1]), real(w[2]), real(w[3]), real(w[4]), real(terms.cutoff * terms.cutoff)


@jit
def _tail(begin, end):
    """Where the last, incomplete block of the places from `begin` to `end` begins."""
    return begin + (end - begin) // BLOCK * BLOCK


@jit
def _fill(tails, low, lanes, terms, begin, end):
    """The places from `begin` to `end` as a whole block from slot `low`, padded with excluded ones."""
    for slot in range(low, low + BLOCK):
        place = begin + slot - low
        if place < end:
            for axis in range(3):
                tails[axis, slot] = lanes[axis, place]
            tails[_RADIUS, slot] = terms.radius[place]
            tails[_HYDROPHOBIC, slot] = terms.hydrophobic[place]
            tails[_DONOR, slot] = terms.donor[place]
            tails[_ACCEPTOR, slot] = terms.acceptor[place]
        else:
            tails[_BIAS, slot] = np.inf


@jit
def _mark(row, terms, bias, rest_bias, value):
    """Set the bias of what `row` does not interact with, itself included."""
    _mark_place(row, terms, bias, rest_bias, value)
    for e in range(terms.exclusion_ptr[row], terms.exclusion_ptr[row + 1]):
        _mark_place(terms.exclusions[e], terms, bias, rest_bias, value)


@jit
def _mark_place(place, terms, bias, rest_bias, value):
    bias[place] = value
    if place < terms.movable:
        slot, low = place - _tail(0, terms.movable), 0
    else:
        slot, low = place - _tail(terms.movable, len(bias)), BLOCK
    if slot >= 0:
        rest_bias[low + slot] = value


@jit
def _any_near(me, low, x, y, z, bias, constants):
    """Whether one of a block's places is within the cutoff, or has a distance that is NaN."""
    xi, yi, zi = me[0], me[1], me[2]
    limit = constants[5]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    near = zero
    for j in range(np.uint64(low), np.uint64(low + BLOCK)):
        dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
        square = dx * dx + dy * dy + dz * dz + bias[j]
        near = plus(near, zero if square >= limit else one)
    return near > zero


@jit
def _meet(me, low, x, y, z, bias, radius, hydrophobic, donor, acceptor, constants):
    """Sums over a block of the energy and of the gradient of the row's atom."""
    xi, yi, zi, ri, hydrophobic_i, donor_i, acceptor_i = me
    gauss1, gauss2, repulsion, greasy, bond, limit = constants
    real = x.dtype.type
    zero, half, one, two, three, four, eight = real(0), real(0.5), real(1), real(2), real(3), real(4), real(8)
    onset, per_bond, shortest = real(1.5), real(1 / 0.7), real(SHORTEST * SHORTEST)
    greasy *= hydrophobic_i
    total = sums(x, 4, BLOCK)
    for lane in range(BLOCK):
        j = np.uint64(low + lane)
        dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
        square = dx * dx + dy * dy + dz * dz + bias[j]
        here = zero if square >= limit else one
        if square > limit:
            square = limit
        if square < shortest:
            square = shortest
        r = np.sqrt(square)
        d = r - (ri + radius[j])

        value = gauss1 * exp(-four * d * d)
        slope = -eight * d * value
        e = value
        u = half * (d - three)
        value = gauss2 * exp(-u * u)
        slope -= u * value
        e += value

        overlap = d if d < zero else zero
        e += repulsion * overlap * overlap
        slope += two * repulsion * overlap

        weight = greasy * hydrophobic[j]
        ramp = onset - d
        e += weight * (zero if ramp < zero else one if ramp > one else ramp)
        slope -= zero if ramp < zero else zero if ramp > one else weight

        one_way, other_way = donor_i * acceptor[j], acceptor_i * donor[j]
        weight = bond * (one_way if one_way > other_way else other_way)
        ramp = -per_bond * d
        e += weight * (zero if ramp < zero else one if ramp > one else ramp)
        slope -= per_bond * (zero if ramp < zero else zero if ramp > one else weight)

        slope *= here / r
        total[0, lane] = here * e
        total[1, lane], total[2, lane], total[3, lane] = slope * dx, slope * dy, slope * dz
    energy, gx = sum_of_lanes(total, 0, BLOCK), sum_of_lanes(total, 1, BLOCK)
    return energy, gx, sum_of_lanes(total, 2, BLOCK), sum_of_lanes(total, 3, BLOCK)
