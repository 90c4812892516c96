"""The tiers of a protein-ligand complex, as 3T builds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ._complex import Complex, check_complex
from ._ligand import library
from ._tiers import Tiers

Array = np.ndarray[Any, Any]
BACKBONE = frozenset(("N", "C", "O", "CA", "H", "HN", "H1", "H2", "H3", "OT1", "OT2", "OXT", "HA", "HA1", "HA2", "HA3"))
FLIPPABLE = frozenset(("HIS", "HID", "HIE", "HIP", "HSD", "HSE", "HSP", "PHE", "TRP", "TYR"))


@dataclass(frozen=True)
class BuiltTiers:
    """Tiers, and what their parts are called."""

    tiers: Tiers
    group_names: list[str]
    macro_names: list[str]
    flippable: Array
    """(A,) bool: axes of aromatic side chains, which a kick may turn by half a turn."""

    def only(self, atoms: Array) -> Tiers:
        """The tiers of `atoms` alone, ascending, in their numbering; they contain all that move, and all anchors."""
        new = np.full(self.tiers.n_atoms, -1)
        new[atoms] = np.arange(len(atoms))
        t, fixed = self.tiers, new[self.tiers.fixed_atoms]
        axes = (t.axis_group, new[t.axis_anchor], new[t.axis_bonded])
        return Tiers(len(atoms), t.group_ptr, new[t.group_atoms], t.macro_of_group, *axes, fixed[fixed >= 0])


def build_tiers(complex: Complex, radius: float = 20.0, centre: Any = None) -> BuiltTiers:
    """The groups, axes and macro-groups of the pocket and the ligand; all other atoms are fixed.

    An amino acid, a residue with atoms N, CA and C, is two groups: its backbone, by the names of the atoms,
    and its side chain. Any other residue is one group: a nucleotide, a cofactor, an ion. The ligand's
    groups are what its rotatable bonds (RDKit's definition, bonds to hydrogens' heavy atoms included, as
    published) leave connected. A group turns about an axis if one bond, and one only, leaves it: a side
    chain whose disulfide or ring returns to the backbone has none. Macro-groups are the loops, runs of
    residues that are neither helix nor strand by biotite's `annotate_sse`, and last the whole ligand.

    Parameters
    ----------
    complex : of `read_complex`
    radius : angstrom. Of the protein, those groups move that have an atom this close to `centre`; at radius
        0 the ligand moves alone.
    centre : three numbers; the mean of the ligand's atoms if None

    Raises
    ------
    TypeError for what is no `Complex`; ValueError for a radius that is negative and a centre that is not three
    numbers.

    Examples
    --------
    >>> from pykernels.tiered import build_tiers, read_complex
    >>> built = build_tiers(read_complex("protein.pdb", "ligand.sdf"), radius=8.0)  # doctest: +SKIP
    >>> built.tiers  # doctest: +SKIP
    """
    check_complex(complex)
    if not 0 <= radius < np.inf:
        raise ValueError(f"radius={radius!r}: expected a length in angstrom, at least 0")
    x = complex.positions
    middle = x[complex.n_protein :].mean(0) if centre is None else np.asarray(centre, np.float64)
    if middle.shape != (3,) or not np.isfinite(middle).all():
        raise ValueError(f"centre={centre!r}: expected three numbers in angstrom")
    near = np.linalg.norm(x - middle, axis=1) <= radius

    groups, names, residues = [], [], []
    for residue, parts in enumerate(_residues(complex)):
        for part, name in parts:
            if near[part].any() and radius > 0:
                groups.append(part)
                names.append(name)
                residues.append(residue)
    macros, macro_names = _loops(complex, residues)
    fragments = ligand_fragments(complex.ligand)
    groups += [fragment + complex.n_protein for fragment in fragments]
    names += [f"ligand fragment {number}" for number in range(len(fragments))]
    macros += [len(macro_names)] * len(fragments)

    axis_group, anchor, bonded = _axes(groups, complex).T
    fixed = np.setdiff1d(np.arange(len(x)), np.concatenate(groups))
    pointers = np.concatenate([[0], np.cumsum([len(group) for group in groups])])
    tiers = Tiers(len(x), pointers, np.concatenate(groups), np.array(macros), axis_group, anchor, bonded, fixed)
    flippable = [
        complex.residue_name[atom] in FLIPPABLE and complex.atom_name[atom] == "CA" and atom < complex.n_protein
        for atom in tiers.axis_anchor
    ]
    return BuiltTiers(tiers, names, [*macro_names, "ligand"], np.array(flippable, bool))


def ligand_fragments(ligand: Any) -> list[Array]:
    """The atoms of an RDKit molecule's parts between its rotatable bonds, each part ascending, in order."""
    chem = library("rdkit.Chem")
    pattern = library("rdkit.Chem.Lipinski").RotatableBondSmarts
    cut = [ligand.GetBondBetweenAtoms(*pair).GetIdx() for pair in ligand.GetSubstructMatches(pattern)]
    whole = chem.FragmentOnBonds(ligand, cut, addDummies=False) if cut else ligand
    return sorted((np.array(sorted(part)) for part in chem.GetMolFrags(whole)), key=lambda part: int(part[0]))


