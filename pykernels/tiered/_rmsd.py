"""Root-mean-square deviations of a ligand, alike atoms exchanged at will, and the choice of diverse poses."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ligand import library

Array = np.ndarray[Any, Any]
_TERMINAL = "[O,N;D1;$([O,N;D1]-[*]=[O,N;D1]),$([O,N;D1]=[*]-[O,N;D1])]~[*]"
_AUTOMORPHISMS = 20_000
"""At most so many ways to map the ligand onto itself are tried."""


def automorphisms(ligand: Any) -> Array:
    """(P, n): for each way to map the heavy atoms of an RDKit molecule onto themselves, the atoms in their order.

    Bonds keep their orders, but for those of terminal O and N that resonance makes alike, as in
    carboxylates. The first row is the heavy atoms themselves.
    """
    chem = library("rdkit.Chem")
    heavy = np.array([atom.GetIdx() for atom in ligand.GetAtoms() if atom.GetAtomicNum() > 1], np.int64)
    bare = chem.RWMol(ligand)
    for atom in sorted(set(range(ligand.GetNumAtoms())) - set(heavy.tolist()), reverse=True):
        bare.RemoveAtom(atom)
    for end, centre in bare.GetSubstructMatches(chem.MolFromSmarts(_TERMINAL)):
        bare.GetAtomWithIdx(end).SetFormalCharge(0)
        bare.GetBondBetweenAtoms(end, centre).SetBondType(chem.BondType.SINGLE)
    matches = bare.GetSubstructMatches(bare, uniquify=False, useChirality=False, maxMatches=_AUTOMORPHISMS)
    found: Array = heavy[np.array(matches, np.int64)]
    same = np.flatnonzero((found == heavy).all(1))
    return np.concatenate([heavy[None], np.delete(found, same, axis=0)])


def rmsd(poses: Array, reference: Array, mappings: Array) -> Array:
    """(n,): the deviation of ligand poses (n, atoms, 3) from one (atoms, 3), without alignment, over `mappings`."""
    there = reference[mappings[0]].astype(np.float64)
    least = np.full(len(poses), np.inf)
    for mapping in mappings:
        off = poses[:, mapping].astype(np.float64) - there
        least = np.minimum(least, np.einsum("nai,nai->n", off, off))
    deviation: Array = np.sqrt(least / len(there))
    return deviation


def select(totals: Array, poses: Array, mappings: Array, window: float, distance: float) -> list[str]:
    """Of each pose, "kept" or why not.

    From the lowest energy on, those are kept that are within `window` kcal/mol of it and at least `distance`
    angstrom (`rmsd`) from all kept before.
    """
    verdicts = ["energy is not finite"] * len(totals)
    kept: list[int] = []
    for pose in np.argsort(totals, kind="stable"):
        if not np.isfinite(totals[pose]):
            continue
        above = totals[pose] - totals[kept[0]] if kept else 0.0
        if above > window:
            verdicts[pose] = f"{above:.1f} kcal/mol above the lowest"
            continue
        distances = rmsd(poses[kept], poses[pose], mappings)
        if kept and distances.min() < distance:
            verdicts[pose] = f"within {distances.min():.2f} A of conformation {kept[int(distances.argmin())]}"
            continue
        kept.append(int(pose))
        verdicts[pose] = "kept"
    return verdicts
