"""Terms of named atoms: a program lane per term writes its forces and its energy, which `gpu_energy` gathers.

Their arithmetic is float64 also for float32 positions: it is a hundredth of the pairs', and cosines near
+-1 lose half of their angle's digits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .gpu_core import angle, arccos, bounded, cross, dot, float64, load3, minus, plus, scaled, store3
from .gpu_plan import TERM_BLOCK, EnergyPlan
from .problem import SHORTEST, Bonded

SHORT: tl.constexpr = tl.constexpr(SHORTEST)
TWO_PI: tl.constexpr = tl.constexpr(6.283185307179586)
SERIES: tl.constexpr = tl.constexpr(0)
PERIODIC: tl.constexpr = tl.constexpr(1)
IMPROPER: tl.constexpr = tl.constexpr(2)


@triton.jit
def _lanes(B, n, BLOCK: tl.constexpr):
    """The conformation of this program, its block, and the terms of its lanes."""
    block = (tl.program_id(0) // B).to(tl.int64)
    term = block * BLOCK + tl.arange(0, BLOCK)
    return (tl.program_id(0) % B).to(tl.int64), block, term, term < n


@triton.jit
def _corner(x_ptr, atoms_ptr, b, N, term, inside, NUMBER: tl.constexpr, WIDTH: tl.constexpr):
    """The place of one of a term's WIDTH atoms, float64."""
    atom = tl.load(atoms_ptr + term * WIDTH + NUMBER, mask=inside, other=0)
    return float64(load3(x_ptr + (b * N + atom) * 3, 1, inside))


@triton.jit
def _coefficient(ptr, term, inside, NUMBER: tl.constexpr, WIDTH: tl.constexpr):
    return tl.load(ptr + term * WIDTH + NUMBER, mask=inside, other=0.0).to(tl.float64)


@triton.jit
def _at_least(x, least):
    return tl.where(x < least, least, x)


@triton.jit
def _bond_kernel(
    x_ptr, atoms_ptr, bond_ptr, parts_ptr, energies_ptr, B, N, n, slots, first_slot, columns, first_column,
    BLOCK: tl.constexpr,
):  # fmt: skip
    b, block, term, inside = _lanes(B, n, BLOCK)
    v = minus(_corner(x_ptr, atoms_ptr, b, N, term, inside, 0, 2), _corner(x_ptr, atoms_ptr, b, N, term, inside, 1, 2))
    r = _at_least(tl.sqrt(dot(v, v)), SHORT)
    k = _coefficient(bond_ptr, term, inside, 0, 2)
    off = r - _coefficient(bond_ptr, term, inside, 1, 2)
    at_0 = scaled(2.0 * k * off / r, v)
    slot = parts_ptr + b * 3 * slots + first_slot + term
    store3(slot, slots, at_0, inside)
    store3(slot + n, slots, scaled(-1.0, at_0), inside)
    tl.store(energies_ptr + b * columns + first_column + block, tl.sum(k * off * off, axis=0))


@triton.jit
def _pair_kernel(
    x_ptr, atoms_ptr, pair_ptr, parts_ptr, energies_ptr, B, N, n, slots, first_slot, columns, first_lj, first_coulomb,
    BLOCK: tl.constexpr,
):  # fmt: skip
    b, block, term, inside = _lanes(B, n, BLOCK)
    v = minus(_corner(x_ptr, atoms_ptr, b, N, term, inside, 0, 2), _corner(x_ptr, atoms_ptr, b, N, term, inside, 1, 2))
    inverse = 1.0 / _at_least(tl.sqrt(dot(v, v)), SHORT)
    square = inverse * inverse
    sixth = square * square * square
    repulsion = _coefficient(pair_ptr, term, inside, 0, 3) * sixth * sixth
    dispersion = _coefficient(pair_ptr, term, inside, 1, 3) * sixth
    coulomb = _coefficient(pair_ptr, term, inside, 2, 3) * inverse
    at_0 = scaled((6.0 * dispersion - 12.0 * repulsion - coulomb) * square, v)
    slot = parts_ptr + b * 3 * slots + first_slot + term
    store3(slot, slots, at_0, inside)
    store3(slot + n, slots, scaled(-1.0, at_0), inside)
    row = energies_ptr + b * columns + block
    tl.store(row + first_lj, tl.sum(repulsion - dispersion, axis=0))
    tl.store(row + first_coulomb, tl.sum(coulomb, axis=0))


