"""Ensemble: conformations of a complex, and the files that they are written to."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._complex import Complex
from ._ligand import library

Array = np.ndarray[Any, Any]
_POLYMERS = ("filter_amino_acids", "filter_nucleotides")


@dataclass(frozen=True)
class Ensemble:
    """n conformations of a complex; arrays are in the order in which conformations were drawn.

    Attributes
    ----------
    complex : as read; all atoms that are not in `moved` stay where it has them
    moved : (m,) the atoms that may differ
    positions : (n, m, 3) where they are, angstrom
    terms : energies by term, (n,) each, kcal/mol; `total` is their sum
    settling : (steps,) total energy before each step of the stages that all conformations share
    history : (steps, n) total energy before each step of the relaxation
    ligand_rmsd, pocket_rmsd : (n,) deviation from the input of the heavy atoms of the ligand (alike atoms
        exchanged at will) and of the protein's that moved, angstrom, without alignment
    verdict : n strings, "kept" or why a conformation was not
    """

    complex: Complex
    moved: Array
    positions: Array
    terms: dict[str, Array]
    total: Array
    settling: Array
    history: Array
    ligand_rmsd: Array
    pocket_rmsd: Array
    verdict: list[str]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def kept(self) -> list[int]:
        """The diverse conformations of low energy, the lowest first."""
        chosen = [i for i, verdict in enumerate(self.verdict) if verdict == "kept"]
        return sorted(chosen, key=lambda i: float(self.total[i]))

    def coordinates(self, conformation: int) -> Array:
        """All atoms of one conformation (N, 3), float64."""
        x: Array = self.complex.positions.copy()
        x[self.moved] = self.positions[conformation]
        return x

    def ligand(self, conformation: int) -> Any:
        """The ligand of one conformation, an RDKit molecule."""
        chem = library("rdkit.Chem")
        pose = chem.Mol(self.complex.ligand)
        pose.GetConformer().SetPositions(self.coordinates(conformation)[self.complex.n_protein :])
        pose.SetProp("conformation", str(conformation))
        pose.SetProp("energy", f"{self.total[conformation]:.3f}")
        return pose

    def write(self, out: Any) -> list[str]:
        """Write the kept conformations and the table of all of them; returns what was not written, and why.

        `out`, which ends in .pdb, gets one model for each kept conformation, of protein and ligand, in order
        of energy; the file of the same name in .sdf their ligands, in .csv a row for each conformation, in
        .png the energies against steps and RMSD if matplotlib is installed. Each file is put in its place
        once it is complete.
        """
        out = pdb_path(out)
        in_place(out, lambda path: _write_pdb(self, path))
        in_place(out.with_suffix(".sdf"), lambda path: _write_sdf(self, path))
        in_place(out.with_suffix(".csv"), lambda path: _write_csv(self, path))
        try:
            from ._plots import plot
        except ImportError:
            return [f"{out.with_suffix('.png')}: matplotlib is not installed (pip install matplotlib)"]
        in_place(out.with_suffix(".png"), lambda path: plot(self, path))
        return []


def pdb_path(out: Any) -> Path:
    """`out` as a path, which must end in .pdb, of a file in a folder that exists."""
    path = Path(out)
    if path.suffix.lower() != ".pdb":
        raise ValueError(f"out={str(out)!r}: expected a file name that ends in .pdb")
    if not path.parent.is_dir():
        raise ValueError(f"out={str(out)!r}: the folder {path.parent} does not exist")
    return path


def in_place(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` make a file under another name, then give it its own: it is there whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_pdb(ensemble: Ensemble, path: Path) -> None:
    struc, pdb = library("biotite.structure"), library("biotite.structure.io.pdb")
    whole, kept = ensemble.complex, ensemble.kept
    n = len(whole.positions)
    stack = struc.AtomArrayStack(len(kept), n)
    stack.coord = np.zeros((len(kept), n, 3), np.float32)
    for model, conformation in enumerate(kept):
        stack.coord[model] = ensemble.coordinates(conformation)
    for name, values in (("chain_id", whole.chain), ("res_name", whole.residue_name), ("atom_name", whole.atom_name)):
        stack.set_annotation(name, np.array(values))
    stack.element = np.char.upper(np.array(whole.element))
    digits = [number.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") for number in whole.residue_number]
    stack.res_id = np.array([int(each) for each in digits])
    stack.ins_code = np.array([a[len(b) :] for a, b in zip(whole.residue_number, digits, strict=True)])
    stack.hetero = ~np.any([getattr(struc, name)(stack) for name in _POLYMERS], axis=0)
    stack.hetero[whole.n_protein :] = True
    stack.bonds = struc.BondList(n, whole.bonds[stack.hetero[whole.bonds].all(1)])
    file = pdb.PDBFile()
    if kept:
        file.set_structure(stack, hybrid36=n > 99_999)
    file.lines.append("END")
    file.write(path)


def _write_sdf(ensemble: Ensemble, path: Path) -> None:
    with library("rdkit.Chem").SDWriter(str(path)) as writer:
        for conformation in ensemble.kept:
            writer.write(ensemble.ligand(conformation))


def _write_csv(ensemble: Ensemble, path: Path) -> None:
    models = {conformation: str(model) for model, conformation in enumerate(ensemble.kept, 1)}
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["conformation", "model", *ensemble.terms, "total", "ligand_rmsd", "pocket_rmsd", "kept"])
        for i in range(len(ensemble)):
            energies = [f"{float(values[i]):.6f}" for values in (*ensemble.terms.values(), ensemble.total)]
            deviations = [f"{ensemble.ligand_rmsd[i]:.4f}", f"{ensemble.pocket_rmsd[i]:.4f}"]
            rows.writerow([i, models.get(i, ""), *energies, *deviations, ensemble.verdict[i]])
