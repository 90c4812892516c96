"""The part of a complex that what moves can feel."""

from __future__ import annotations

import numpy as np

from ._complex import Array, Complex
from ._ligand import library

REACH = 12.0
"""The built-in force field's cutoff, 8 angstrom, and room to move."""


def surroundings(complex: Complex, moving: Array, reach: float = REACH) -> Array:
    """The atoms of all residues that have an atom within `reach` angstrom of one that moves, and the ligand's."""
    cells = library("biotite.structure").CellList(complex.positions.astype(np.float32), cell_size=reach)
    close = cells.get_atoms(complex.positions[moving].astype(np.float32), reach, as_mask=True).any(0)
    close[complex.n_protein :] = True
    return np.flatnonzero(np.isin(complex.residue, complex.residue[close]))


def trimmed(complex: Complex, atoms: Array) -> Complex:
    """The complex of `atoms` alone, ascending and with the whole ligand; bonds that leave them are dropped."""
    new = np.full(len(complex.positions), -1)
    new[atoms] = np.arange(len(atoms))
    bonds = new[complex.bonds]
    lists = ("element", "atom_name", "residue_name", "residue_number", "chain")
    return Complex(
        positions=complex.positions[atoms],
        residue=np.unique(complex.residue[atoms], return_inverse=True)[1],
        bonds=bonds[(bonds >= 0).all(1)],
        n_protein=int(np.sum(atoms < complex.n_protein)),
        ligand=complex.ligand,
        **{name: [getattr(complex, name)[atom] for atom in atoms] for name in lists},
    )
