"""What the launchers of all backends take: arrays of NumPy, or of torch for the gpu launchers.

Floating arrays have the dtype of the positions, float32 or float64; indices are int64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

TERMS = ("bond", "angle", "dihedral", "improper", "cmap", "lj", "coulomb", "vina", "mmff")
"""The columns of `energy`'s terms."""

SHORTEST = 0.01
"""Pairs that are closer than this, in angstrom, count as this far apart."""


class Tree(NamedTuple):
    """Which points move together."""

    group_ptr: Any  # (G + 1,): the points of group g are group_atoms[group_ptr[g] : group_ptr[g + 1]]
    group_atoms: Any  # (n,)
    macro_of_group: Any  # (G,), or -1
    macro_ptr: Any  # (M + 1,): the groups of macro-group m are macro_groups[macro_ptr[m] : macro_ptr[m + 1]]
    macro_groups: Any
    axis_of_group: Any  # (G,): the number of the group's axis, or -1
    axis_anchor: Any  # (A,)
    axis_bonded: Any  # (A,)
    loose: Any  # (N - n,): the points of no group
    fixed: Any  # (N,) uint8: points whose gradient is zero


class Motion(NamedTuple):
    """The parameters of a transform, or the gradient with respect to them."""

    translation: Any  # (B, G, 3)
    euler: Any  # (B, G, 3)
    axis: Any  # (B, A)
    macro_translation: Any  # (B, M, 3)
    macro_euler: Any  # (B, M, 3)


class State(NamedTuple):
    """What a descent of B conformations changes: the points, the parameters, and the moments of both."""

    positions: Any  # (B, N, 3)
    motion: Motion
    first: Any
    first_motion: Motion
    second: Any
    second_motion: Motion


class Rule(NamedTuple):
    """Adam's constants."""

    beta1: float
    beta2: float
    epsilon: float
    clip: float


class Bonded(NamedTuple):
    """Terms of named atoms. Any of them may be empty."""

    bond_atoms: Any  # (n, 2)
    bond: Any  # (n, 2): k, r0
    angle_atoms: Any  # (n, 3)
    angle: Any  # (n, 4): k, theta0, k_ub, r_ub
    series_atoms: Any  # (n, 4)
    series: Any  # (n, 6): A0..A5 of sum A_n cos^n(phi)
    periodic_atoms: Any  # (n, 4)
    periodic: Any  # (n, 3): K, n, d of K (1 + cos(n phi - d))
    improper_atoms: Any  # (n, 4)
    improper: Any  # (n, 2): k, ref
    cmap_atoms: Any  # (n, 5): phi of the first four, psi of the last four
    cmap_map: Any  # (n,): the map of each
    cmap: Any  # (maps, size, size, 4, 4): E = sum c_ij u^i w^j in the cell of phi, psi from 0 to 2 pi, u, w in [0, 1)
    pair_atoms: Any  # (n, 2): pairs with a rule of their own, no cutoff (1-4 pairs; not seen by `Pairs`)
    pair: Any  # (n, 3): a, b, c of a / r^12 - b / r^6, which is "lj", and c / r, "coulomb"
    cos_limit: Any  # float: cosines of angles, dihedrals and impropers are clamped to +-this
    signed: Any  # bool: whether phi of periodic and improper terms has a sign


class Pairs(NamedTuple):
    """Lennard-Jones and Coulomb of all pairs of the atoms listed, at least one of the two movable.

    Atoms are in an order of their own, the movable ones first; what is per atom or a place below is in
    that order.
    """

    atoms: Any  # (P,): the atom in each place
    movable: Any  # int: places below this are of movable atoms
    charge: Any  # (P,): times the square root of the Coulomb constant
    kind: Any  # (P,): the row of repulsion and dispersion
    repulsion: Any  # (T, P): 4 eps s^12 of an atom of each kind with the atom in each place
    dispersion: Any  # (T, P): 4 eps s^6
    exclusion_ptr: Any  # (P + 1,)
    exclusions: Any  # places that the atom in a place does not interact with, ascending, both ways round
    lj_cutoff: Any  # float, or inf
    coulomb_cutoff: Any  # float, or inf
    k_rf: Any  # float
    c_rf: Any  # float
    cells: Any  # bool: whether to find pairs within the cutoffs by cells; else all pairs are visited


class Vina(NamedTuple):
    """AutoDock Vina's terms for all pairs of the heavy atoms listed, at least one of them movable; as `Pairs`."""

    atoms: Any  # (P,): movable ones first
    movable: Any  # int
    radius: Any  # (P,)
    hydrophobic: Any  # (P,): 0 or 1
    donor: Any  # (P,): 0 or 1
    acceptor: Any  # (P,): 0 or 1
    exclusion_ptr: Any  # (P + 1,)
    exclusions: Any
    weights: Any  # (5,): gauss1, gauss2, repulsion, hydrophobic, hydrogen bond; already divided by 1 + w N_rot
    cutoff: Any  # float


class Mmff(NamedTuple):
    """MMFF94 of a molecule; the constants are folded in, so that coefficients are in kcal/mol, angstrom, radian."""

    bond_atoms: Any  # (n, 2)
    bond: Any  # (n, 2): k, r0 of k d^2 (1 - 2 d + 7/12 4 d^2), d = r - r0
    angle_atoms: Any  # (n, 3)
    angle: Any  # (n, 7): k, theta0, linear (0 or 1), k_ijk, k_kji, r0_ij, r0_kj; the last four of stretch-bend
    plane_atoms: Any  # (n, 4): i, j, k, l: l out of the plane of i, j, k; j is central
    plane: Any  # (n, 1): k of k chi^2
    series_atoms: Any  # (n, 4)
    series: Any  # (n, 6): torsions as a polynomial in cos(phi)
    pair_atoms: Any  # (n, 2)
    pair: Any  # (n, 3): R*, eps of the buffered 14-7, and c of c / (r + 0.05)


class System(NamedTuple):
    """Everything that has an energy."""

    bonded: Bonded
    pairs: Pairs
    vina: Vina
    mmff: Mmff


class Cells(NamedTuple):
    """The places of `Pairs`, sorted by cell into slots: what the cpu kernels find neighbours by."""

    dims: Any  # (3,)
    start: Any  # (2, P + 2): the first slot of each cell, x fastest; of movable and of fixed places
    order: Any  # (P,): the place in each slot
    rank: Any  # (P,): the slot of each place
    cell_of: Any  # (P,): the cell of each slot
