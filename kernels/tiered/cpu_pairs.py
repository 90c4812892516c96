"""Lennard-Jones and Coulomb, row by row: one atom with runs of columns, whose parameters are contiguous.

Columns are sorted by cell, of which there is one if all pairs are to be visited. Excluded columns carry
a `bias` that puts their squared distance beyond any cutoff: the loop has no branch, and their energy and
gradient are exactly zero.
"""

from __future__ import annotations

import numpy as np

from .._numba import jit, sum_of_lanes, sums
from .._vector import multiply_add
from .problem import SHORTEST

RUN = 512
"""Columns whose contributions are added up in the arrays' own precision before float64 takes over."""

LANES = 16
"""Sums that are taken side by side, whatever the machine: the order is the same everywhere."""

FARTHEST, BEYOND = 1e37, 1e38
"""Squared distances: no cutoff reaches further than the first, and excluded pairs are as far as the second."""


@jit
def pair_rows(columns, cells, pairs, first, last, bias, table, energies, gradient):
    """Rows `first` to `last`, which are places of `pairs`: adds lj and coulomb to `energies`, sets `gradient`.

    `columns` (4, P) are the coordinates and charges as `arrange` sorted them, `bias` (P,) is zero before
    and after, `table` (2, P) is scratch. A fixed row sees movable columns and adds no energy, which its
    partners' rows have.
    """
    rank, start = cells.rank, cells.start
    kind = -1
    repulsion, dispersion = pairs.repulsion[0], pairs.dispersion[0]
    for row in range(first, last):
        if pairs.kind[row] != kind:
            kind = pairs.kind[row]
            repulsion, dispersion = pairs.repulsion[kind], pairs.dispersion[kind]
            if pairs.cells:
                _sort(repulsion, cells.order, table[0])
                _sort(dispersion, cells.order, table[1])
                repulsion, dispersion = table[0], table[1]
        me = rank[row]
        bias[me] = BEYOND
        for e in range(pairs.exclusion_ptr[row], pairs.exclusion_ptr[row + 1]):
            bias[rank[pairs.exclusions[e]]] = BEYOND
        movable = row < pairs.movable
        nx, ny, nz = cells.dims[0], cells.dims[1], cells.dims[2]
        home = cells.cell_of[me]
        cx, cy, cz = home % nx, home // nx % ny, home // (nx * ny)
        gx = gy = gz = 0.0
        for fixed in range(2 if movable else 1):
            lj = coulomb = 0.0
            for z in range(max(cz - 1, 0), min(cz + 2, nz)):
                for y in range(max(cy - 1, 0), min(cy + 2, ny)):
                    line = (z * ny + y) * nx
                    low = start[fixed, line + max(cx - 1, 0)]
                    high = start[fixed, line + min(cx + 2, nx)]
                    for begin in range(low, high, RUN):
                        end = min(begin + RUN, high)
                        found = _run(columns, repulsion, dispersion, bias, me, begin, end, pairs)
                        lj += found[0]
                        coulomb += found[1]
                        gx += found[2]
                        gy += found[3]
                        gz += found[4]
            if movable:
                energies[0] += lj if fixed else 0.5 * lj
                energies[1] += coulomb if fixed else 0.5 * coulomb
        bias[me] = 0
        for e in range(pairs.exclusion_ptr[row], pairs.exclusion_ptr[row + 1]):
            bias[rank[pairs.exclusions[e]]] = 0
        atom = pairs.atoms[row]
        gradient[atom, 0] = gx
        gradient[atom, 1] = gy
        gradient[atom, 2] = gz


@jit
def _run(columns, repulsion, dispersion, bias, me, begin, end, pairs):
    """Sums over columns of lj, coulomb and the three components of the gradient of atom `me`."""
    x, y, z, q = columns[0, begin:end], columns[1, begin:end], columns[2, begin:end], columns[3, begin:end]
    a, b, offset = repulsion[begin:end], dispersion[begin:end], bias[begin:end]
    mine = columns[0, me], columns[1, me], columns[2, me], columns[3, me]
    constants = _constants(pairs, columns.dtype.type)
    total = sums(columns, 5, LANES)
    whole = len(x) // LANES * LANES
    for low in range(0, whole, LANES):
        for lane in range(LANES):
            j = np.uint64(low + lane)
            _add(total, lane, mine, x[j], y[j], z[j], q[j], a[j], b[j], offset[j], constants)
    for lane in range(len(x) - whole):
        j = np.uint64(whole + lane)
        _add(total, lane, mine, x[j], y[j], z[j], q[j], a[j], b[j], offset[j], constants)
    lj, coulomb, gx = sum_of_lanes(total, 0, LANES), sum_of_lanes(total, 1, LANES), sum_of_lanes(total, 2, LANES)
    return lj, coulomb, gx, sum_of_lanes(total, 3, LANES), sum_of_lanes(total, 4, LANES)


