"""AutoDock Vina's atom types of a protein and a ligand (Trott, Olson 2010; radii and types of X-Score)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._complex import Complex
from .._ligand import library
from ._description import VinaAtoms
from ._restraints import paths

Array = np.ndarray[Any, Any]

WEIGHTS = np.array([-0.035579, -0.005156, 0.840245, -0.035069, -0.587439])
"""Of gauss1, gauss2, repulsion, hydrophobic and hydrogen bond; as printed, they have three digits."""
ROTOR_WEIGHT = 0.05846

RADIUS = dict(C=1.9, N=1.8, O=1.7, F=1.5, P=2.1, S=2.0, Se=2.0, Cl=1.8, Br=2.0, I=2.2, Si=2.2)
METALS = ("Na", "Mg", "K", "Ca", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Cd", "Hg", "U")
_METAL_RADIUS = 1.2
_HALOGENS = ("F", "Cl", "Br", "I")
_HYDROGEN = ("H", "D")

_DONORS = {
    "ARG": {"NE", "NH1", "NH2"},
    "ASN": {"ND2"},
    "GLN": {"NE2"},
    "HIS": {"ND1", "NE2"},
    "LYS": {"NZ"},
    "SER": {"OG"},
    "THR": {"OG1"},
    "TRP": {"NE1"},
    "TYR": {"OH"},
}
"""Beside the nitrogen of the backbone, where a file has no hydrogens."""
_BACKBONE_ONLY = {"ALA", "ASP", "CYS", "GLU", "GLY", "ILE", "LEU", "MET", "MSE", "PHE", "PRO", "VAL"}
_SAME = {"HID": "HIS", "HIE": "HIS", "HIP": "HIS", "HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "CYX": "CYS", "CYM": "CYS"}
_WATER = {"HOH", "WAT", "DOD", "TIP3", "SOL"}
_HYDROXYL, _NITRILE = 1.31, 1.22
"""Bonds of C to O longer than the first are taken for C-OH, of C to N shorter than the second for C#N."""

_ACCEPTING = "[#8,$([#7;!+;!$([#7X3]a);!$([#7X3][#6X3]);!$([#7X3]S(=O)=O)])]"
"""Oxygens, and nitrogens with a lone pair that is not conjugated."""


def vina_atoms(complex: Complex, bonds: Array) -> VinaAtoms:
    """Types of all atoms; pairs within three of the `bonds` (n, 2) are excluded, and pairs within the ligand."""
    element = [each.capitalize() for each in complex.element]
    neighbours: list[list[int]] = [[] for _ in element]
    for i, j in complex.bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    scored = np.array([symbol not in _HYDROGEN for symbol in element], bool)
    radius = np.array([_radius(complex, atom, symbol) for atom, symbol in enumerate(element)])
    hydrophobic = np.array([_is_hydrophobic(element, atom, others) for atom, others in enumerate(neighbours)], bool)
    donor, acceptor = _protein(complex, element, neighbours)
    mine = complex.ligand_atoms
    donor[mine], acceptor[mine] = _ligand(complex.ligand)
    heavy = mine[scored[mine]]
    within = np.stack(np.triu_indices(len(heavy), 1), 1)
    near = [each[:, [0, -1]] for each in paths(bonds, len(element))]
    return VinaAtoms(
        scored, radius, hydrophobic, donor, acceptor, np.concatenate([*near, heavy[within]]), weights(complex.ligand)
    )


def weights(ligand: Any) -> Array:
    """The weights divided by 1 + w N, N the number of rotatable bonds of an RDKit molecule."""
    bare = library("rdkit.Chem").RemoveHs(ligand)
    rotors = int(library("rdkit.Chem.rdMolDescriptors").CalcNumRotatableBonds(bare))
    return np.asarray(WEIGHTS / (1 + ROTOR_WEIGHT * rotors))


def _radius(complex: Complex, atom: int, symbol: str) -> float:
    if symbol in METALS:
        return _METAL_RADIUS
    if symbol in _HYDROGEN:
        return 0.0
    if symbol not in RADIUS:
        raise ValueError(
            f"{complex.label(atom)} is {symbol}, for which AutoDock Vina has no type: expected one of "
            f"{', '.join((*RADIUS, *METALS))}; take the residue out, or use another force field"
        )
    return RADIUS[symbol]


def _is_hydrophobic(element: list[str], atom: int, others: list[int]) -> bool:
    return element[atom] in _HALOGENS or (
        element[atom] == "C" and all(element[other] in ("C", *_HYDROGEN) for other in others)
    )


def _ligand(molecule: Any) -> tuple[Array, Array]:
    donor, acceptor = (np.zeros(molecule.GetNumAtoms(), bool) for _ in range(2))
    for atom in molecule.GetAtoms():
        polar = atom.GetSymbol() in ("N", "O") and atom.GetTotalNumHs(includeNeighbors=True) > 0
        donor[atom.GetIdx()] = polar or atom.GetSymbol() in METALS
    pattern = library("rdkit.Chem").MolFromSmarts(_ACCEPTING)
    for match in molecule.GetSubstructMatches(pattern, maxMatches=len(acceptor) + 1):
        acceptor[match[0]] = True
    return donor, acceptor


def _protein(complex: Complex, element: list[str], neighbours: list[list[int]]) -> tuple[Array, Array]:
    """Donors and acceptors of what is not the ligand.

    Hydrogens tell donors where a residue has some. Without, standard residues have them by name, both
    nitrogens of histidine being donor and acceptor, and others by their bonds.
    """
    donor = np.array([symbol in METALS for symbol in element], bool)
    acceptor = np.array([symbol == "O" for symbol in element], bool)
    residues = complex.residue.tolist()
    protonated = {number for number, symbol in zip(residues, element, strict=True) if symbol in _HYDROGEN}
    for atom in range(complex.n_protein):
        if element[atom] not in ("N", "O"):
            continue
        residue, name = complex.residue_name[atom].upper(), complex.atom_name[atom].upper()
        residue = _SAME.get(residue, residue)
        standard = residue in _DONORS or residue in _BACKBONE_ONLY
        ring = residue == "HIS" and name in ("ND1", "NE2")
        if residues[atom] in protonated:
            donor[atom] = any(element[other] in _HYDROGEN for other in neighbours[atom])
            lone_pair = ring or (not standard and element[atom] == "N" and len(neighbours[atom]) < 3)
            acceptor[atom] |= lone_pair and not donor[atom]
        elif residue in _WATER:
            donor[atom] = True
        elif standard:
            donor[atom] = (name == "N" and residue != "PRO") or name in _DONORS.get(residue, ())
            acceptor[atom] |= ring
        else:
            donor[atom], acceptor[atom] = _by_bonds(complex.positions, element, neighbours, atom)
    return donor, acceptor


def _by_bonds(x: Array, element: list[str], neighbours: list[list[int]], atom: int) -> tuple[bool, bool]:
    """Donor, acceptor: of an N or O without hydrogens in a residue that is not standard."""
    others = neighbours[atom]
    alone = len(others) == 1
    length = float(np.linalg.norm(x[atom] - x[others[0]])) if alone else 0.0
    if element[atom] == "O":
        return not others or (alone and element[others[0]] == "C" and length > _HYDROXYL), True
    if alone:
        return length > _NITRILE, length <= _NITRILE
    return len(others) < 3, len(others) == 2