@triton.jit
def _angle_kernel(
    x_ptr, atoms_ptr, angle_ptr, parts_ptr, energies_ptr, B, N, n, slots, first_slot, columns, first_column,
    limit: tl.float64, BLOCK: tl.constexpr,
):  # fmt: skip
    """k (theta - theta0)^2 + k_ub (r13 - r_ub)^2"""
    b, block, term, inside = _lanes(B, n, BLOCK)
    x0 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 0, 3)
    x1 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 1, 3)
    x2 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 2, 3)
    p, q = minus(x0, x1), minus(x2, x1)
    over_p = 1.0 / _at_least(tl.sqrt(dot(p, p)), SHORT)
    over_q = 1.0 / _at_least(tl.sqrt(dot(q, q)), SHORT)
    p, q = scaled(over_p, p), scaled(over_q, q)
    cosine = dot(p, q)
    c = bounded(cosine, -limit, limit)
    k = _coefficient(angle_ptr, term, inside, 0, 4)
    off = arccos(c) - _coefficient(angle_ptr, term, inside, 1, 4)
    bent = tl.abs(cosine) < limit
    slope = tl.where(bent, -2.0 * k * off / tl.sqrt(tl.where(bent, 1.0 - c * c, 1.0)), 0.0)
    at_0 = scaled(slope * over_p, minus(q, scaled(c, p)))
    at_2 = scaled(slope * over_q, minus(p, scaled(c, q)))
    v = minus(x0, x2)
    r = _at_least(tl.sqrt(dot(v, v)), SHORT)
    k_ub = _coefficient(angle_ptr, term, inside, 2, 4)
    stretch = r - _coefficient(angle_ptr, term, inside, 3, 4)
    between = scaled(2.0 * k_ub * stretch / r, v)
    slot = parts_ptr + b * 3 * slots + first_slot + term
    store3(slot, slots, plus(at_0, between), inside)
    store3(slot + n, slots, scaled(-1.0, plus(at_0, at_2)), inside)
    store3(slot + 2 * n, slots, minus(at_2, between), inside)
    energy = tl.sum(k * off * off + k_ub * stretch * stretch, axis=0)
    tl.store(energies_ptr + b * columns + first_column + block, energy)


@triton.jit
def _cosine(v12, v32, v43):
    """The cosine of a dihedral, and its gradient with respect to the three vectors."""
    n1, n2 = cross(v12, v32), cross(v43, v32)
    over_1 = 1.0 / _at_least(tl.sqrt(dot(n1, n1)), SHORT * SHORT)
    over_2 = 1.0 / _at_least(tl.sqrt(dot(n2, n2)), SHORT * SHORT)
    n1, n2 = scaled(over_1, n1), scaled(over_2, n2)
    c = dot(n1, n2)
    at_n1, at_n2 = scaled(over_1, minus(n2, scaled(c, n1))), scaled(over_2, minus(n1, scaled(c, n2)))
    return c, cross(v32, at_n1), plus(cross(at_n1, v12), cross(at_n2, v43)), cross(v32, at_n2)


@triton.jit
def _signed_angle(v12, v32, v43):
    """A dihedral in (-pi, pi], and its gradient as that of `_cosine`."""
    n1, n2 = cross(v32, v12), cross(v32, v43)
    square = _at_least(dot(v32, v32), SHORT * SHORT)
    length = tl.sqrt(square)
    phi = angle(dot(n1, n2), -length * dot(v12, n2))
    at_0 = scaled(-length / _at_least(dot(n1, n1), SHORT * SHORT * SHORT * SHORT), n1)
    at_3 = scaled(length / _at_least(dot(n2, n2), SHORT * SHORT * SHORT * SHORT), n2)
    at_32 = minus(scaled(-dot(v12, v32) / square, at_0), scaled(dot(v43, v32) / square, at_3))
    return phi, at_0, at_32, at_3


