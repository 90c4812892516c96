"""A small protein and a ligand beside it, as files, and an energy of springs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PROTEIN = Path(__file__).parent / "data" / "peptide.pdb"
"""GFHYSWAKLPC without hydrogens, an embedding by RDKit."""
LIGAND = "OC(=O)c1ccc(CCN)cc1"


def write_files(folder: Path, smiles: str = LIGAND) -> tuple[Path, Path]:
    """``protein.pdb`` and ``ligand.sdf``, posed 3 to 4 angstrom from it, both without hydrogens."""
    from rdkit import Chem

    protein, ligand = folder / "protein.pdb", folder / "ligand.sdf"
    protein.write_text(PROTEIN.read_text())
    around = Chem.MolFromPDBFile(str(protein)).GetConformer().GetPositions()
    ligand.write_text(Chem.MolToMolBlock(posed(smiles, around)) + "$$$$\n")
    return protein, ligand


def posed(smiles: str, around: Any) -> Any:
    """A molecule without hydrogens, 3 to 4 angstrom from the points `around`."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=5)
    molecule = Chem.RemoveHs(molecule)
    molecule.SetProp("_Name", "LG1")
    x = molecule.GetConformer().GetPositions()
    random = np.random.default_rng(0)
    while True:
        turn = np.linalg.qr(random.standard_normal((3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        moved = x @ turn + around.mean(0) + random.uniform(-9, 9, 3)
        if 3 < np.min(np.linalg.norm(moved[:, None] - around, axis=2)) < 4:
            molecule.GetConformer().SetPositions(moved)
            return molecule


class Springs:
    """Bonds as springs of the lengths that they have at first, and a spring to its place for each atom."""

    def __init__(self, complex: Any) -> None:
        self.x, (self.i, self.j) = complex.positions, complex.bonds.T
        self.lengths = np.linalg.norm(self.x[self.i] - self.x[self.j], axis=1)

    def __call__(self, positions: Any) -> tuple[dict[str, Any], Any]:
        gradient, bonds, places = np.empty_like(positions), [], []
        for row, x in enumerate(positions.astype(np.float64)):
            v = x[self.i] - x[self.j]
            r = np.maximum(np.linalg.norm(v, axis=1), 0.01)
            pull = (200 * (r - self.lengths) / r)[:, None] * v
            g = 2 * (x - self.x)
            np.add.at(g, self.i, pull)
            np.add.at(g, self.j, -pull)
            gradient[row] = g
            bonds.append(np.sum(100 * (r - self.lengths) ** 2))
            places.append(np.sum((x - self.x) ** 2))
        return {"bond": np.array(bonds), "place": np.array(places)}, gradient
