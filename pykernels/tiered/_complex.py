"""A protein and a ligand as read from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def check_complex(complex: Any) -> None:
    if not isinstance(complex, Complex):
        raise TypeError(f"complex is a {type(complex).__name__}: expected a Complex, as read_complex gives")


@dataclass(frozen=True)
class Complex:
    """Atoms of the protein (and what else its file holds), then those of the ligand with all its hydrogens.

    `element`, `atom_name`, `residue_name`, `residue_number` (with the insertion code) and `chain` are lists
    of N strings; `residue` (N,) numbers the residues from 0, the ligand last. `bonds` (n, 2) are covalent.
    `ligand` is an RDKit molecule with explicit hydrogens and one conformer, whose atom i is atom
    ``n_protein + i`` here.
    """

    positions: Array  # (N, 3) angstrom, float64
    element: list[str]
    atom_name: list[str]
    residue_name: list[str]
    residue_number: list[str]
    chain: list[str]
    residue: Array
    bonds: Array
    n_protein: int
    ligand: Any

    @property
    def ligand_atoms(self) -> Array:
        return np.arange(self.n_protein, len(self.positions))

    def label(self, atom: int) -> str:
        """The name of an atom as messages give it, such as ``CA of ALA 45 in chain A``."""
        return (
            f"{self.atom_name[atom]} of {self.residue_name[atom]} {self.residue_number[atom]} in chain "
            f"{self.chain[atom] or '-'}"
        )