@jit
def _constants(pairs, real):
    """The squared cutoffs, k_rf and c_rf."""
    lj_limit = real(min(pairs.lj_cutoff * pairs.lj_cutoff, FARTHEST))
    coulomb_limit = real(min(pairs.coulomb_cutoff * pairs.coulomb_cutoff, FARTHEST))
    return lj_limit, coulomb_limit, real(pairs.k_rf), real(pairs.c_rf)


@jit
def _add(total, lane, mine, x, y, z, q, a, b, offset, constants):
    """Add what an atom has with a column to a lane of the five sums."""
    lj_limit, coulomb_limit, k_rf, c_rf = constants
    real = total.dtype.type
    zero, one, two, six, shortest = real(0), real(1), real(2), real(6), real(SHORTEST * SHORTEST)
    dx, dy, dz = mine[0] - x, mine[1] - y, mine[2] - z
    square = multiply_add(multiply_add(dx * dx, dy, dy), dz, dz)
    if square < shortest:
        square = shortest
    square += offset
    inverse = one / np.sqrt(square)
    w = inverse * inverse
    w3 = w * w * w
    attraction = b * w3
    repelled = a * (w3 * w3)
    if not square < lj_limit:
        attraction = zero
        repelled = zero
    qq = mine[3] * q
    if not square < coulomb_limit:
        qq = zero
        square = zero
    over = qq * inverse
    total[0, lane] += repelled - attraction
    total[1, lane] += multiply_add(over, qq, multiply_add(-c_rf, k_rf, square))
    slope = multiply_add(-over, six, multiply_add(attraction, -two, repelled))
    slope = multiply_add(two * qq * k_rf, w, slope)
    total[2, lane] += slope * dx
    total[3, lane] += slope * dy
    total[4, lane] += slope * dz


@jit
def _sort(values, order, out):
    for slot in range(len(out)):
        out[slot] = values[order[slot]]


@jit
def arrange(x, pairs, columns, cells):
    """Sort the places of `pairs` by cell, the movable ones first, and gather their coordinates and charges."""
    count, edge = len(pairs.atoms), max(pairs.lj_cutoff, pairs.coulomb_cutoff)
    low, scale = np.zeros(3), np.zeros(3)
    for axis in range(3):
        cells.dims[axis] = 1
    if pairs.cells and count:
        _grid(x, pairs.atoms, edge, cells.dims, low, scale)
    total = cells.dims[0] * cells.dims[1] * cells.dims[2]
    homes = np.empty(count, np.int64)
    for place in range(count):
        atom = pairs.atoms[place]
        home = 0
        for axis in range(2, -1, -1):
            cell = np.int64((x[atom, axis] - low[axis]) * scale[axis])
            home = home * cells.dims[axis] + max(0, min(cells.dims[axis] - 1, cell))
        homes[place] = home
    _count(homes, 0, pairs.movable, total, cells.start[0], cells)
    _count(homes, pairs.movable, count, total, cells.start[1], cells)
    for slot in range(count):
        atom = pairs.atoms[cells.order[slot]]
        for axis in range(3):
            columns[axis, slot] = x[atom, axis]
        columns[3, slot] = pairs.charge[cells.order[slot]]


@jit
def _grid(x, atoms, edge, dims, low, scale):
    """Cells no narrower than `edge`, and no more than there are atoms."""
    extent = np.zeros(3)
    for axis in range(3):
        least = most = float(x[atoms[0], axis])
        for atom in atoms:
            least, most = min(least, float(x[atom, axis])), max(most, float(x[atom, axis]))
        if not np.isfinite(most - least):
            return
        low[axis], extent[axis] = least, most - least
    while True:
        cells = 1.0
        for axis in range(3):
            cells *= max(1.0, np.floor(extent[axis] / edge))
        if not cells > len(atoms):
            break
        edge *= 1.25
    for axis in range(3):
        dims[axis] = np.int64(max(1.0, np.floor(extent[axis] / edge)))
        scale[axis] = dims[axis] / extent[axis] if dims[axis] > 1 else 0.0


@jit
def _count(homes, first, last, total, start, cells):
    """Counting sort of the places `first` to `last` into slots of that range."""
    for cell in range(total + 1):
        start[cell] = 0
    for place in range(first, last):
        start[homes[place] + 1] += 1
    start[0] = first
    for cell in range(total):
        start[cell + 1] += start[cell]
    for place in range(first, last):
        slot = start[homes[place]]
        start[homes[place]] = slot + 1
        cells.order[slot] = place
        cells.rank[place] = slot
        cells.cell_of[slot] = homes[place]
    for cell in range(total, 0, -1):
        start[cell] = start[cell - 1]
    start[0] = first
