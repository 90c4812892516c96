"""The built-in force field: a protein and a ligand as they were read, no preparation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._complex import Complex
from ._description import Description
from ._mmff import mmff_of
from ._restraints import restraints
from ._vina_types import METALS, vina_atoms

Array = np.ndarray[Any, Any]
_COORDINATION = 2.8
"""N, O and S of the protein are restrained to metal ions that are closer than this, in angstrom."""


def describe(
    complex: Complex, *, bond_stiffness: float = 300.0, angle_stiffness: float = 60.0, plane_stiffness: float = 30.0
) -> Description:
    """AutoDock Vina's terms, MMFF94 of the ligand, and restraints of the protein to its input geometry.

    Vina acts between heavy atoms, of ligand and protein and within the protein; not within the ligand,
    which has MMFF94, and not within three bonds. Its weights are divided by 1 + 0.05846 N for N rotatable
    bonds of the ligand. Hydrogens are not scored, and tell donors where a residue of the protein has some.
    Selenium counts as sulfur. Metal ions hold the N, O and S of the protein within 2.8 angstrom.

    Parameters
    ----------
    bond_stiffness : k of k (r - r0)^2, kcal/mol/angstrom^2
    angle_stiffness : k of k (theta - theta0)^2, kcal/mol/rad^2
    plane_stiffness : k of k (phi - phi0)^2, kcal/mol/rad^2, for the dihedrals of an atom and three of its
        neighbours, and about bonds that do not turn: in rings, and short ones such as peptide bonds

    Raises
    ------
    ValueError for elements that Vina has no type for, a ligand that MMFF94 has no parameters for, bonded
    atoms in one place, naming the atom; and for a stiffness that is not a number from 0.
    """
    stiffness = dict(bond_stiffness=bond_stiffness, angle_stiffness=angle_stiffness, plane_stiffness=plane_stiffness)
    for name, value in stiffness.items():
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}={value!r}: expected a number from 0")
    element = np.array([each.capitalize() for each in complex.element])
    bonds = np.concatenate([complex.bonds.reshape(-1, 2), _coordination(complex, element)])
    vina = vina_atoms(complex, bonds)
    start = complex.n_protein
    mmff = mmff_of(complex.ligand, lambda atom: complex.label(start + atom))
    mmff = type(mmff)(*(each + start if each.dtype == np.int64 else each for each in mmff))
    inside = (bonds >= start).all(1)
    bonded = restraints(
        complex.positions,
        bonds[~inside],
        element,
        **stiffness,
        label=complex.label,
        bendable=~np.isin(element, METALS),
    )
    return Description(len(element), bonded, None, vina, mmff)


def _coordination(complex: Complex, element: Array) -> Array:
    """Metal ions of the protein and the atoms that hold them, (n, 2)."""
    protein = element[: complex.n_protein]
    partners = np.flatnonzero(np.isin(protein, ("N", "O", "S")))
    rows = []
    for metal in np.flatnonzero(np.isin(protein, METALS)):
        distance = np.linalg.norm(complex.positions[partners] - complex.positions[metal], axis=1)
        rows += [(metal, atom) for atom in partners[distance < _COORDINATION]]
    return np.array(rows, np.int64).reshape(-1, 2)
