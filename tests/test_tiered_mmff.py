"""MMFF94: the reference and the Numba kernel against RDKit's own force field."""

from __future__ import annotations

import numpy as np
import pytest

from pykernels.kernels.tiered.cpu_mmff import mmff_part
from pykernels.kernels.tiered.problem import TERMS, Mmff
from pykernels.kernels.tiered.reference_mmff import mmff

pytest.importorskip("rdkit")
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from pykernels.tiered.energy._mmff import mmff_of

SMILES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "imatinib": "Cc1ccc(cc1Nc2nccc(n2)c3cccnc3)NC(=O)c4ccc(cc4)CN5CCN(CC5)C",
    "penicillin": "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O",
    "AMP": "OP(=O)(O)OC[C@H]1OC(n2cnc3c(N)ncnc32)[C@H](O)[C@@H]1O",
    "sulfonamide": "CS(=O)(=O)Nc1ccc(Cl)cc1Br",
    "iodide, thiol": "FC(F)(F)c1ccc(I)cc1S",
    "zwitterion": "[O-]C(=O)C[NH3+]",
    "furan, thiophene": "c1ccsc1-c1ccco1",
    "choline": "C[N+](C)(C)CCO",
    "nitrile": "CC#N",
    "alkyne, triangle": "C1CC1C#CC",
    "allene": "C=C=C",
    "azide": "CN=[N+]=[N-]",
    "isocyanate": "O=C=NC",
    "square": "C1CCC1",
    "norbornadiene": "C1=CC2CC1C=C2",
    "disulfide, nitro": "CSSCC[N+](=O)[O-]",
    "silane": "C[Si](C)(C)C",
    "water": "O",
}
CLASSES = ("Bond", "Angle", "StretchBend", "Oop", "Torsion", "Vdw", "Ele")


def embedded(smiles):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=7) == 0
    return molecule, molecule.GetConformer().GetPositions()


def rdkit(molecule, x, terms=CLASSES):
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    for name in CLASSES:
        spelled = {"Vdw": "VdW"}.get(name, name)
        getattr(properties, f"SetMMFF{spelled}Term")(name in terms)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
    flat = x.ravel().tolist()
    return field.CalcEnergy(flat), np.array(field.CalcGrad(flat)).reshape(-1, 3)


def reference(x, terms):
    gradient = np.zeros(x.shape)
    return mmff(x, terms, gradient), gradient


def kernel(x, terms, parts=1, dtype=np.float64):
    terms = Mmff(*(each.astype(dtype) if each.dtype == np.float64 else each for each in terms))
    energies, gradient = np.zeros(len(TERMS)), np.zeros(x.shape, dtype)
    for part in range(parts):
        mmff_part(x.astype(dtype), terms, part, parts, energies, gradient)
    assert np.count_nonzero(energies) <= 1
    return energies[TERMS.index("mmff")], gradient


def agree(found, expected, rtol):
    assert found[0] == pytest.approx(expected[0], rel=rtol, abs=rtol)
    scale = max(1, np.abs(expected[1]).max())
    np.testing.assert_allclose(found[1], expected[1], atol=rtol * scale)


@pytest.mark.parametrize("name", SMILES)
def test_agrees_with_rdkit(name):
    molecule, x = embedded(SMILES[name])
    terms = mmff_of(molecule)
    rng = np.random.default_rng(0)
    for distortion in (0, 0.05, 0.3, 0.8):
        there = x + distortion * rng.normal(size=x.shape)
        ours = reference(there, terms)
        agree(ours, rdkit(molecule, there), 1e-8)
        agree(kernel(there, terms, parts=3), ours, 1e-11)
        coarse = kernel(there, terms, dtype=np.float32)
        assert coarse[0] == pytest.approx(ours[0], rel=3e-5, abs=1e-3)
        assert np.abs(coarse[1] - ours[1]).max() < 1e-4 * max(1, np.abs(ours[1]).max())


@pytest.mark.parametrize("name", ["imatinib", "penicillin", "AMP", "isocyanate"])
def test_every_class_of_terms_agrees_with_rdkit(name):
    molecule, x = embedded(SMILES[name])
    x = x + 0.1 * np.random.default_rng(1).normal(size=x.shape)
    terms = mmff_of(molecule)
    none = terms._replace(**{key: getattr(terms, key)[:0] for key in terms._fields})
    bend, stretch, van_der_waals, charges = (
        np.array(each) for each in (terms.angle, terms.angle, terms.pair, terms.pair)
    )
    bend[:, 3:5] = 0
    stretch[:, 0] = 0
    van_der_waals[:, 2] = 0
    charges[:, 1] = 0
    some = {
        "Bond": none._replace(bond_atoms=terms.bond_atoms, bond=terms.bond),
        "Angle": none._replace(angle_atoms=terms.angle_atoms, angle=bend),
        "StretchBend": none._replace(angle_atoms=terms.angle_atoms, angle=stretch),
        "Oop": none._replace(plane_atoms=terms.plane_atoms, plane=terms.plane),
        "Torsion": none._replace(series_atoms=terms.series_atoms, series=terms.series),
        "Vdw": none._replace(pair_atoms=terms.pair_atoms, pair=van_der_waals),
        "Ele": none._replace(pair_atoms=terms.pair_atoms, pair=charges),
    }
    for each in CLASSES:
        agree(reference(x, some[each]), rdkit(molecule, x, (each,)), 1e-8)


def test_gradient_by_finite_differences():
    molecule, x = embedded(SMILES["AMP"])
    x = x + 0.1 * np.random.default_rng(2).normal(size=x.shape)
    terms, step = mmff_of(molecule), 1e-5
    gradient = kernel(x, terms)[1]
    for atom, axis in ((0, 0), (5, 1), (13, 2), (20, 0)):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[atom, axis] += sign * step
            ends.append(kernel(moved, terms)[0])
        assert gradient[atom, axis] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["AMP", "allene", "azide"])
def test_atoms_in_one_place_or_line_are_finite(name, dtype):
    molecule, x = embedded(SMILES[name])
    line = np.outer(np.arange(len(x)), [0.3, 0.4, 1.2])
    for there in (np.zeros(x.shape), line):
        for energy, gradient in (reference(there, mmff_of(molecule)), kernel(there, mmff_of(molecule), dtype=dtype)):
            assert np.isfinite(energy) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("smiles", "culprit"), [("CCB(O)O", "B 2"), ("CCC[Se]C", "Se 3"), ("CCC[PH4]", "P 3"), ("c1ccccc1[I+]C", "I 6")]
)
def test_a_molecule_without_parameters(smiles, culprit):
    with rdBase.BlockLogs():
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        with pytest.raises(ValueError, match=f"MMFF94 has no parameters for {culprit} of the ligand"):
            mmff_of(molecule, lambda atom: f"{molecule.GetAtomWithIdx(atom).GetSymbol()} {atom}")