@triton.jit
def _dihedral_kernel(
    x_ptr, atoms_ptr, dihedral_ptr, parts_ptr, energies_ptr, B, N, n, slots, first_slot, columns, first_column,
    limit: tl.float64, FORM: tl.constexpr, SIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A function of cos(phi), of phi in [0, pi] or, `SIGNED`, of phi in (-pi, pi]."""
    b, block, term, inside = _lanes(B, n, BLOCK)
    x0 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 0, 4)
    x1 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 1, 4)
    x2 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 2, 4)
    x3 = _corner(x_ptr, atoms_ptr, b, N, term, inside, 3, 4)
    v12, v32, v43 = minus(x0, x1), minus(x2, x1), minus(x3, x2)
    if SIGNED:
        phi, at_12, at_32, at_43 = _signed_angle(v12, v32, v43)
        rate = tl.full((BLOCK,), 1.0, tl.float64)
    else:
        cosine, at_12, at_32, at_43 = _cosine(v12, v32, v43)
        c = bounded(cosine, -limit, limit)
        bent = tl.abs(cosine) < limit
        rate = tl.where(bent, -1.0 / tl.sqrt(tl.where(bent, 1.0 - c * c, 1.0)), 0.0)
        phi = c if FORM == SERIES else arccos(c)
    if FORM == SERIES:
        energy = _coefficient(dihedral_ptr, term, inside, 5, 6)
        slope = tl.zeros((BLOCK,), tl.float64)
        for power in tl.static_range(4, -1, -1):
            slope = slope * c + energy
            energy = energy * c + _coefficient(dihedral_ptr, term, inside, power, 6)
        slope = tl.where(bent, slope, 0.0)
    elif FORM == PERIODIC:
        k = _coefficient(dihedral_ptr, term, inside, 0, 3)
        times = _coefficient(dihedral_ptr, term, inside, 1, 3)
        at = times * phi - _coefficient(dihedral_ptr, term, inside, 2, 3)
        energy, slope = k * (1.0 + tl.cos(at)), -k * times * tl.sin(at) * rate
    else:
        k = _coefficient(dihedral_ptr, term, inside, 0, 2)
        off = phi - _coefficient(dihedral_ptr, term, inside, 1, 2)
        if SIGNED:
            off -= TWO_PI * tl.floor(off / TWO_PI + 0.5)
        energy, slope = k * off * off, 2.0 * k * off * rate
    at_12, at_32, at_43 = scaled(slope, at_12), scaled(slope, at_32), scaled(slope, at_43)
    slot = parts_ptr + b * 3 * slots + first_slot + term
    store3(slot, slots, at_12, inside)
    store3(slot + n, slots, scaled(-1.0, plus(at_12, at_32)), inside)
    store3(slot + 2 * n, slots, minus(at_32, at_43), inside)
    store3(slot + 3 * n, slots, at_43, inside)
    tl.store(energies_ptr + b * columns + first_column + block, tl.sum(tl.where(inside, energy, 0.0), axis=0))


def bonded_parts(
    positions: torch.Tensor, bonded: Bonded, plan: EnergyPlan, parts: torch.Tensor, energies: torch.Tensor
) -> None:
    """The forces of all terms into `parts` (B, 3, slots), and their energies by block into `energies` (B, columns)."""
    B, N, _ = positions.shape
    slot, column, limit = plan.first_slot, plan.first_column, float(bonded.cos_limit)

    def of(number: int, atoms: torch.Tensor, coefficients: torch.Tensor) -> tuple[object, ...]:
        sizes = B, N, len(atoms), plan.slots, slot[number], plan.columns, column[number]
        return positions, atoms, coefficients, parts, energies, *sizes

    def grid(atoms: torch.Tensor) -> tuple[int]:
        return (B * triton.cdiv(len(atoms), TERM_BLOCK),)

    options = {"BLOCK": TERM_BLOCK, "num_warps": 4}
    if len(bonded.bond):
        _bond_kernel[grid(bonded.bond)](*of(0, bonded.bond_atoms, bonded.bond), **options)
    if len(bonded.angle):
        _angle_kernel[grid(bonded.angle)](*of(1, bonded.angle_atoms, bonded.angle), limit, **options)
    dihedrals = (
        (2, SERIES, bonded.series_atoms, bonded.series),
        (3, PERIODIC, bonded.periodic_atoms, bonded.periodic),
        (4, IMPROPER, bonded.improper_atoms, bonded.improper),
    )
    for number, form, atoms, coefficients in dihedrals:
        if len(atoms):
            signed = bool(bonded.signed) and form != SERIES
            arguments = of(number, atoms, coefficients)
            _dihedral_kernel[grid(atoms)](*arguments, limit, FORM=form, SIGNED=signed, **options)
    if len(bonded.pair):
        _pair_kernel[grid(bonded.pair)](*of(5, bonded.pair_atoms, bonded.pair), column[6], **options)
