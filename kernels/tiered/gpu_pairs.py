"""Lennard-Jones and Coulomb of all pairs: a program per 16 rows, which own their gradient.

Work per pair seen: 35 operations (one of them a reciprocal root) and two entries of the table, which
neighbouring programs, of other conformations, share in the caches. Every movable row sees every other
place, so pairs of two movable atoms are seen twice; the gradient needs no sums across programs.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .gpu_core import load3, store3
from .gpu_plan import PAIR_COLUMNS, PAIR_ROWS, EnergyPlan
from .problem import SHORTEST, Pairs

SHORTEST_SQUARED: tl.constexpr = tl.constexpr(SHORTEST * SHORTEST)

PLACES = 256
"""Places of a program that brings positions into the pairs' order."""

KEPT = 16
"""Pairs of each lane whose energies are added in the dtype of the positions before they are in float64."""


@triton.jit
def _places_kernel(x_ptr, atoms_ptr, places_ptr, B, N, P, width, BLOCK: tl.constexpr):
    b = (tl.program_id(0) % B).to(tl.int64)
    place = (tl.program_id(0) // B).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < P
    atom = tl.load(atoms_ptr + place, mask=inside, other=0)
    x = load3(x_ptr + (b * N + atom) * 3, 1, inside)
    store3(places_ptr + b * 3 * width + place, width, x, place < width)


@triton.jit
def _pairs_kernel(
    places_ptr, charge_ptr, kind_ptr, repulsion_ptr, dispersion_ptr, excluded_ptr, gradient_ptr, energies_ptr,
    B, P, width, movable, columns, first_lj, first_coulomb, lj_squared: tl.float64, coulomb_squared: tl.float64,
    k_rf: tl.float64, c_rf: tl.float64, LJ_CUT: tl.constexpr, COULOMB_CUT: tl.constexpr, FIELD: tl.constexpr,
    KEPT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Rows of movable places see all places; those of fixed ones the movable, and their energy was counted there."""
    b = (tl.program_id(0) % B).to(tl.int64)
    block = (tl.program_id(0) // B).to(tl.int64)
    blocks = tl.cdiv(movable, ROWS)
    moves = block < blocks
    first = tl.where(moves, block * ROWS, movable + (block - blocks) * ROWS)
    last = tl.where(moves, movable, P)
    stop = tl.where(moves, P, movable)
    place = first + tl.arange(0, ROWS)
    inside = place < last
    row = tl.minimum(place, last - 1)
    x_ptr = places_ptr + b * 3 * width
    x, y, z = load3(x_ptr + row, width, inside)
    number = x.dtype
    charge = tl.load(charge_ptr + row)
    kind = tl.load(kind_ptr + row) * width
    lj_limit, coulomb_limit = tl.full((), lj_squared, number), tl.full((), coulomb_squared, number)
    rise, fall = tl.full((), k_rf, number), tl.full((), c_rf, number)
    gx = tl.zeros((ROWS, COLUMNS), number)
    gy, gz = gx, gx
    lj_total = tl.zeros((ROWS,), tl.float64)
    coulomb_total = lj_total
    for some in range(0, stop, KEPT * COLUMNS):
        lj_sum = tl.zeros((ROWS, COLUMNS), number)
        coulomb_sum = lj_sum
        for start in range(some, tl.minimum(some + KEPT * COLUMNS, stop), COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            words = tl.load(excluded_ptr + row[:, None] * (width // 32) + (column // 32)[None, :])
            seen = (((words >> (column % 32)[None, :]) & 1) == 0) & (column < stop)[None, :]
            repulsion = tl.load(repulsion_ptr + kind[:, None] + column[None, :], mask=seen, other=0.0)
            dispersion = tl.load(dispersion_ptr + kind[:, None] + column[None, :], mask=seen, other=0.0)
            qq = tl.where(seen, charge[:, None] * tl.load(charge_ptr + column)[None, :], 0.0)
            dx = x[:, None] - tl.load(x_ptr + column)[None, :]
            dy = y[:, None] - tl.load(x_ptr + width + column)[None, :]
            dz = z[:, None] - tl.load(x_ptr + 2 * width + column)[None, :]
            square = dx * dx + dy * dy + dz * dz
            square = tl.where(square < SHORTEST_SQUARED, SHORTEST_SQUARED, square)
            inverse = tl.rsqrt(square) if number == tl.float32 else 1.0 / tl.sqrt(square)
            over = inverse * inverse
            sixth = over * over * over
            if LJ_CUT:
                sixth = tl.where(square < lj_limit, sixth, 0.0)
            if COULOMB_CUT:
                qq = tl.where(square < coulomb_limit, qq, 0.0)
            strong = repulsion * sixth
            slope = (6.0 * dispersion - 12.0 * strong) * sixth * over
            if FIELD:
                coulomb = qq * (inverse + rise * square - fall)
                slope += qq * (2.0 * rise - inverse * over)
            else:
                coulomb = qq * inverse
                slope -= coulomb * over
            share = tl.where(column < movable, 0.5, 1.0).to(number)[None, :]
            lj_sum += share * ((strong - dispersion) * sixth)
            coulomb_sum += share * coulomb
            gx += slope * dx
            gy += slope * dy
            gz += slope * dz
        lj_total += tl.sum(lj_sum.to(tl.float64), axis=1)
        coulomb_total += tl.sum(coulomb_sum.to(tl.float64), axis=1)
    gradient = tl.sum(gx, axis=1), tl.sum(gy, axis=1), tl.sum(gz, axis=1)
    store3(gradient_ptr + b * 3 * width + place, width, gradient, inside)
    energies = energies_ptr + b * columns + block
    tl.store(energies + first_lj, tl.sum(tl.where(inside, lj_total, 0.0), axis=0), mask=moves)
    tl.store(energies + first_coulomb, tl.sum(tl.where(inside, coulomb_total, 0.0), axis=0), mask=moves)


def pair_parts(
    positions: torch.Tensor,
    pairs: Pairs,
    everywhere: bool,
    plan: EnergyPlan,
    gradient: torch.Tensor,
    energies: torch.Tensor,
) -> int:
    """Gradients of the first places into `gradient` (B, 3, width), and how many; energies by block of rows."""
    B, N, _ = positions.shape
    P, movable = len(pairs.atoms), int(pairs.movable)
    if movable == 0:
        return 0
    places = torch.empty_like(gradient)
    _places_kernel[(B * triton.cdiv(plan.width, PLACES),)](
        positions, pairs.atoms, places, B, N, P, plan.width, BLOCK=PLACES, num_warps=4
    )
    visited = P if everywhere else movable
    blocks = triton.cdiv(movable, PAIR_ROWS) + triton.cdiv(visited - movable, PAIR_ROWS)
    cutoffs = float(pairs.lj_cutoff), float(pairs.coulomb_cutoff)
    field = float(pairs.k_rf), float(pairs.c_rf)
    _pairs_kernel[(B * blocks,)](
        places, plan.charge, pairs.kind, plan.repulsion, plan.dispersion, plan.excluded, gradient, energies,
        B, P, plan.width, movable, plan.columns, plan.first_column[7], plan.first_column[8],
        cutoffs[0] ** 2, cutoffs[1] ** 2, *field,
        LJ_CUT=cutoffs[0] < float("inf"), COULOMB_CUT=cutoffs[1] < float("inf"), FIELD=any(field),
        KEPT=KEPT, ROWS=PAIR_ROWS, COLUMNS=PAIR_COLUMNS, num_warps=8,
    )  # fmt: skip
    return visited