def _residues(complex: Complex) -> list[list[tuple[Array, str]]]:
    """The groups of each residue of the protein, with names."""
    found = []
    protein = complex.residue[: complex.n_protein]
    bounds = np.flatnonzero(np.diff(protein, prepend=-1, append=-1))
    for start, stop in pairwise(bounds):
        atoms, names = np.arange(start, stop), complex.atom_name[start:stop]
        label = complex.label(int(start)).split(" of ", 1)[1]
        if not {"N", "CA", "C"} <= set(names):
            found.append([(atoms, label)])
            continue
        inner = np.array([name in BACKBONE for name in names])
        parts = [(atoms[inner], f"backbone of {label}"), (atoms[~inner], f"side chain of {label}")]
        found.append([part for part in parts if len(part[0])])
    return found


def _loops(complex: Complex, residues: Sequence[int]) -> tuple[list[int], list[str]]:
    """The loop of each group's residue, or -1, and the names of the loops that have a group."""
    kinds, follows = secondary_structure(complex)
    of_residue = np.full(len(kinds), -1)
    number = -1
    for residue, kind in enumerate(kinds):
        if kind == "c":
            number += not (follows[residue] and kinds[residue - 1] == "c")
            of_residue[residue] = number
    present = [loop for loop in dict.fromkeys(of_residue[list(residues)].tolist()) if loop >= 0]
    names = []
    first = np.flatnonzero(np.diff(complex.residue, prepend=-1))
    for loop in present:
        members = np.flatnonzero(of_residue == loop)
        ends = [f"{complex.residue_name[first[m]]} {complex.residue_number[first[m]]}" for m in members[[0, -1]]]
        names.append(f"loop {ends[0]} to {ends[1]} in chain {complex.chain[first[members[0]]] or '-'}")
    renumbered = {loop: i for i, loop in enumerate(present)} | {-1: -1}
    return [renumbered[int(of_residue[residue])] for residue in residues], names


def secondary_structure(complex: Complex) -> tuple[list[str], Array]:
    """Of each residue of the protein: "a" (helix), "b" (strand), "c" (coil) or "" (no amino acid).

    Also (residues,) bool: whether a bond joins it to the one before.
    """
    struc = library("biotite.structure")
    residue = complex.residue[: complex.n_protein]
    steps = np.sort(complex.residue[complex.bonds], 1)
    follows = np.zeros(residue.max(initial=-1) + 1, bool)
    follows[steps[(steps[:, 1] == steps[:, 0] + 1) & (steps[:, 1] < len(follows)), 1]] = True
    atoms = struc.AtomArray(complex.n_protein)
    atoms.coord = complex.positions[: complex.n_protein].astype(np.float32)
    atoms.res_id = (np.arange(len(follows)) + np.cumsum(~follows))[residue]  # a gap in number where the chain breaks
    for name in ("res_name", "atom_name", "element"):
        atoms.set_annotation(name, np.array(getattr(complex, name.replace("res_", "residue_"))[: complex.n_protein]))
    return [str(kind) for kind in struc.annotate_sse(atoms)], follows


def _axes(groups: list[Array], complex: Complex) -> Array:
    """(A, 3): group, atom outside, atom inside, where a single bond leaves a group."""
    owner = np.full(len(complex.positions), -1)
    for number, group in enumerate(groups):
        owner[group] = number
    pairs = np.concatenate([complex.bonds, complex.bonds[:, ::-1]])
    pairs = pairs[(owner[pairs[:, 0]] != owner[pairs[:, 1]]) & (owner[pairs[:, 1]] >= 0)]
    leaving = np.bincount(owner[pairs[:, 1]], minlength=len(groups))
    pairs = pairs[leaving[owner[pairs[:, 1]]] == 1]
    pairs = pairs[np.argsort(owner[pairs[:, 1]], kind="stable")]
    return np.stack([owner[pairs[:, 1]], pairs[:, 0], pairs[:, 1]], 1).astype(np.int64)
