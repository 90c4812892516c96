"""The built-in force field of a protein and a ligand: atom types, restraints, scores of crystal complexes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from pykernels.kernels.tiered.problem import TERMS
from pykernels.tiered._complex import Complex
from pykernels.tiered.energy import ForceField
from pykernels.tiered.energy._pocket import describe
from pykernels.tiered.energy._vina_types import WEIGHTS

SEQUENCE = "HSRWKYNPC"


def peptide(hydrogens, ligand="CC(=O)Nc1ccc(O)cc1"):
    """A peptide of SEQUENCE and a ligand 10 angstrom beside it."""
    chain = Chem.AddHs(Chem.MolFromSequence(SEQUENCE), addResidueInfo=True)
    assert rdDistGeom.EmbedMolecule(chain, randomSeed=3, useRandomCoords=True) == 0
    rdForceFieldHelpers.MMFFOptimizeMolecule(chain, maxIters=100)
    if not hydrogens:
        chain = Chem.RemoveHs(chain)
    small = Chem.AddHs(Chem.MolFromSmiles(ligand))
    rdDistGeom.EmbedMolecule(small, randomSeed=1)
    info = [atom.GetPDBResidueInfo() for atom in chain.GetAtoms()]
    x, y = chain.GetConformer().GetPositions(), small.GetConformer().GetPositions()
    start, size = len(x), len(y)
    bonds = [
        (b.GetBeginAtomIdx() + o, b.GetEndAtomIdx() + o) for m, o in ((chain, 0), (small, start)) for b in m.GetBonds()
    ]
    symbols = [atom.GetSymbol() for each in (chain, small) for atom in each.GetAtoms()]
    return Complex(
        positions=np.concatenate([x, y + [x[:, 0].max() - y[:, 0].min() + 10, 0, 0]]),
        element=symbols,
        atom_name=[each.GetName().strip() for each in info] + symbols[start:],
        residue_name=[each.GetResidueName() for each in info] + ["LIG"] * size,
        residue_number=[str(each.GetResidueNumber()) for each in info] + ["1"] * size,
        chain=["A"] * start + ["L"] * size,
        residue=np.array([each.GetResidueNumber() - 1 for each in info] + [len(SEQUENCE)] * size),
        bonds=np.array(bonds),
        n_protein=start,
        ligand=small,
    )


def named(complex, number, name):
    return next(
        atom
        for atom in range(complex.n_protein)
        if complex.residue_number[atom] == str(number) and complex.atom_name[atom] == name
    )


def bonded_energy(complex, x):
    terms = ForceField(describe(complex)).energy_and_gradient(x, backend="reference")[0]
    return terms["bond"] + terms["angle"] + terms["improper"]


def turned(complex, x, i, j, angle):
    """The atoms beyond the bond from i to j, turned about it."""
    beyond, front = {i, j}, [j]
    while front:
        atom = front.pop()
        for pair in complex.bonds[(complex.bonds == atom).any(1)].tolist():
            other = pair[0] + pair[1] - atom
            if other not in beyond:
                beyond.add(other)
                front.append(other)
    moving = sorted(beyond - {i})
    axis = (x[j] - x[i]) / np.linalg.norm(x[j] - x[i])
    r = x[moving] - x[i]
    along = np.outer(r @ axis, axis)
    out = x.copy()
    out[moving] = x[i] + along + (r - along) * np.cos(angle) + np.cross(axis, r) * np.sin(angle)
    return out


def test_names_tell_what_hydrogens_tell():
    bare, full = peptide(False), peptide(True)
    by_name, by_hydrogen = describe(bare).vina, describe(full).vina
    assert not by_hydrogen.scored[[element == "H" for element in full.element]].any()
    for atom in range(bare.n_protein):
        number, name = bare.residue_number[atom], bare.atom_name[atom]
        same = named(full, number, name)
        for field in ("radius", "hydrophobic", "donor", "acceptor"):
            if (name in ("ND1", "NE2") and field in ("donor", "acceptor")) or name == "OXT":
                continue
            assert getattr(by_name, field)[atom] == getattr(by_hydrogen, field)[same], (bare.label(atom), field)
    ring = [named(full, 1, name) for name in ("ND1", "NE2")]
    assert sorted(by_hydrogen.donor[ring]) == sorted(by_hydrogen.acceptor[ring]) == [False, True]
    assert by_name.donor[named(bare, 1, "ND1")] and by_name.acceptor[named(bare, 1, "ND1")]
    assert not by_name.donor[named(bare, 8, "N")]
    assert by_name.hydrophobic[named(bare, 6, "CB")] and not by_name.hydrophobic[named(bare, 9, "CB")]


def test_types_of_a_ligand():
    complex = peptide(False, "CC(=O)Nc1ccc(O)c(CN(C)C)c1F")
    vina, start = describe(complex).vina, complex.n_protein
    types = {}
    for atom in complex.ligand.GetAtoms():
        i = start + atom.GetIdx()
        types.setdefault(atom.GetSymbol(), []).append((vina.hydrophobic[i], vina.donor[i], vina.acceptor[i]))
    assert types["N"] == [(False, True, False), (False, False, True)]
    assert types["O"] == [(False, False, True), (False, True, True)]
    assert types["F"] == [(True, False, False)]
    assert [each[0] for each in types["C"]] == [True, False, False, True, True, False, True, False, False, False, False]
    np.testing.assert_allclose(WEIGHTS / vina.weights, 1 + 0.05846 * 3)


@pytest.mark.parametrize("hydrogens", [False, True])
def test_restraints_hold_what_is_rigid_and_let_torsions_turn(hydrogens):
    complex = peptide(hydrogens)
    x = complex.positions
    assert bonded_energy(complex, x) < 1e-18
    free = turned(complex, x, named(complex, 6, "CA"), named(complex, 6, "CB"), 1.0)
    assert bonded_energy(complex, free) < 1e-18
    for number, (i, j) in ((4, ("C", "N")), (6, ("CG", "CD1")), (3, ("NE", "CZ"))):
        j = named(complex, number + (j == "N"), j)
        assert bonded_energy(complex, turned(complex, x, named(complex, number, i), j, 0.5)) > 3
    mirrored = x * [1, 1, -1]
    assert bonded_energy(complex, mirrored) > 100


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradient_by_finite_differences(backend):
    complex = peptide(False)
    rng, step = np.random.default_rng(0), 1e-5
    x = complex.positions + 0.1 * rng.normal(size=complex.positions.shape)
    x[complex.ligand_atoms] -= [9, 0, 0]
    field = ForceField(describe(complex))
    gradient = field.energy_and_gradient(x, backend=backend)[1]
    for atom in rng.integers(0, len(x), 12):
        moved = np.stack([x, x])
        moved[0, atom, 1] += step
        moved[1, atom, 1] -= step
        ends = field.energy_and_gradient(moved, backend=backend)[0]["total"]
        assert gradient[atom, 1] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-4)


def test_a_metal_ion_is_held_by_what_coordinates_it():
    complex = peptide(False)
    zinc = named(complex, 9, "OXT")
    nitrogen = named(complex, 1, "NE2")
    away = complex.positions.copy()
    away[zinc] = away[nitrogen] + [0, 0, 2.1]
    element = [*complex.element]
    element[zinc] = "Zn"
    bonds = complex.bonds[(complex.bonds != zinc).all(1)]
    found = describe(replace(complex, positions=away, element=element, bonds=bonds))
    assert found.vina.radius[zinc] == 1.2 and found.vina.donor[zinc]
    held = found.bonded.bond_atoms[(found.bonded.bond_atoms == zinc).any(1)]
    assert nitrogen in held
    assert zinc not in found.bonded.angle_atoms[:, 1]


def test_errors_name_the_atom():
    complex = peptide(False)
    element = [*complex.element]
    element[named(complex, 2, "OG")] = "Xe"
    with pytest.raises(ValueError, match="OG of SER 2 in chain A is Xe, for which AutoDock Vina has no type"):
        describe(replace(complex, element=element))
    x = complex.positions.copy()
    x[named(complex, 2, "OG")] = x[named(complex, 2, "CB")]
    with pytest.raises(ValueError, match="CB of SER 2 in chain A and OG of SER 2 in chain A are bonded"):
        describe(replace(complex, positions=x))
    with pytest.raises(ValueError, match="MMFF94 has no parameters for Se of LIG 1 in chain L"):
        describe(peptide(False, "CC[Se]C"))
    for name in ("bond_stiffness", "angle_stiffness", "plane_stiffness"):
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"{name}={value}"):
                describe(complex, **{name: value})


# what AutoDock Vina 1.2.3 (--score_only, no torsions) gives for the same atoms and types
PUBLISHED = {"1ia1": -9.924, "1s3v": -12.373, "1uou": -8.084, "1of6": -8.945}


@pytest.mark.parametrize("name", PUBLISHED)
def test_crystal_poses(name):
    pytest.importorskip("biotite")
    posebusters = pytest.importorskip("posebusters")
    from pykernels.tiered._structures import read_complex

    folder = Path(posebusters.__file__).parent / "datasets" / "pdb" / name
    (protein,) = folder.glob("*_protein_one_lig_removed.pdb")
    (ligand,) = folder.glob("*_ligand.sdf")
    complex = read_complex(protein, ligand)
    field = ForceField.for_pocket(complex, np.arange(complex.n_protein))
    x = np.stack([complex.positions] * 2)
    x[1, complex.ligand_atoms] += 500
    terms, gradient = field.energy_and_gradient(x)
    within = field.constant(x[0], "cpu")[0][TERMS.index("vina")]
    score = (terms["vina"] - within) * (WEIGHTS[0] / field.description.vina.weights[0])
    assert score[0] == pytest.approx(PUBLISHED[name], rel=2e-3)
    assert score[1] == pytest.approx(0, abs=1e-9)
    assert terms["bond"][0] + terms["angle"][0] + terms["improper"][0] < 1e-20
    assert np.abs(gradient[0, complex.ligand_atoms]).max() < 1e3
