"""PoseBusters' checks of conformations."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pykernels.tiered._complex import Complex

Array = np.ndarray[Any, Any]

CHECKS = {
    "bond lengths": ("bond_lengths",),
    "bond angles": ("bond_angles",),
    "flat rings and bonds": ("aromatic_ring_flatness", "double_bond_flatness"),
    "no clash inside": ("internal_steric_clash",),
    "chirality": ("tetrahedral_chirality", "double_bond_stereochemistry"),
    "no clash with protein": ("minimum_distance_to_protein", "volume_overlap_with_protein"),
}

FAR = 15.0
"""Atoms this far from the crystal's ligand, in angstrom, cannot touch a pose."""


def passed(protein: Path, crystal: Complex, poses: Sequence[Array], quick: bool = True) -> dict[str, Array]:
    """For each of `CHECKS`, and for "all" that PoseBusters has but the RMSD: whether each pose (N, 3) passes.

    A pose is of all atoms of the complex. `quick` leaves out the ratio of the conformation's energy to those
    of others.
    """
    buster = importlib.import_module("posebusters").PoseBusters("redock_fast" if quick else "redock")
    chem = importlib.import_module("rdkit.Chem")
    receptor = _around(chem, protein, crystal.positions[crystal.n_protein :])
    rows = _same_places(receptor.GetConformer().GetPositions(), crystal.positions[: crystal.n_protein])
    found: dict[str, list[bool]] = {name: [] for name in (*CHECKS, "all")}
    for pose in poses:
        places = receptor.GetConformer().GetPositions()
        places[rows >= 0] = pose[rows[rows >= 0]]
        moved, ligand = chem.Mol(receptor), chem.Mol(crystal.ligand)
        moved.GetConformer().SetPositions(np.ascontiguousarray(places, np.float64))
        ligand.GetConformer().SetPositions(np.ascontiguousarray(pose[crystal.n_protein :], np.float64))
        report = buster.bust(chem.RemoveHs(ligand), chem.RemoveHs(crystal.ligand), moved).iloc[0]
        named = {name: bool(value) for name, value in report.items() if not name.startswith("rmsd")}
        for name, columns in CHECKS.items():
            found[name].append(all(named[column] for column in columns))
        found["all"].append(all(named.values()))
    return {name: np.array(values, bool) for name, values in found.items()}


def _around(chem: Any, protein: Path, ligand: Array) -> Any:
    """The molecule of a PDB file, without the atoms that are `FAR` from a ligand (n, 3)."""
    near = chem.RWMol(chem.MolFromPDBFile(str(protein), sanitize=False, removeHs=False, proximityBonding=False))
    places = near.GetConformer().GetPositions()
    closest = np.min([np.sum((places - each) ** 2, 1) for each in ligand], axis=0)
    near.BeginBatchEdit()
    for atom in np.flatnonzero(closest > FAR**2).tolist():
        near.RemoveAtom(atom)
    near.CommitBatchEdit()
    return near.GetMol()


def _same_places(x: Array, y: Array) -> Array:
    """For each point of x the row of y that is where it is, to the thousandth, or -1."""
    rows = {tuple(place): row for row, place in enumerate(np.round(1000 * y).astype(int).tolist())}
    return np.array([rows.get(tuple(place), -1) for place in np.round(1000 * x).astype(int).tolist()])
