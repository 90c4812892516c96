"""MMFF94 of an RDKit molecule, as RDKit assigns it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from ...kernels.tiered.problem import Mmff
from .._ligand import library

Array = np.ndarray[Any, Any]
_KCAL = 143.9325
"""kcal/mol in a millidyne angstrom."""
_COULOMB, _SCALE_14 = 332.0716, 0.75
_LINEAR_TYPES = (4, 53, 61)
"""Atom types whose angles are linear: CSP, =N=, NR%."""
_ELEMENTS = ("H", "Li", "C", "N", "O", "F", "Na", "Mg", "Si", "P", "S", "Cl", "K", "Ca", "Fe", "Cu", "Zn", "Br", "I")


def mmff_of(molecule: Any, label: Callable[[int], str] = str) -> Mmff:
    """The terms of a molecule with explicit hydrogens; indices are its own.

    Electrostatics have a constant dielectric of 1. Pairs count at any distance.

    Raises
    ------
    ValueError for a molecule that MMFF94 has no parameters for: `label` names the atom.
    """
    properties = library("rdkit.Chem.rdForceFieldHelpers").MMFFGetMoleculeProperties(molecule, "MMFF94")
    if properties is None:
        raise ValueError(
            f"MMFF94 has no parameters for {label(_culprit(molecule))} of the ligand: use a force field that has, by "
            "ForceField.from_openmm, or another ligand"
        )
    return Mmff(
        *_table(_bonds(molecule, properties), 2, 2),
        *_table(_angles(molecule, properties), 3, 7),
        *_table(_planes(molecule, properties), 4, 1),
        *_table(_torsions(molecule, properties), 4, 6),
        *_table(_pairs(molecule, properties), 2, 3),
    )


Rows = list[tuple[tuple[int, ...], tuple[float, ...]]]


def _table(rows: Rows, atoms: int, columns: int) -> tuple[Array, Array]:
    return (
        np.array([row[0] for row in rows], np.int64).reshape(-1, atoms),
        np.array([row[1] for row in rows], np.float64).reshape(-1, columns),
    )


def _bonds(molecule: Any, properties: Any) -> Rows:
    rows: Rows = []
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        found = properties.GetMMFFBondStretchParams(molecule, *ends)
        if found:
            rows.append((ends, (_KCAL / 2 * found[1], found[2])))
    return rows


def _angles(molecule: Any, properties: Any) -> Rows:
    rows: Rows = []
    for j, neighbours in enumerate(_neighbours(molecule)):
        linear = properties.GetMMFFAtomType(j) in _LINEAR_TYPES
        for i, k in combinations(neighbours, 2):
            bend = properties.GetMMFFAngleBendParams(molecule, i, j, k)
            if not bend:
                continue
            couple, lengths = (0.0, 0.0), (0.0, 0.0)
            stretch = None if linear else properties.GetMMFFStretchBendParams(molecule, i, j, k)
            if stretch:
                couple = _KCAL * stretch[1], _KCAL * stretch[2]
                bonds = (properties.GetMMFFBondStretchParams(molecule, end, j) for end in (i, k))
                lengths = tuple(bond[2] for bond in bonds)
            stiffness = (_KCAL if linear else _KCAL / 2) * bend[1]
            rows.append(((i, j, k), (stiffness, np.radians(bend[2]), float(linear), *couple, *lengths)))
    return rows


def _planes(molecule: Any, properties: Any) -> Rows:
    rows: Rows = []
    for j, neighbours in enumerate(_neighbours(molecule)):
        if len(neighbours) != 3:
            continue
        p, q, r = neighbours
        stiffness = properties.GetMMFFOopBendParams(molecule, p, j, q, r)
        if stiffness:
            rows += [((a, j, b, c), (_KCAL / 2 * stiffness,)) for a, b, c in ((p, q, r), (p, r, q), (q, r, p))]
    return rows


def _torsions(molecule: Any, properties: Any) -> Rows:
    """Torsions about bonds of atoms that are neither linear nor at an end, not across triangles."""
    chem = library("rdkit.Chem")
    bendable = (chem.HybridizationType.SP2, chem.HybridizationType.SP3)
    pattern = chem.MolFromSmarts("[!$(*#*)&!D1]~[!$(*#*)&!D1]")
    neighbours = _neighbours(molecule)
    rows: Rows = []
    for j, k in molecule.GetSubstructMatches(pattern, maxMatches=molecule.GetNumBonds() + 1):
        if any(molecule.GetAtomWithIdx(atom).GetHybridization() not in bendable for atom in (j, k)):
            continue
        for i in neighbours[j]:
            for m in neighbours[k]:
                if i == k or m in (i, j):
                    continue
                found = properties.GetMMFFTorsionParams(molecule, i, j, k, m)
                if found:
                    v1, v2, v3 = found[1:]
                    rows.append(((i, j, k, m), ((v1 + 2 * v2 + v3) / 2, (v1 - 3 * v3) / 2, -v2, 2 * v3, 0.0, 0.0)))
    return rows


def _pairs(molecule: Any, properties: Any) -> Rows:
    apart = library("rdkit.Chem").GetDistanceMatrix(molecule)
    charge = [properties.GetMMFFPartialCharge(i) for i in range(molecule.GetNumAtoms())]
    rows: Rows = []
    for i, j in zip(*np.nonzero(np.triu(apart > 2, 1)), strict=True):
        pair = int(i), int(j)
        _, _, star, depth = properties.GetMMFFVdWParams(*pair)
        scale = _SCALE_14 if apart[pair] == 3 else 1.0
        rows.append((pair, (star, depth, _COULOMB * scale * charge[pair[0]] * charge[pair[1]])))
    return rows


def _neighbours(molecule: Any) -> list[list[int]]:
    return [[other.GetIdx() for other in atom.GetNeighbors()] for atom in molecule.GetAtoms()]


def _culprit(molecule: Any) -> int:
    """The atom that has no type: of an element without parameters, or else whose surroundings all lack them."""
    chem, helpers = library("rdkit.Chem"), library("rdkit.Chem.rdForceFieldHelpers")
    for atom in molecule.GetAtoms():
        if atom.GetSymbol() not in _ELEMENTS:
            return int(atom.GetIdx())
    whole = chem.Mol(molecule)
    chem.Kekulize(whole, clearAromaticFlags=True)
    failed, seen = np.zeros(whole.GetNumAtoms()), np.zeros(whole.GetNumAtoms())
    for atom in whole.GetAtoms():
        around: dict[int, int] = {}
        bonds = chem.FindAtomEnvironmentOfRadiusN(whole, 1, atom.GetIdx())
        part = chem.PathToSubmol(whole, list(bonds), atomMap=around)
        with library("rdkit.rdBase").BlockLogs():
            unsound = chem.SanitizeMol(part, catchErrors=True)
            typed = unsound or helpers.MMFFHasAllMoleculeParams(chem.AddHs(part))
        for member in around:
            seen[member] += 1
            failed[member] += not typed
    number = np.array([atom.GetAtomicNum() for atom in whole.GetAtoms()])
    return int(np.argmax(failed / np.maximum(seen, 1) + 1e-6 * number))
